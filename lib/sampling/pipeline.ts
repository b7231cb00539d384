import { randomInt } from 'node:crypto';
import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { toPng, type PngOptions } from '../image/png';
import { loadOptions, type OnnxModelOptions } from '../models/onnx/options';
import { loadPretrained } from './pretrained';
import { assertInputs, type ModelInputs, type ScoreModel } from '../models/model';
import { Dtype, StepSizeCode, type StepSize } from '../native/abi';
import { KernelCall } from '../native/call';
import { bufferOf } from '../native/memory';
import { seedOf } from '../random/kind';
import { Generator, generatorsOf } from '../random/generator';
import { inferenceSchedule } from '../scheduler/schedule';
import { ScoreSdeVeScheduler } from '../scheduler/scheduler';
import { operand } from '../tensor/operand';
import { sizeOfDims, Tensor } from '../tensor/tensor';
import { assertGoesOn, predictorCorrector, type Run, type SamplingStep } from './loop';
import { takesDevice, viewOf } from './place';

export interface PipelineOptions {
  scheduler: ScoreSdeVeScheduler;
  model: ScoreModel;
  /** The dims of one sample, as [3, 32, 32]. */
  sampleShape: readonly number[];
  /** Where the samples lie: 'cpu', 'cuda', 'cuda:N', or 'auto' (default): a CUDA device where there is one and the model works on it. */
  device?: string;
}

export interface StepsOptions {
  /** Samples to make at once, an integer >= 1; with seeds, 65536 at most. Default 1. */
  batchSize?: number;
  /** Steps N, an integer from 1 to 2^24; the scheduler's numTrainTimesteps unless given. */
  numInferenceSteps?: number;
  /**
   * Sample k of the batch comes from a philox stream of its own, of seed + k, and is measured by itself (stepSize
   * 'sample'): it is the image of seed + k in any batch. Random unless given.
   */
  seed?: number | bigint;
  /** The reference's way: all draws from one generator, or from one for each sample, and stepSize 'batch'. Instead of `seed`. */
  generator?: Generator | readonly Generator[];
  /** How the corrector measures its step; 'sample' with seeds, 'batch' with generators unless given. */
  stepSize?: StepSize;
  /** Further inputs of the network by name: a number for all samples, or one for each. */
  modelInputs?: ModelInputs;
  /** Ends the run between two kernels, with an error of code ERR_ABORTED. */
  signal?: AbortSignal;
}

export interface RunOptions extends StepsOptions {
  /** Called after each step, and awaited. */
  onStep?: (step: SamplingStep) => unknown;
}

const stepsOptions = [
  'batchSize',
  'numInferenceSteps',
  'seed',
  'generator',
  'stepSize',
  'modelInputs',
  'signal',
] as const satisfies (keyof StepsOptions)[];
const runOptions = [...stepsOptions, 'onStep'] as const satisfies (keyof RunOptions)[];

/** Each is drawn from a stream of its own, of which every step takes note. */
const maxSeeds = 2 ** 16;

/** What a run made. */
export class SamplingResult {
  constructor(
    /** [B, C, H, W] float32: the mean of the last step, clamped to [0, 1]; where the samples lay. */
    readonly images: Tensor<'float32'>,
    /** Calls of the model. */
    readonly calls: number,
    /** Steps of the schedule. */
    readonly steps: number,
    /** The seed of the first image; undefined where generators were given. */
    readonly seed: bigint | undefined,
    /** Where the samples lay. */
    readonly device: string,
    /** Wall time of the run in seconds. */
    readonly seconds: number,
  ) {}

  /** The images as one PNG: see {@link toPng}. */
  toPng(options?: PngOptions): Promise<Buffer> {
    return toPng(this.images, options);
  }
}

/** Everything of a run that its options decide, checked. */
interface Prepared extends Run {
  readonly seed: bigint | undefined;
}

/**
 * Sampling with a score model: diffusers' ScoreSdeVePipeline. Runs do not change the scheduler or each other: any number
 * of them go on at once.
 */
export class ScoreSdeVePipeline {
  readonly scheduler: ScoreSdeVeScheduler;
  readonly model: ScoreModel;
  readonly sampleShape: readonly number[];
  readonly device: string;

  /** @throws ScoreSdeError ERR_CONFIG, ERR_SHAPE, ERR_CUDA_UNAVAILABLE */
  constructor(options: PipelineOptions) {
    assertOptions(options, ['scheduler', 'model', 'sampleShape', 'device']);
    const { scheduler, model, sampleShape, device } = options;
    if (!(scheduler instanceof ScoreSdeVeScheduler))
      throw new ScoreSdeError('ERR_CONFIG', `scheduler must be a ScoreSdeVeScheduler, got ${show(scheduler)}`);
    if (typeof model !== 'function')
      throw new ScoreSdeError('ERR_CONFIG', `model must be a function of sample and sigma, got ${show(model)}`);
    if (sizeOfDims(sampleShape, 'sampleShape') === 0 || sampleShape.length === 0)
      throw new ScoreSdeError('ERR_SHAPE', `sampleShape must hold positive sizes, got ${show(sampleShape)}`);
    this.scheduler = scheduler;
    this.model = model;
    this.sampleShape = Object.freeze(Array.from(sampleShape));
    const place = resolveDevice(device ?? 'auto');
    // A model that would have its states brought to the CPU and back is not the better for a device.
    this.device = (device ?? 'auto') === 'auto' && !takesDevice(model, place) ? 'cpu' : place;
  }

