import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { loadOptions, type OnnxModelOptions } from '../models/onnx/options';
import type { ScoreModel } from '../models/model';
import { assertFunction, assertOptions, extensionOf, givenOptions, show } from '../options';
import { ScoreSdeVeScheduler } from '../scheduler/scheduler';
import { sizeOfDims } from '../tensor/tensor';
import { estimateOf, type Estimate } from './estimate';
import { takesDevice } from './executor/place';
import { planOf, resumeOptions, stepsOptions, type ResumeOptions, type RunPlan, type StepsOptions } from './plan';
import { loadPretrained } from './pretrained';
import type { SamplingResult } from './result';
import { resumed } from './resumed';
import { SamplingRun } from './run';
import type { SamplingStep } from './sampling-step';

export interface PipelineOptions {
  /** Its config says what the noise levels are. */
  scheduler: ScoreSdeVeScheduler;
  /** The score network. */
  model: ScoreModel;
  /** The dims of one sample, as [3, 32, 32]. */
  sampleShape: readonly number[];
  /** Where the samples lie: 'cpu', 'cuda', 'cuda:N', or 'auto' (default): a CUDA device where there is one and the model works on it. */
  device?: string | undefined;
}

export interface RunOptions extends StepsOptions {
  /** Called after each step, and awaited. */
  onStep?: ((step: SamplingStep) => unknown) | undefined;
}

const runOptions = [...stepsOptions, 'onStep'];

/** The class that fromPretrained is called on: ScoreSdeVePipeline, or one that extends it. */
type PipelineClass<P extends ScoreSdeVePipeline> = new (options: PipelineOptions) => P;

/**
 * Sampling with a score model: diffusers' ScoreSdeVePipeline. Runs do not change the scheduler or each other: any number
 * of them go on at once.
 */
export class ScoreSdeVePipeline {
  /** Its config says what the noise levels are. Runs do not change it. */
  readonly scheduler: ScoreSdeVeScheduler;
  /** The score network. */
  readonly model: ScoreModel;
  /** The dims of one sample, as [3, 32, 32]. */
  readonly sampleShape: readonly number[];
  /** Where the samples lie: 'cpu' or 'cuda:N'. */
  readonly device: string;
  // Not #private fields: a Proxy can reach them.
  private readonly running = new Set<Promise<unknown>>();
  private disposal: Promise<void> | undefined;

  /** @throws ScoreSdeError ERR_CONFIG, ERR_SHAPE, ERR_CUDA_UNAVAILABLE */
  constructor(options: PipelineOptions) {
    assertOptions(options, ['scheduler', 'model', 'sampleShape', 'device']);
    const { scheduler, model, sampleShape, device = 'auto' } = options;
    if (!(scheduler instanceof ScoreSdeVeScheduler))
      throw new ScoreSdeError('ERR_CONFIG', `scheduler must be a ScoreSdeVeScheduler, got ${show(scheduler)}`);
    if (typeof model !== 'function')
      throw new ScoreSdeError('ERR_CONFIG', `model must be a function of sample and sigma, got ${show(model)}`);
    if (sizeOfDims(sampleShape, 'sampleShape') === 0 || sampleShape.length === 0)
      throw new ScoreSdeError('ERR_SHAPE', `sampleShape must hold positive sizes, got ${show(sampleShape)}`);
    this.scheduler = scheduler;
    this.model = model;
    this.sampleShape = Object.freeze(Array.from(sampleShape));
    const place = resolveDevice(device);
    // A model that would have its states brought to the CPU and back is not the better for a device.
    this.device = device === 'auto' && !takesDevice(model, place) ? 'cpu' : place;
  }

  /**
   * A pipeline from a folder as diffusers saves it, with the network as unet/model.onnx; 'digits' is the built-in model.
   * Needs onnxruntime-node, or ONNX Runtime's library by another path.
   * @param options device, and what {@link OnnxModel.load} takes
   * @throws ScoreSdeError ERR_CONFIG, ERR_IO, ERR_MODEL, ERR_CUDA_UNAVAILABLE
   */
  static async fromPretrained<P extends ScoreSdeVePipeline = ScoreSdeVePipeline>(
    this: PipelineClass<P> | void,
    dir: string,
    options: OnnxModelOptions = {},
  ): Promise<P> {
    assertOptions(options, loadOptions);
    const { device = 'auto' } = options;
    resolveDevice(device);
    const Class = extensionOf(this, ScoreSdeVePipeline) as unknown as PipelineClass<P>;
    return new Class({ ...(await loadPretrained(dir, options)), device });
  }

