import { randomInt } from 'node:crypto';
import type { Signal } from '../platform';
import { ScoreSdeError } from '../errors';
import { assertInputs, dataRangeOf, type ModelInputs, type ScoreModel } from '../models/model';
import { Generator, generatorsOf } from '../random/generator';
import { seedOf } from '../random/kind';
import { assertFunction, assertOptions, assertSignal, show } from '../options';
import type { SchedulerConfig } from '../scheduler/config';
import { withSigmas, timestepTable } from '../scheduler/schedule';
import {
  correctorOptions,
  levelsFrom,
  levelsOfGrid,
  levelsOfSchedule,
  preset,
  solverList,
  solverOf,
  solverOptions,
  usualCalls,
  type Grid,
  type Preset,
  type SolverName,
  type SolverOptions,
} from '../solvers';
import type { Json, Levels, Solver } from '../solvers/solver';
import { assertSameDims, operand } from '../tensor/operand';
import { sizeOfDims, type TensorLike } from '../tensor/tensor';
import type { LaneState } from './batch';
import type { NoiseSampler, NoiseSource, Place } from './lane';

/** How far a run is. */
export interface SamplingProgress {
  /** Steps that are done, 1 to total. */
  readonly step: number;
  /** Steps in all; NaN where the solver decides on them as it goes. */
  readonly total: number;
  /** Network calls so far. */
  readonly calls: number;
  /** The noise level that the step began at. */
  readonly sigma: number;
}

/** All that a run depends on: a snapshot, so that runs do not disturb one another. */
export interface RunPlan {
  readonly model: ScoreModel;
  readonly device: string;
  /** The dims of the batch, [B, ...]. */
  readonly dims: readonly number[];
  /** How many samples are in work at once; all of them where it is undefined. */
  readonly maxRows: number | undefined;
  readonly solver: Solver;
  /** The name by which the solver was asked for: one of the paper's is a `pc` of a certain kind. */
  readonly solverName: string;
  readonly levels: Levels;
  readonly noise: NoiseSource;
  readonly seed: bigint | undefined;
  readonly inputs: ModelInputs;
  /** The inputs as the model prepared them for the whole batch. */
  readonly prepared: ModelInputs;
  readonly dataRange: readonly [low: number, high: number];
  readonly signal?: Signal | undefined;
  readonly onProgress?: ((progress: SamplingProgress) => void) | undefined;
  /** Where the run begins, if not with noise. */
  readonly state?: LaneState | undefined;
  /** Where its lanes stand, if not at their beginning: one, or one for each sample with an adaptive solver. */
  readonly places?: readonly Place[] | undefined;
}

