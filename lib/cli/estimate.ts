/** What was measured of a run, and what is left of it. */
export interface Measured {
  /** Seconds of one network call for all images at once. */
  readonly secondsPerCall: number;
  /** Network calls that are left for each image. */
  readonly calls: number;
  readonly images: number;
}

/** A run that takes longer than this is not begun without a word. */
const longSeconds = 600;
/** The calls of `sample` where nothing else is said. */
export const usualCalls = 20;

/**
 * What a run of more than ten minutes will take, in words; undefined of a shorter one. `offers` adds what the usual number of
 * calls takes.
 */
export function longRun({ secondsPerCall, calls, images }: Measured, offers = true): string | undefined {
  const seconds = secondsPerCall * calls;
  if (!(seconds > longSeconds)) return undefined;
  const count = (calls * images).toLocaleString('en-US');
  const usual =
    offers && calls > usualCalls ? `; --calls ${usualCalls} takes ${duration(secondsPerCall * usualCalls)}` : '';
  return `${count} network calls, about ${duration(seconds)}${usual}`;
}

/** Seconds as people say them: 40 s, 40 min, 9 hours, 6 days. */
export function duration(seconds: number): string {
  if (seconds < 1) return 'less than 1 s';
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${Math.round(seconds / 3600)} hours`;
  return `${Math.round(seconds / 86400)} days`;
}
