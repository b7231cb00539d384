import { now } from '../clock';
import { OnnxModel } from '../models/onnx/model';
import { Generator } from '../random/generator';
import { Batch } from './batch';
import { inputsOfRows } from './inputs';
import { Lane, type NoiseSource } from './lane';
import type { RunPlan } from './plan';

/** What a run will take. */
export interface Estimate {
  /** Network calls a sample; NaN where the solver decides on them as it goes. */
  readonly calls: number;
  /** Wall time; NaN where the calls are not known. */
  readonly seconds: number;
}

/** Seconds after which what was measured must do. */
const enough = 0.5;
/** Stages that are timed at most, after one that is not: memory is new to the first. */
const mostStages = 3;
/** Seconds that one more call with several samples may be expected to take at most. */
const bearable = 3;

/**
 * Times some stages of a run, with noise of its own: first of one sample, then of all samples where that is bearable. Else the
 * time is taken to be a straight line through one sample and as many as are bearable.
 */
export async function estimateOf(plan: RunPlan): Promise<Estimate> {
  const calls = plan.solver.calls(plan.levels);
  if (calls === undefined) return { calls: NaN, seconds: NaN };
  const all = plan.dims[0]!;
  const rows = Math.min(plan.maxRows ?? all, all);
  return { calls, seconds: (await secondsOf(plan, rows)) * calls * (all / rows) };
}

/** Seconds of one stage of so many samples. */
async function secondsOf(plan: RunPlan, rows: number): Promise<number> {
  const one = await secondsPerStage(plan, 1);
  if (rows === 1) return one;
  if (one * rows <= bearable) return secondsPerStage(plan, rows);
  const { width, atOnce } = plan.model instanceof OnnxModel ? plan.model.exact : { width: 'any' as const, atOnce: 1 };
  const together = width === 'any' ? rows : Math.min(width * atOnce, rows);
  return Math.ceil(rows / together) * (await secondsOfCall(plan, one, together, width !== 'any'));
}

/**
 * Seconds of the network calls that go at once, with so many samples, of which one takes `one`.
 * @param isDivided Whether the model divides batches into such calls. A network so slow that it is not probed does where it
 *   takes batches of that size alone, whose calls all take as long
 */
async function secondsOfCall(plan: RunPlan, one: number, samples: number, isDivided: boolean): Promise<number> {
  if (samples === 1) return one;
  if (one > bearable) return isDivided ? one : one * samples;
  const some = Math.min(samples, Math.max(2, Math.floor(bearable / one)));
  const more = Math.max(0, (await secondsPerStage(plan, some)) - one) / (some - 1);
  return one + more * (samples - 1);
}

/** Seconds of one network call and its update, for so many samples. */
async function secondsPerStage(plan: RunPlan, rows: number): Promise<number> {
  const { model, device, dims, solver, levels, signal } = plan;
  const batch = new Batch({ model, sampleShape: dims.slice(1), capacity: rows, device, signal });
  const inputs = inputsOfRows(plan.inputs, 0, rows, dims[0]!);
  const lane = new Lane({ solver, levels, rows, inputs, noise: ownNoise(plan.noise, rows) });
  try {
    await batch.join(lane);
    const timed = async (): Promise<number> => {
      const since = now();
      await batch.advance();
      await batch.settle();
      if (lane.failure !== undefined) throw lane.failure;
      return (now() - since) / 1000;
    };
    const first = await timed();
    if (first > enough) return first;
    const times: number[] = [];
    while (times.length < mostStages && !lane.done && sum(times) < enough) times.push(await timed());
    return times.length === 0 ? first : sum(times) / times.length;
  } finally {
    await batch.dispose();
  }
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** Generators like a run's, of which nothing is drawn. */
function ownNoise(noise: NoiseSource, rows: number): NoiseSource {
  if (!('generators' in noise)) return { generators: [new Generator(0)] };
  const { engine } = noise.generators[0]!;
  const count = noise.generators.length === 1 ? 1 : rows;
  return { generators: Array.from({ length: count }, (_, i) => new Generator(i, { engine })) };
}
