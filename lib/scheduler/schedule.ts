import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { native } from '../native/addon';
import type { SchedulerConfig } from './config';

/** The tables of a scheduler. Never changed: setTimesteps and setSigmas make new ones, and a run keeps those it started with. */
export interface Schedule {
  /** [N] times t, from 1 down to samplingEps. */
  readonly timesteps: Float32Array | null;
  /** [N] sigma(t) of each timestep (eq. 31), descending: the model's input. */
  readonly sigmas: Float32Array;
  /** [N] the geometric sequence of noise levels, ascending, which the steps use. */
  readonly discreteSigmas: Float32Array;
}

/** The most steps: indices are computed in float32, where integers are exact up to 2^24. */
const maxSteps = 2 ** 24;

export const missingTimesteps = 'timesteps is not set: call setTimesteps() after the scheduler is made';

function stepCount(count: unknown): number {
  if (!Number.isInteger(count) || (count as number) < 0 || (count as number) > maxSteps)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `the number of inference steps must be an integer from 0 to 2^24, got ${show(count)}`,
    );
  return count as number;
}

function finite(value: unknown, name: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw new ScoreSdeError('ERR_RANGE', `${name} must be a finite number, got ${show(value)}`);
  return value;
}

function noiseLevel(value: unknown, name: string): void {
  if (finite(value, name) <= 0) throw new ScoreSdeError('ERR_RANGE', `${name} must be above 0, got ${show(value)}`);
}

/** linspace(1, samplingEps, count). Warns where samplingEps gives some timestep the index of another one's noise level. ERR_RANGE. */
export function timestepTable(count: number, samplingEps: number): Float32Array {
  stepCount(count);
  finite(samplingEps, 'samplingEps');
  if (count > 1 && !(samplingEps > 0 && samplingEps < 1 / (count - 1)))
    process.emitWarning(
      `samplingEps ${samplingEps} is not between 0 and 1/(N-1) = ${1 / (count - 1)} for N = ${count} steps: ` +
        'some timesteps will miss their noise level (as they do in diffusers)',
      'ScoreSdeWarning',
    );
  const timesteps = new Float32Array(count);
  native.linspace(count, timesteps, 1, samplingEps);
  return timesteps;
}

export interface SigmaOptions {
  /** Smallest noise level, finite, > 0. Default: the config's. */
  sigmaMin?: number | undefined;
  /** Largest noise level, finite, > 0. Default: the config's. */
  sigmaMax?: number | undefined;
  /** Last timestep, finite; used only where no timesteps are set. Default: the config's. */
  samplingEps?: number | undefined;
}

/** The tables after set_sigmas: new noise levels, and new timesteps if there are none. ERR_RANGE, ERR_CONFIG. */
export function withSigmas(
  schedule: Pick<Schedule, 'timesteps'>,
  count: number,
  config: SchedulerConfig,
  options: SigmaOptions = {},
): Schedule {
  assertOptions(options, ['sigmaMin', 'sigmaMax', 'samplingEps']);
  stepCount(count);
  const { sigmaMin = config.sigmaMin, sigmaMax = config.sigmaMax, samplingEps = config.samplingEps } = options;
  noiseLevel(sigmaMin, 'sigmaMin');
  noiseLevel(sigmaMax, 'sigmaMax');
  finite(samplingEps, 'samplingEps');
  const timesteps = schedule.timesteps ?? timestepTable(count, samplingEps);
  const discreteSigmas = new Float32Array(count);
  native.discreteSigmas(count, discreteSigmas, sigmaMin, sigmaMax);
  const sigmas = new Float32Array(timesteps.length);
  native.sigmas(timesteps.length, sigmas, timesteps, sigmaMin, sigmaMax);
  return { timesteps, sigmas, discreteSigmas };
}

/** The tables that the reference's pipeline sets: set_timesteps, then set_sigmas. */
export function inferenceSchedule(count: number, config: SchedulerConfig): Schedule {
  return withSigmas({ timesteps: timestepTable(count, config.samplingEps) }, count, config);
}

/** The index of time t in discreteSigmas: trunc(t (N - 1)) in float32. ERR_RANGE outside the table, ERR_STATE without timesteps. */
export function indexOf(schedule: Schedule, timestep: number): number {
  const { timesteps, discreteSigmas } = schedule;
  if (timesteps === null) throw new ScoreSdeError('ERR_STATE', missingTimesteps);
  const index = Math.trunc(Math.fround(Math.fround(timestep) * Math.fround(timesteps.length - 1)));
  if (!(index >= 0 && index < discreteSigmas.length))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `timestep must lie from 0 to 1, where it maps to one of the ${discreteSigmas.length} sigmas, got ${timestep} (index ${index})`,
    );
  return index;
}

/** The noise level before index i: sigma_{i-1} of eq. 47, 0 for index 0. A negative i - 1 counts from the end, as in the reference. ERR_RANGE. */
export function adjacentSigma(discreteSigmas: Float32Array, index: number): number {
  if (index === 0) return 0;
  const at = index - 1;
  const sigma = Number.isInteger(index) ? discreteSigmas.at(at) : undefined;
  if (sigma === undefined)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `index must be an integer within the table of ${discreteSigmas.length} sigmas, got ${show(index)}`,
    );
  return sigma;
}
