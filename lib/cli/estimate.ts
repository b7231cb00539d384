import type { ScoreSdeVePipeline } from '../sampling/pipeline';
import type { StepsOptions } from '../sampling/plan';
import { usualCalls } from '../solvers';

/** What was measured of a run, and what is left of it. */
export interface Measured {
  /** Seconds of one network call for all images at once. */
  readonly secondsPerCall: number;
  /** Network calls that are left for each image. */
  readonly calls: number;
  readonly images: number;
  /** Whether the solver decides on its calls itself, so that they are only what is usual. */
  readonly isAdaptive?: boolean;
}

/** A run that takes longer than this is not begun without a word. */
const longSeconds = 600;
/** The calls of an adaptive solver for one image: 25 to 35 on the built-in model. */
const usualOfAdaptive = 30;

/**
 * Times a run's calls: with one image, which does where as many calls of all images, one by one, would take no long time; else
 * as {@link ScoreSdeVePipeline.estimate} does. `calls` is their number where it is not the run's own.
 */
export async function measured(
  pipeline: ScoreSdeVePipeline,
  { label, batchSize: images, ...rest }: StepsOptions & { batchSize: number; label: number[] | undefined },
  { calls, isAdaptive = false }: { calls?: number; isAdaptive?: boolean } = {},
): Promise<Measured> {
  // An adaptive solver cannot be estimated: its calls are timed as those of another.
  const options = isAdaptive ? { ...rest, solver: undefined, eta: undefined, order: undefined, calls: 2 } : rest;
  const labelled = (labels?: number[]) => (labels === undefined ? {} : { modelInputs: { class_labels: labels } });
  const one = await pipeline.estimate({ ...options, ...labelled(label?.slice(0, 1)), batchSize: 1 });
  const all = calls ?? (isAdaptive ? usualOfAdaptive : one.calls);
  const atMost: Measured = { secondsPerCall: (one.seconds / one.calls) * images, calls: all, images, isAdaptive };
  if (longRun(atMost) === undefined) return atMost;
  const { seconds, calls: timed } = await pipeline.estimate({ ...options, ...labelled(label), batchSize: images });
  return { ...atMost, secondsPerCall: seconds / timed };
}

/**
 * What a run of more than ten minutes will take, in words; undefined of a shorter one. `offers` adds what the usual number of
 * calls takes.
 */
export function longRun(
  { secondsPerCall, calls, images, isAdaptive = false }: Measured,
  offers = true,
): string | undefined {
  const seconds = secondsPerCall * calls;
  if (!(seconds > longSeconds)) return undefined;
  const count = (calls * images).toLocaleString('en-US');
  const usual =
    offers && !isAdaptive && calls > usualCalls
      ? `; --calls ${usualCalls} takes ${duration(secondsPerCall * usualCalls)}`
      : '';
  const guess = isAdaptive ? `the solver decides on its calls, ${calls} an image as a rule: ` : '';
  return `${guess}${count} network calls, about ${duration(seconds)}${usual}`;
}

/** Seconds as people say them: 40 s, 40 min, 9 hours, 6 days. */
export function duration(seconds: number): string {
  if (seconds < 1) return 'less than 1 s';
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} hours`;
  return `${Math.round(seconds / 86400)} days`;
}