export interface StepsOptions extends SolverOptions {
  /** Samples to make at once, an integer >= 1; with seeds, 65536 at most. That of `sample` where it is given, else 1. */
  batchSize?: number | undefined;
  /**
   * Samples that are in work at once, an integer >= 1; the others wait. It bounds the memory of the network and of the states
   * beside the samples themselves, and changes no bit. Each sample needs a stream of its own: a seed, or a generator for each.
   */
  maxRows?: number | undefined;
  /** Steps N, an integer from 1 to 2^24; the scheduler's numTrainTimesteps for 'pc' and the paper's solvers unless given. That of an array of levels. */
  numInferenceSteps?: number | undefined;
  /**
   * Network calls a sample, an integer >= 1: exactly so many are made, those of the steps before `startStep` included. The solver
   * is er_sde, with eta and rho by the number, unless `solver` names another. Below 5 the samples are rough. Instead of
   * `numInferenceSteps`; 20 for a solver that is neither 'pc' nor one of the paper's, unless either is given.
   */
  calls?: number | undefined;
  /** A solver by its name, with its options beside it, or one that `solvers` made. 'pc' (the reference) unless `calls` is given. */
  // Any string, of which an editor offers the names.
  solver?: SolverName | (string & {}) | Solver | undefined;
  /** How the noise levels lie: a name, or the levels themselves, decreasing. By the solver unless given. */
  grid?: Grid | undefined;
  /** The exponent of the grids 'karras' (7) and 'polyexponential' (1). */
  rho?: number | undefined;
  /** The lowest noise level, > 0; the scheduler's unless given. */
  sigmaMin?: number | undefined;
  /** The highest noise level, > 0; the scheduler's unless given. */
  sigmaMax?: number | undefined;
  /** The last timestep of the scheduler's tables; the scheduler's unless given. Of 'pc' and the paper's solvers, without `grid`. */
  samplingEps?: number | undefined;
  /**
   * 'centered': the first network call's estimate of the mean is added to the start, which has none; the default of all
   * solvers but 'pc' and the paper's. 'zero': the start is noise alone. Nothing where `sample` is given.
   */
  start?: 'centered' | 'zero' | undefined;
  /** x at the level where the run begins, [B, ...] float32, float16 or bfloat16: the run goes on from there. It is not written to. */
  sample?: TensorLike | undefined;
  /** The step at which x stands, from 0: the steps before it are left out. With `sample`. */
  startStep?: number | undefined;
  /** The noise level at which x stands, instead of sigmaMax: all steps lie below it. With `sample`. Of an array of levels: the first of them. */
  sigmaStart?: number | undefined;
  /**
   * Sample k of the batch comes from a philox stream of its own, of seed + k, and is measured by itself (stepSize
   * 'sample'): it is the image of seed + k in any batch. Random unless given.
   */
  seed?: number | bigint | undefined;
  /** The reference's way: all draws from one generator, or from one for each sample, and stepSize 'batch'. Instead of `seed`. */
  generator?: Generator | readonly Generator[] | undefined;
  /** Gives the normals of each update in place of a seed or generator, as k-diffusion's noise_sampler. With `sample`. */
  noiseSampler?: NoiseSampler | undefined;
  /** Further inputs of the network by name: a number for all samples, one for each, or a tensor, with a row for each (see ModelInput). */
  modelInputs?: ModelInputs | undefined;
  /** The values of the network's pictures, which `images` maps to [0, 1]: [0, 1] unless given. */
  dataRange?: readonly [low: number, high: number] | undefined;
  /** Ends the run at once, with an error of code ERR_ABORTED. */
  signal?: Signal | undefined;
  /** Called after each step, and not awaited: it costs the run neither memory nor its work ahead of the event loop. */
  onProgress?: ((progress: SamplingProgress) => void) | undefined;
}

/** What goes on with a saved run. */
export interface ResumeOptions {
  /** In place of those that were saved. */
  modelInputs?: ModelInputs | undefined;
  /** The source of normals of a run that had one. */
  noiseSampler?: NoiseSampler | undefined;
  /** Ends the run at once, with an error of code ERR_ABORTED. */
  signal?: Signal | undefined;
  /** Called after each step, and not awaited. */
  onProgress?: ((progress: SamplingProgress) => void) | undefined;
}

const ownOptions = [
  'batchSize',
  'maxRows',
  'numInferenceSteps',
  'calls',
  'seed',
  'generator',
  'noiseSampler',
  'solver',
  'grid',
  'rho',
  'sigmaMin',
  'sigmaMax',
  'samplingEps',
  'start',
  'sample',
  'startStep',
  'sigmaStart',
  'modelInputs',
  'dataRange',
  'signal',
  'onProgress',
] as const satisfies (keyof StepsOptions)[];

export const stepsOptions: readonly string[] = [...ownOptions, ...solverOptions];
export const resumeOptions: readonly string[] = ['modelInputs', 'noiseSampler', 'signal', 'onProgress'];

/** Each is drawn from a stream of its own, of which every step takes note. */
const maxSeeds = 2 ** 16;

/** What a plan needs of a pipeline. */
export interface Source {
  readonly model: ScoreModel;
  readonly config: SchedulerConfig;
  readonly sampleShape: readonly number[];
  readonly device: string;
}