  /**
   * A pipeline from a folder as diffusers saves it, with the network as unet/model.onnx; 'digits' is the built-in model.
   * Needs onnxruntime-node, or ONNX Runtime's library by another path.
   * @param options device, and what {@link OnnxModel.load} takes
   * @throws ScoreSdeError ERR_CONFIG, ERR_IO, ERR_MODEL, ERR_CUDA_UNAVAILABLE
   */
  static async fromPretrained(dir: string, options: OnnxModelOptions = {}): Promise<ScoreSdeVePipeline> {
    assertOptions(options, loadOptions);
    const { device } = options;
    resolveDevice(device ?? 'auto');
    return new ScoreSdeVePipeline({ ...(await loadPretrained(dir, options)), device });
  }

  /**
   * Makes a batch of samples.
   * @throws ScoreSdeError ERR_RANGE, ERR_CONFIG, ERR_SHAPE, ERR_MODEL before any work; ERR_ABORTED, ERR_NON_FINITE,
   *   ERR_MODEL and what the model or onStep throws during it
   */
  async run(options: RunOptions = {}): Promise<SamplingResult> {
    assertOptions(options, runOptions);
    const { onStep, ...given } = options;
    if (onStep !== undefined && typeof onStep !== 'function')
      throw new ScoreSdeError('ERR_CONFIG', `onStep must be a function, got ${show(onStep)}`);
    const start = performance.now();
    const run = this.#prepare(given);
    let images!: Tensor<'float32'>;
    let calls = 0;
    for await (const step of predictorCorrector({ ...run, inPlace: onStep === undefined })) {
      const mean = viewOf(step.mean); // onStep may dispose the step's own
      await onStep?.(step);
      assertGoesOn(run.signal);
      if (step.index === step.total - 1) images = await clamped(mean);
      calls = step.calls;
    }
    const seconds = (performance.now() - start) / 1000;
    return new SamplingResult(images, calls, run.schedule.sigmas.length, run.seed, this.device, seconds);
  }

  /**
   * The run of {@link run} step by step, for await (const step of pipeline.steps(options)). Leaving the loop ends it.
   * @throws ScoreSdeError as run: at the call where the options are wrong, at a step else
   */
  steps(options: StepsOptions = {}): AsyncGenerator<SamplingStep, void, void> {
    return predictorCorrector(this.#prepare(options));
  }

  /** Gives back what the model holds. */
  async dispose(): Promise<void> {
    await this.model.dispose?.();
  }

  #prepare(options: StepsOptions): Prepared {
    assertOptions(options, stepsOptions);
    const { config } = this.scheduler;
    const { batchSize = 1, numInferenceSteps = config.numTrainTimesteps, modelInputs = {}, signal } = options;
    if (!Number.isInteger(batchSize) || batchSize < 1)
      throw new ScoreSdeError('ERR_RANGE', `batchSize must be an integer >= 1, got ${show(batchSize)}`);
    if (numInferenceSteps === 0)
      throw new ScoreSdeError('ERR_RANGE', 'numInferenceSteps must be an integer from 1 to 2^24, got 0');
    if (signal !== undefined && typeof signal?.aborted !== 'boolean')
      throw new ScoreSdeError('ERR_CONFIG', `signal must be an AbortSignal, got ${show(signal)}`);
    assertInputs(modelInputs, 'modelInputs');
    const dims = [batchSize, ...this.sampleShape];
    sizeOfDims(dims, 'the batch');
    const { seed, generators } = sourceOf(options, batchSize);
    const stepSize = options.stepSize ?? (seed === undefined ? 'batch' : 'sample');
    if (typeof stepSize !== 'string' || !Object.hasOwn(StepSizeCode, stepSize))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `stepSize must be 'batch', 'sample', 'dim' or 'ald', got ${show(stepSize)}`,
      );
    return {
      schedule: inferenceSchedule(numInferenceSteps, config),
      config,
      model: this.model,
      inputs: this.model.prepare?.(dims, modelInputs) ?? modelInputs,
      dims,
      generators,
      seed,
      stepSize,
      device: this.device,
      signal,
    };
  }
}

/** Where the draws of a run come from. */
function sourceOf({ seed, generator }: StepsOptions, batchSize: number) {
  if (generator !== undefined) {
    if (seed !== undefined)
      throw new ScoreSdeError('ERR_CONFIG', 'seed and generator were both given: the draws come from one of them');
    return { seed: undefined, generators: generatorsOf(generator, batchSize) };
  }
  if (batchSize > maxSeeds)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `batchSize must be at most ${maxSeeds}, with a stream for each sample, got ${batchSize}: pass a generator, which draws the batch at once`,
    );
  const first = seedOf(seed === undefined ? randomInt(2 ** 32) : seed);
  const generators = Array.from({ length: batchSize }, (_, k) => new Generator(BigInt.asUintN(64, first + BigInt(k))));
  return { seed: first, generators };
}

async function clamped(mean: Tensor): Promise<Tensor<'float32'>> {
  const images = Tensor.empty(mean.dims, { device: mean.device });
  const [input, output] = [operand(mean, 'mean').memory, operand(images, 'images').memory];
  const access = { reads: [bufferOf(input)], writes: [bufferOf(output)] };
  await new KernelCall('clamp', () => [mean.size, input, Dtype.float32, output, Dtype.float32], access).runAsync();
  return images;
}
