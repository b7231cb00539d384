import { inspect, isDeepStrictEqual, type InspectOptions } from 'node:util';
import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, extensionOf, givenOptions, markCopy, show } from '../options';
import type { Tensor, TensorLike } from '../tensor/tensor';
import {
  configNames,
  parseConfig,
  readConfig,
  resolveConfig,
  writeConfig,
  type SchedulerConfig,
  type StoredConfig,
} from './config';
import { indicesOf, type PerSample } from '../tensor/arguments';
import {
  adjacentSigma,
  missingTimesteps,
  timestepTable,
  withSigmas,
  type Schedule,
  type SigmaOptions,
} from './schedule';
import { planAddNoise, planStepCorrect, planStepPred, type NoiseOptions, type StepOptions } from './steps';

/** The result of a predictor step: x_{i-1}, and its mean before noise is added. Both have the dims of `sample`. */
export interface SdeVeOutput<Sample = Tensor, Mean = Tensor> {
  /** x after the step, x_{i-1}. */
  prevSample: Sample;
  /** Its mean, before noise was added. */
  prevSampleMean: Mean;
}

/** The result of a corrector step, with the dims of `sample`. */
export interface SchedulerOutput<Sample = Tensor> {
  /** x after the step. */
  prevSample: Sample;
}

type None = Record<never, never>;
/** A new tensor is float32; a given one may be of any type. */
type Result<O, Name extends 'out' | 'outMean'> = Name extends keyof O
  ? O[Name] extends undefined
    ? Tensor<'float32'>
    : Tensor
  : Tensor<'float32'>;

/** The value of a flag that defaults to true; both where its type does not tell. */
type Flag<O, Name extends 'returnDict' | 'returnMean'> = Name extends keyof O
  ? O[Name] extends false
    ? 'no'
    : false extends O[Name]
      ? 'yes' | 'no'
      : 'yes'
  : 'yes';
/** Results by returnDict and returnMean. */
interface Forms<Sample, Mean> {
  yes: { yes: SdeVeOutput<Sample, Mean>; no: SchedulerOutput<Sample> };
  no: { yes: [prevSample: Sample, prevSampleMean: Mean]; no: [prevSample: Sample] };
}

/** The form of a predictor step's result, by its options. */
export type StepPredResult<O> = Forms<Result<O, 'out'>, Result<O, 'outMean'>>[Flag<O, 'returnDict'>][Flag<
  O,
  'returnMean'
>];

/** The form of a corrector step's result, by its options. */
export type StepCorrectResult<O> = Forms<Result<O, 'out'>, never>[Flag<O, 'returnDict'>]['no'];

/** The generator and output of addNoise. */
export type AddNoiseOptions = Omit<NoiseOptions, 'noise'>;
type NewNoised = AddNoiseOptions & { out?: undefined };
type AddNoiseArgs<Options> = [
  original: TensorLike,
  noise: TensorLike | null | undefined,
  timesteps: PerSample | BigInt64Array,
  options?: Options,
];

function shapePred<O>(
  result: { prevSample: Tensor; prevSampleMean: Tensor | undefined },
  options: StepOptions,
): StepPredResult<O> {
  const { prevSample, prevSampleMean } = result;
  if (options.returnDict === false)
    return (prevSampleMean ? [prevSample, prevSampleMean] : [prevSample]) as StepPredResult<O>;
  return (prevSampleMean ? result : { prevSample }) as StepPredResult<O>;
}

function shapeCorrect<O>(result: SchedulerOutput, options: StepOptions): StepCorrectResult<O> {
  return (options.returnDict === false ? [result.prevSample] : result) as StepCorrectResult<O>;
}

/** The class that fromConfig and fromPretrained are called on: theirs, or one that extends it. */
type SchedulerClass<S extends ScoreSdeVeScheduler> = new (options?: Partial<SchedulerConfig>) => S;

/**
 * The variance exploding SDE scheduler of Song et al. 2021 (arXiv 2011.13456) with predictor-corrector sampling: diffusers'
 * ScoreSdeVeScheduler, with its names, tables, quirks and numbers.
 *
 * States are batches, [B, ...] of any rank >= 1, in float32, float16 or bfloat16. Arithmetic is float32, and so are results
 * unless `out` has another type. A step runs on the calling thread, its ...Async twin on the addon's threads. Asynchronous calls
 * that use the same memory run in the order in which they were made; other calls run at the same time.
 */
export class ScoreSdeVeScheduler {
  /** The order of the solver. */
  readonly order = 1;
  // Not #private fields: deepStrictEqual, structuredClone and console.log see what they hold, and a Proxy can reach them.
  private stored: StoredConfig;
  private schedule: Schedule;