/** A run's options, checked, as all that the run depends on. ERR_RANGE, ERR_CONFIG, ERR_SHAPE, ERR_MODEL. */
export function planOf(source: Source, options: StepsOptions): RunPlan {
  assertOptions(options, stepsOptions);
  const { model, sampleShape, device } = source;
  const { modelInputs = {}, signal, onProgress, sample, noiseSampler } = options;
  const state = sample === undefined ? undefined : stateOf(sample, sampleShape);
  const { batchSize = state?.x.dims[0] ?? 1 } = options;
  if (!Number.isInteger(batchSize) || batchSize < 1)
    throw new ScoreSdeError('ERR_RANGE', `batchSize must be an integer >= 1, got ${show(batchSize)}`);
  assertCount(options.numInferenceSteps, 'numInferenceSteps');
  assertCount(options.calls, 'calls');
  assertSignal(signal);
  assertFunction(onProgress, 'onProgress');
  assertFunction(noiseSampler, 'noiseSampler');
  assertInputs(modelInputs, 'modelInputs');
  const dims = [batchSize, ...sampleShape];
  sizeOfDims(dims, 'the batch');
  if (state !== undefined && state.x.dims[0] !== batchSize)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `sample must have dims [${dims.join(', ')}], got [${state.x.dims.join(', ')}]: batchSize is ${batchSize}`,
    );
  const { seed, noise } = noiseOf(options, batchSize, sampleShape);
  const solver = chosen(options, source.config, seed === undefined ? 'batch' : 'sample');
  const levels = levelsOf(solver, options, source.config);
  solver.start(levels); // refuses levels that it cannot use
  return {
    model,
    device,
    dims,
    maxRows: maxRowsOf(options.maxRows, batchSize, solver, noise),
    solver,
    solverName: typeof options.solver === 'string' ? options.solver : solver.name,
    levels,
    noise,
    seed,
    inputs: modelInputs,
    prepared: model.prepare?.(dims, modelInputs) ?? modelInputs,
    dataRange: dataRangeOf(options.dataRange) ?? model.dataRange ?? [0, 1],
    signal,
    onProgress,
    state,
  };
}

function stateOf(sample: TensorLike, sampleShape: readonly number[]) {
  const x = operand(sample, 'sample');
  assertSameDims(x, { name: 'a batch', dims: [x.dims[0] ?? 1, ...sampleShape] });
  return { x: sample, history: [] };
}