  /**
   * Makes a batch of samples.
   * @throws ScoreSdeError ERR_RANGE, ERR_CONFIG, ERR_SHAPE, ERR_MODEL, ERR_DISPOSED before any work; ERR_BUSY (a generator
   *   that another run draws from), ERR_ABORTED, ERR_NON_FINITE, ERR_MODEL and what the model or onStep throws during it
   */
  async run(options: RunOptions = {}): Promise<SamplingResult> {
    assertOptions(options, runOptions);
    const { onStep } = options;
    assertFunction(onStep, 'onStep');
    const run = this.tracked(planOf(this.source, givenOptions(options, stepsOptions)));
    run.begin(onStep);
    return run.result;
  }

  /**
   * The run of {@link run} step by step, for await (const step of pipeline.steps(options)). It begins with the first step
   * that is asked for. Leaving the loop ends it.
   * @throws ScoreSdeError as run: at the call where the options are wrong, at a step else
   */
  steps(options: StepsOptions = {}): AsyncGenerator<SamplingStep, void, void> {
    const run: SamplingRun = new SamplingRun(planOf(this.source, options), () => {
      this.assertOpen();
      this.track(run);
    });
    return run[Symbol.asyncIterator]();
  }

  /**
   * Starts a run that is an object: to be iterated over, awaited (`run.result`), aborted, or saved. It begins at once.
   * @throws ScoreSdeError ERR_RANGE, ERR_CONFIG, ERR_SHAPE, ERR_MODEL, ERR_DISPOSED
   */
  start(options: StepsOptions = {}): SamplingRun {
    return this.begun(planOf(this.source, options));
  }

  /**
   * Goes on with a run that `save()` wrote, wherever it was made: the same samples, to the bit where the network gives the
   * same bits. Nothing of the file is kept in mind but the run: model and device are this pipeline's.
   * @throws ScoreSdeError ERR_CONFIG (a file that is no saved run, is cut short, or is of a later format), ERR_SHAPE (samples
   *   of another shape than this pipeline's), ERR_MODEL, ERR_DISPOSED
   */
  resume(bytes: Uint8Array, options: ResumeOptions = {}): SamplingRun {
    assertOptions(options, resumeOptions);
    return this.begun(resumed(this.source, bytes, options));
  }

  /**
   * What a run of these options will take, by calling the model a few times with noise: with one sample, then with all of them
   * where that takes a few seconds, else with as many as take so long, or with no more where one takes longer. No draw is taken
   * from the options' generators, and neither onProgress nor onStep is called.
   * @returns The network calls a sample and the seconds of the run; both NaN where the solver decides on its calls as it goes
   * @throws ScoreSdeError as run
   */
  async estimate(options: RunOptions = {}): Promise<Estimate> {
    assertOptions(options, runOptions);
    const estimate = estimateOf(planOf(this.source, givenOptions(options, stepsOptions)));
    const over = estimate.catch(() => {});
    this.running.add(over);
    void over.then(() => this.running.delete(over));
    return estimate;
  }

  /** Refuses further runs, waits for those under way, and gives back what the model holds. */
  dispose(): Promise<void> {
    return (this.disposal ??= Promise.allSettled(this.running).then(() => this.model.dispose?.()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  private get source() {
    this.assertOpen();
    const { model, sampleShape, device, scheduler } = this;
    return { model, sampleShape, device, config: scheduler.config };
  }

  private assertOpen(): void {
    if (this.disposal !== undefined)
      throw new ScoreSdeError('ERR_DISPOSED', 'the model is disposed, and its pipeline with it');
  }

  /** A run that dispose() waits for. */
  private tracked(plan: RunPlan): SamplingRun {
    const run = new SamplingRun(plan);
    this.track(run);
    return run;
  }

  private track({ over }: SamplingRun): void {
    this.running.add(over);
    void over.then(() => this.running.delete(over));
  }

  private begun(plan: RunPlan): SamplingRun {
    const run = this.tracked(plan);
    // Whoever iterates over it says so in the same turn.
    void Promise.resolve().then(() => run.begin());
    return run;
  }
}