  /**
   * Calls setSigmas(numTrainTimesteps), so that the scheduler can be used at once.
   * @throws ScoreSdeError ERR_CONFIG (an unknown option, or one out of its range)
   */
  constructor(options: Partial<SchedulerConfig> = {}) {
    this.stored = { config: resolveConfig(options), unknown: new Map(), integers: new Map() };
    this.schedule = withSigmas({ timesteps: null }, this.config.numTrainTimesteps, this.config);
  }

  static #of<S extends ScoreSdeVeScheduler>(receiver: SchedulerClass<S> | void, stored: StoredConfig): S {
    const scheduler = new (extensionOf(receiver, ScoreSdeVeScheduler))(stored.config) as S;
    // A class with options of its own keeps them.
    const { config } = scheduler;
    scheduler.stored = isDeepStrictEqual(config, stored.config) ? stored : { ...stored, config };
    return scheduler;
  }

  /**
   * A scheduler from the content of a scheduler_config.json.
   * @param config Its text or object, with keys in snake_case or camelCase
   * @param overrides Replace fields of `config`
   * @throws ScoreSdeError ERR_CONFIG
   */
  static fromConfig<S extends ScoreSdeVeScheduler = ScoreSdeVeScheduler>(
    this: SchedulerClass<S> | void,
    config: string | object,
    overrides?: Partial<SchedulerConfig>,
  ): S {
    return ScoreSdeVeScheduler.#of(this, parseConfig(config, overrides));
  }

  /**
   * A scheduler from the scheduler_config.json of a folder.
   * @param options subfolder: where the file is, with `dir` itself second; the others replace fields of the file
   * @throws ScoreSdeError ERR_CONFIG (no such file, or a wrong one), ERR_IO
   */
  static async fromPretrained<S extends ScoreSdeVeScheduler = ScoreSdeVeScheduler>(
    this: SchedulerClass<S> | void,
    dir: string,
    options: { subfolder?: string | undefined } & Partial<SchedulerConfig> = {},
  ): Promise<S> {
    assertOptions(options, ['subfolder', ...configNames]);
    return ScoreSdeVeScheduler.#of(this, await readConfig(dir, options.subfolder, givenOptions(options, configNames)));
  }

  /**
   * Writes DIR/scheduler_config.json, the same bytes that diffusers writes for this config. Makes the folder.
   * @throws ScoreSdeError ERR_CONFIG (no path), ERR_IO
   */
  savePretrained(dir: string): Promise<void> {
    return writeConfig(dir, this.stored);
  }

  /** Its parameters; frozen. */
  get config(): SchedulerConfig {
    return this.stored.config;
  }

  /** The standard deviation of the prior: sigmaMax. */
  get initNoiseSigma(): number {
    return this.config.sigmaMax;
  }

  /** The number of training steps, as len() of the reference. */
  get length(): number {
    return this.config.numTrainTimesteps;
  }

  /** [N] float32 times from 1 down to samplingEps. While they are null, the steps throw ERR_STATE. */
  get timesteps(): Float32Array | null {
    return this.schedule.timesteps;
  }

  set timesteps(timesteps: Float32Array | null) {
    if (timesteps !== null && Object.prototype.toString.call(timesteps) !== '[object Float32Array]')
      throw new ScoreSdeError('ERR_DTYPE', `timesteps must be a Float32Array or null, got ${show(timesteps)}`);
    this.schedule = { ...this.schedule, timesteps };
  }

  /** [N] float32 sigma(t) of each timestep, descending: the model's input. */
  get sigmas(): Float32Array {
    return this.schedule.sigmas;
  }

  /** [N] float32 noise levels of the steps, ascending. */
  get discreteSigmas(): Float32Array {
    return this.schedule.discreteSigmas;
  }

  /** Returns `sample` itself: this scheduler needs no scaling. */
  scaleModelInput<T>(sample: T, _timestep?: PerSample): T {
    return sample;
  }

  /**
   * Sets the timesteps to linspace(1, samplingEps, count). Call setSigmas after it: it changes nothing else.
   * @param count An integer from 0 to 2^24
   * @param options samplingEps: the last timestep, finite; default the config's; a warning where it is not between 0 and
   *   1/(count - 1). device: only checked. The tables stay on the host, and a step passes its noise levels to the device.
   * @throws ScoreSdeError ERR_RANGE; ERR_CONFIG, ERR_CUDA_UNAVAILABLE (device)
   */
  setTimesteps(count: number, options: { samplingEps?: number | undefined; device?: string | undefined } = {}): void {
    assertOptions(options, ['samplingEps', 'device']);
    const { samplingEps = this.config.samplingEps, device } = options;
    resolveDevice(device);
    this.schedule = { ...this.schedule, timesteps: timestepTable(count, samplingEps) };
  }

  /**
   * Sets discreteSigmas (`count` entries) and sigmas (one a timestep), and timesteps if they are null.
   * @param count An integer from 0 to 2^24
   * @throws ScoreSdeError ERR_RANGE, ERR_CONFIG
   */
  setSigmas(count: number, options: SigmaOptions = {}): void {
    this.schedule = withSigmas(this.schedule, count, this.config, options);
  }

  /**
   * discreteSigmas[i - 1] for each index i, and 0 for index 0. `_t` is the reference's parameter; it is not used.
   * @param indices Integers; a negative i - 1 counts from the end, as in the reference
   * @throws ScoreSdeError ERR_RANGE, ERR_DTYPE
   */
  getAdjacentSigma(indices: PerSample | BigInt64Array, _t?: unknown): Float32Array {
    return Float32Array.from(indicesOf(indices, 'indices'), (i) => adjacentSigma(this.discreteSigmas, i));
  }

  /**
   * One predictor step: x_{i-1} from x_i and the score.
   * @param modelOutput The score at `sample`, [B, ...]
   * @param timestep A time, 0 <= t <= 1, for all samples, or one for each
   * @param sample The states, [B, ...]
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_ALIAS, ERR_DISPOSED, ERR_BUSY, ERR_STATE
   */
  stepPred<const O extends StepOptions = None>(
    modelOutput: TensorLike,
    timestep: PerSample,
    sample: TensorLike,
    options: O = {} as O,
  ): StepPredResult<O> {
    const { call, result } = planStepPred(this.schedule, modelOutput, timestep, sample, options);
    call.run();
    return shapePred<O>(result, options);
  }

  /** As stepPred, off the event loop. */
  async stepPredAsync<const O extends StepOptions = None>(
    modelOutput: TensorLike,
    timestep: PerSample,
    sample: TensorLike,
    options: O = {} as O,
  ): Promise<StepPredResult<O>> {
    const { call, result } = planStepPred(this.schedule, modelOutput, timestep, sample, options);
    await call.runAsync();
    return shapePred<O>(result, options);
  }

  /**
   * One corrector step: Langevin dynamics at one noise level.
   * @param modelOutput The score at `sample`, [B, ...]
   * @param sample The states, [B, ...], B >= 1
   * @throws ScoreSdeError as stepPred, and ERR_CONFIG (stepSize)
   */
  stepCorrect<const O extends StepOptions = None>(
    modelOutput: TensorLike,
    sample: TensorLike,
    options: O = {} as O,
  ): StepCorrectResult<O> {
    const { call, result } = this.planCorrect(modelOutput, sample, options);
    call.run();
    return shapeCorrect<O>(result, options);
  }

  /** As stepCorrect, off the event loop. */
  async stepCorrectAsync<const O extends StepOptions = None>(
    modelOutput: TensorLike,
    sample: TensorLike,
    options: O = {} as O,
  ): Promise<StepCorrectResult<O>> {
    const { call, result } = this.planCorrect(modelOutput, sample, options);
    await call.runAsync();
    return shapeCorrect<O>(result, options);
  }

  /**
   * original + noise * discreteSigmas[timesteps].
   * @param original [B, C, H, W]
   * @param noise Normals, [B, C, H, W]; undefined or null: drawn from the generator
   * @param timesteps Integer indices into discreteSigmas, one for all samples or one for each; negative ones count from the end
   * @throws ScoreSdeError as stepPred
   */
  addNoise(...args: AddNoiseArgs<NewNoised>): Tensor<'float32'>;
  addNoise(...args: AddNoiseArgs<AddNoiseOptions>): Tensor;
  addNoise(...[original, noise, timesteps, options = {}]: AddNoiseArgs<AddNoiseOptions>): Tensor {
    const { call, result } = planAddNoise(this.discreteSigmas, original, noise, timesteps, options);
    call.run();
    return result;
  }

  /** As addNoise, off the event loop. */
  addNoiseAsync(...args: AddNoiseArgs<NewNoised>): Promise<Tensor<'float32'>>;
  addNoiseAsync(...args: AddNoiseArgs<AddNoiseOptions>): Promise<Tensor>;
  async addNoiseAsync(...[original, noise, timesteps, options = {}]: AddNoiseArgs<AddNoiseOptions>): Promise<Tensor> {
    const { call, result } = planAddNoise(this.discreteSigmas, original, noise, timesteps, options);
    await call.runAsync();
    return result;
  }

  /** The config as JSON, which fromConfig takes. */
  toJSON(): SchedulerConfig {
    return this.config;
  }

  /** @internal */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    const { config, timesteps, sigmas, discreteSigmas } = this;
    const shown = { ...config, timesteps, sigmas, discreteSigmas };
    return `${this.constructor.name} ${inspect(shown, { ...options, maxArrayLength: 3 })}`;
  }

  private planCorrect(modelOutput: TensorLike, sample: TensorLike, options: StepOptions) {
    if (this.timesteps === null) throw new ScoreSdeError('ERR_STATE', missingTimesteps);
    return planStepCorrect(this.config.snr, modelOutput, sample, options);
  }
}

markCopy(ScoreSdeVeScheduler);