/** Where the draws of a run come from. */
function noiseOf(options: StepsOptions, batchSize: number, sampleShape: readonly number[]) {
  const { seed, generator, noiseSampler, sample } = options;
  const given = Object.entries({ seed, generator, noiseSampler }).filter(([, value]) => value !== undefined);
  if (given.length > 1)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${given.map(([name]) => name).join(' and ')} were both given: the draws come from one of them`,
    );
  if (noiseSampler !== undefined) {
    if (sample === undefined)
      throw new ScoreSdeError('ERR_CONFIG', 'noiseSampler needs sample, the x that the run begins with');
    return { seed: undefined, noise: { sampler: noiseSampler } };
  }
  if (generator !== undefined) return { seed: undefined, noise: { generators: generatorsOf(generator, batchSize) } };
  if (batchSize > maxSeeds)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `batchSize must be at most ${maxSeeds}, with a stream for each sample, got ${batchSize}: pass a generator, which draws the batch at once`,
    );
  const first = seedOf(seed === undefined ? randomInt(2 ** 32) : seed);
  const size = sizeOfDims(sampleShape, 'sampleShape');
  const generators = Array.from({ length: batchSize }, (_, k) => {
    const stream = new Generator(BigInt.asUintN(64, first + BigInt(k)));
    // The first draw of a seed is the start's, also where the start is given: noise that was made from the same seed is
    // not drawn again by the first step.
    if (sample !== undefined)
      stream.setState({ engine: 'philox', seed: stream.initialSeed, offset: BigInt(Math.ceil(size / 4)) });
    return stream;
  });
  return { seed: first, noise: { generators } };
}

/** ERR_RANGE; ERR_CONFIG where the samples of the batch depend on each other. */
function maxRowsOf(maxRows: unknown, batchSize: number, solver: Solver, noise: NoiseSource): number | undefined {
  if (maxRows === undefined) return undefined;
  if (!Number.isInteger(maxRows) || (maxRows as number) < 1)
    throw new ScoreSdeError('ERR_RANGE', `maxRows must be an integer >= 1, got ${show(maxRows)}`);
  if ((maxRows as number) >= batchSize) return undefined;
  const isOne = 'sampler' in noise || (noise.generators.length === 1 && solver.stochastic);
  if (isOne || solver.options.stepSize === 'batch')
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `maxRows needs samples that do not depend on each other: ${isOne ? 'give a seed, or a generator for each' : "stepSize 'batch' measures all of them together"}`,
    );
  return maxRows as number;
}

/** The solver of a run: the one that is given or named, the preset for a number of calls, or the reference's. */
function chosen(options: StepsOptions, config: SchedulerConfig, stepSize: 'batch' | 'sample'): Solver {
  const { solver, calls, numInferenceSteps } = options;
  if (calls !== undefined && numInferenceSteps !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'calls and numInferenceSteps were both given: each says how long a run is');
  const flat = Object.fromEntries(
    solverOptions.flatMap((name) => {
      const value = options[name as keyof SolverOptions];
      return value === undefined ? [] : [[name, value]];
    }),
  );
  const chosen = presetOf(options);
  if (chosen !== undefined && solver === undefined)
    assertOf(chosen.solver, `calls takes the solver "${chosen.solver}"`, flat);
  if (chosen !== undefined) return solverOf(chosen.solver, { ...chosen.options, ...flat });
  if (solver === undefined) assertOf('pc', 'without solver or calls the solver is "pc"', flat);
  const { snr, correctSteps } = config;
  return solverOf(solver === undefined ? 'pc' : solver, flat, { snr, correctSteps, stepSize });
}

const noCorrector = (option: string) =>
  correctorOptions.some((name) => name === option) ? 'corrector, and so no ' : '';

/** ERR_CONFIG for an option of other solvers than the one that was chosen for a reason. */
export function assertOf(solver: SolverName, reason: string, flat: object): void {
  const having = (option: string) => solverList.filter(({ options }) => options.includes(option));
  for (const option of Object.keys(flat))
    if (!having(option).some(({ name }) => name === solver))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `${reason}, which has no ${noCorrector(option)}option ${show(option)}; these solvers have it: ` +
          having(option)
            .map(({ name }) => name)
            .join(', '),
      );
}

/** What a number of calls stands for, where nothing else is named than its own solver. */
function presetOf({ solver, calls }: StepsOptions): Preset | undefined {
  return calls !== undefined && (solver === undefined || solver === 'er_sde') ? preset(calls) : undefined;
}

/** The noise levels of a run. */
function levelsOf(solver: Solver, options: StepsOptions, config: SchedulerConfig): Levels {
  const { grid, sample, startStep, sigmaStart, start, samplingEps } = options;
  const { sigmaMin = config.sigmaMin, sigmaMax = config.sigmaMax } = options;
  if (start !== undefined && start !== 'centered' && start !== 'zero')
    throw new ScoreSdeError('ERR_CONFIG', `start must be 'centered' or 'zero', got ${show(start)}`);
  if ((startStep !== undefined || sigmaStart !== undefined) && sample === undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'startStep and sigmaStart say where sample stands: give it, too');
  if (startStep !== undefined && sigmaStart !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'startStep and sigmaStart were both given: each says where the run begins');
  const highest = sigmaStart === undefined ? sigmaMax : sigmaStart;
  for (const [name, level] of Object.entries({ sigmaMin, sigmaMax, sigmaStart: highest }))
    assertNoiseLevel(level, name);
  if (solver.steps === undefined) assertLeftOut(solver, options);
  const preset = presetOf(options);
  const isArray = typeof grid === 'object' && grid !== null;
  const isReference = solver.grid === 'reference' && grid === undefined;
  const { calls, steps } = lengthOf(solver, options, config);
  if (!isArray && (isReference ? sigmaMin > highest : sigmaMin >= highest && steps > 1))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `sigmaMin must be ${isReference ? 'at most' : 'below'} ${sigmaStart === undefined ? 'sigmaMax' : 'sigmaStart'}, ${highest}, got ${sigmaMin}`,
    );
  const isCentred = start === undefined ? (preset ?? solver).centred : start === 'centered';
  const given = { sigmaMax: highest, centred: sample === undefined && isCentred, calls };
  let levels: Levels;
  if (isReference) {
    if (options.rho !== undefined)
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `rho is of the grids 'karras' and 'polyexponential', got ${show(options.rho)}`,
      );
    const timesteps = timestepTable(steps, samplingEps === undefined ? config.samplingEps : samplingEps);
    const schedule = withSigmas({ timesteps }, steps, config, { sigmaMin, sigmaMax: highest });
    levels = levelsOfSchedule(schedule, { ...given, sigmaMin });
  } else {
    if (samplingEps !== undefined)
      throw new ScoreSdeError('ERR_CONFIG', "samplingEps is of the scheduler's tables, which this run does not take");
    const { rho = grid === undefined || grid === preset?.grid ? preset?.rho : undefined } = options;
    levels = levelsOfGrid(grid === undefined ? 'karras' : grid, {
      ...given,
      count: isArray ? undefined : steps,
      sigmaMin: sigmaMin < highest ? sigmaMin : undefined,
      rho,
    });
    if (isArray) assertArray(solver, levels, options);
  }
  return startStep === undefined ? levels : tailOf(solver, levels, startStep);
}

/** How long a run is, over a grid that is no array: its network calls, where a number of them is wanted, and its steps. */
function lengthOf(solver: Solver, options: StepsOptions, config: SchedulerConfig) {
  const { numInferenceSteps, grid } = options;
  if (numInferenceSteps !== undefined) return { calls: undefined, steps: numInferenceSteps };
  if (solver.steps === undefined) return { calls: undefined, steps: 2 }; // it takes the first and the last level
  const isWhole = solver.grid === 'reference' || (typeof grid === 'object' && grid !== null);
  const { calls = isWhole ? undefined : usualCalls } = options;
  return { calls, steps: calls === undefined ? config.numTrainTimesteps : solver.steps(calls) };
}

/** ERR_CONFIG for what an adaptive solver decides on itself. */
function assertLeftOut({ name }: Solver, options: StepsOptions): void {
  for (const key of ['calls', 'numInferenceSteps', 'startStep', 'rho'] as const)
    if (options[key] !== undefined && !(key === 'startStep' && options[key] === 0))
      throw new ScoreSdeError('ERR_CONFIG', `solver ${name} decides on its calls by itself: leave out ${key}`);
}

/** ERR_RANGE unless levels that were given are those of the options beside them. */
function assertArray(solver: Solver, levels: Levels, { calls, numInferenceSteps, sigmaStart }: StepsOptions): void {
  if (numInferenceSteps !== undefined && numInferenceSteps !== levels.total)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `numInferenceSteps must be the number of the grid's levels, ${levels.total}, got ${numInferenceSteps}`,
    );
  if (sigmaStart !== undefined && Math.fround(sigmaStart) !== Math.fround(levels.start))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `sigmaStart must be the first level of the grid, ${levels.start}, got ${sigmaStart}`,
    );
  if (calls === undefined || solver.calls(levels) === calls) return;
  const [least, most] = [1, undefined].map((limit) => solver.calls({ ...levels, calls: limit }));
  throw new ScoreSdeError(
    'ERR_RANGE',
    `calls must be ${least === most ? least : `${least} to ${most}`} over the ${levels.total} levels of the grid, got ${calls}`,
  );
}

/** The levels of a run from a step on, with the calls that are left of those that were wanted. */
function tailOf(solver: Solver, levels: Levels, startStep: number): Levels {
  const { total } = levels;
  if (!Number.isInteger(startStep) || startStep < 0 || startStep >= total)
    throw new ScoreSdeError('ERR_RANGE', `startStep must be an integer from 0 to ${total - 1}, got ${show(startStep)}`);
  const rest = levelsFrom(levels, startStep);
  if (levels.calls === undefined) return rest;
  if (levels.calls === total) return { ...rest, calls: total - startStep }; // one a step
  let calls = levels.calls;
  for (let at: Json | undefined = solver.start(levels); at !== undefined; at = solver.next(levels, at)) {
    if (solver.stage(levels, at).step >= startStep) break;
    calls--;
  }
  return { ...rest, calls };
}

function assertCount(value: unknown, name: string): void {
  if (value !== undefined && !(Number.isInteger(value) && (value as number) >= 1 && (value as number) <= 2 ** 24))
    throw new ScoreSdeError('ERR_RANGE', `${name} must be an integer from 1 to 2^24, got ${show(value)}`);
}

function assertNoiseLevel(value: unknown, name: string): void {
  if (typeof value !== 'number' || !(value > 0 && value < Infinity))
    throw new ScoreSdeError('ERR_RANGE', `${name} must be a finite number > 0, got ${show(value)}`);
}
