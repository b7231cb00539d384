import { now } from '../clock';
import { AbortError, ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import type { Generator } from '../random/generator';
import { onAbort, Wait } from '../signals';
import { viewOf } from '../tensor/views';
import { Batch } from './batch';
import type { RunPlan, SamplingProgress } from './plan';
import { imagesOf, SamplingResult } from './result';
import { partsOf } from './lane';
import { RunLanes } from './run-lanes';
import { SamplingStep } from './sampling-step';

/** A save that was asked for. */
interface Save {
  readonly stop: boolean;
  readonly resolve: (bytes: Uint8Array) => void;
  readonly reject: (error: Error) => void;
}

/** Generators that runs under way draw from. */
const drawing = new WeakSet<Generator>();

/**
 * A run under way. As an async iterable it yields the steps and waits for their reader; otherwise it goes on by itself, in
 * place and ahead of the event loop.
 */
export class SamplingRun implements AsyncIterable<SamplingStep> {
  /** @internal Resolves when the run has let go of its memory, or has ended before it began. */
  readonly over: Promise<void>;
  readonly #plan: RunPlan;
  readonly #result: Promise<SamplingResult>;
  #settle!: { resolve: (result: SamplingResult) => void; reject: (error: unknown) => void };
  #tellOver!: () => void;
  /** Ends what the run waits for: the model's call, or the reader of a step. */
  readonly #stop = new AbortController();
  readonly #reading = new Wait(this.#stop.signal);
  /** How the run ended: with an error, which may be any value that a model threw, or with its result. */
  #outcome: { readonly error: Error } | { readonly result: SamplingResult } | undefined;
  #isBegun = false;
  #since = 0;
  #batch: Batch | undefined;
  #lanes: RunLanes | undefined;
  /** Called with each step and awaited, where the run is read. */
  #reader: ((step: SamplingStep) => unknown) | undefined;
  /** Whether the run stands between two stages with nothing under way. */
  #isParked = false;
  readonly #saves: Save[] = [];
  /** Progress is told in the order of the steps, whichever is known first to be over. */
  #told: Promise<void> = Promise.resolve();
  #serving: Promise<void> = Promise.resolve();
  #forget: (() => void) | undefined;
  /** Whether the generators are this run's. */
  #hasClaim = false;

  /** @internal `onBegin` is called when the run begins, and may refuse. */
  constructor(
    plan: RunPlan,
    private readonly onBegin: () => void = () => {},
  ) {
    this.#plan = plan;
    this.#result = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#result.catch(() => {}); // whoever iterates hears of it there
    this.over = new Promise((resolve) => (this.#tellOver = resolve));
  }

  /** The samples. Rejects with ERR_ABORTED, ERR_NON_FINITE, ERR_MODEL, and what the model or a reader throws. */
  get result(): Promise<SamplingResult> {
    return this.#result;
  }

  /** Ends the run: its result and its steps reject with ERR_ABORTED at once, also while the model is at work. Nothing where it has ended. */
  abort(reason?: unknown): void {
    if (this.#outcome !== undefined) return;
    this.#stop.abort(reason);
    this.#end({ error: new AbortError(this.#stop.signal) });
  }

  /**
   * The run as the bytes of a safetensors file, between two stages: network calls that are under way are waited for.
   * `pipeline.resume(bytes)` goes on from there, in any process and on any device, to the same bits; of a run that has made
   * its last call it gives the samples. The run itself goes on, unless `stop` is true: then it ends as by abort().
   * @throws ScoreSdeError ERR_STATE once the run has ended, ERR_ABORTED where it ends before it was saved, ERR_CONFIG (a
   *   solver or model inputs that a file cannot hold)
   */
  async save(options: { stop?: boolean | undefined } = {}): Promise<Uint8Array> {
    assertOptions(options, ['stop']);
    const { stop = false } = options;
    if (typeof stop !== 'boolean') throw new ScoreSdeError('ERR_CONFIG', `stop must be a boolean, got ${show(stop)}`);
    if (this.#outcome !== undefined)
      throw new ScoreSdeError('ERR_STATE', 'the run has ended: there is nothing left to save');
    return new Promise((resolve, reject) => {
      this.#saves.push({ stop, resolve, reject });
      if (this.#isParked) void this.#serveSaves();
      this.begin();
    });
  }

  /**
   * The steps, each once the one before was read. Leaving the loop aborts the run. A run has one reader.
   * @throws ScoreSdeError ERR_STATE where the run is read already
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<SamplingStep, void, void> {
    if (this.#reader !== undefined)
      throw new ScoreSdeError('ERR_STATE', 'the steps of a run are read by one loop, and another reads them already');
    let give: ((step: SamplingStep | undefined) => void) | undefined;
    let fail: ((error: unknown) => void) | undefined;
    let goOn: (() => void) | undefined;
    this.#reader = (step) =>
      new Promise<void>((resolve) => {
        goOn = resolve;
        give?.(step);
      });
    this.#result.then(
      () => give?.(undefined),
      (error: unknown) => fail?.(error),
    );
    try {
      for (;;) {
        if (this.#outcome) break;
        const next = new Promise<SamplingStep | undefined>((resolve, reject) => ([give, fail] = [resolve, reject]));
        this.begin();
        goOn?.();
        const step = await next;
        if (step === undefined) return;
        yield step;
      }
      if ('error' in this.#outcome) throw this.#outcome.error;
    } finally {
      this.#reader = undefined;
      this.abort();
      goOn?.();
    }
  }

  /** Aborts the run, and waits until it has let go of its memory. A call of the model that goes on is not waited for. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.abort();
    await this.over;
  }

  /** @internal Begins, if it has not: `reader` is called with each step and awaited. */
  begin(reader?: (step: SamplingStep) => unknown): void {
    if (this.#isBegun || this.#outcome !== undefined) return;
    this.#isBegun = true;
    if (reader !== undefined) this.#reader = reader;
    this.#since = now();
    void this.#drive();
  }

  #end(outcome: { error: Error } | { result: SamplingResult }): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = outcome;
    this.#forget?.();
    this.#release();
    if ('error' in outcome) {
      this.#stop.abort(outcome.error);
      this.#settle.reject(outcome.error);
    } else {
      this.#settle.resolve(outcome.result);
    }
    void this.#serveSaves();
    if (!this.#isBegun) this.#tellOver();
  }

  async #drive(): Promise<void> {
    const { model, device, dims, signal } = this.#plan;
    try {
      this.onBegin();
      if (signal?.aborted) return this.abort(signal.reason);
      this.#assertReadable();
      this.#claim();
      this.#forget = onAbort(signal, () => this.abort(signal!.reason));
      const [rows, ...sampleShape] = dims as [number, ...number[]];
      const capacity = Math.min(this.#plan.maxRows ?? rows, rows);
      this.#batch = new Batch({ model, sampleShape, capacity, device, signal: this.#stop.signal });
      this.#lanes = await RunLanes.join(this.#plan, this.#batch);
      await this.#steps(this.#batch, this.#lanes);
    } catch (error) {
      this.#end({ error: error as Error });
    } finally {
      this.#reading.end();
      await this.#serving; // it reads the batch's memory
      await this.#batch?.dispose();
      this.#tellOver();
    }
  }

  /** ERR_BUSY where another run draws from the same generator: the draws would interleave by chance. */
  #claim(): void {
    const { noise } = this.#plan;
    if (!('generators' in noise)) return;
    if (noise.generators.some((generator) => drawing.has(generator)))
      throw new ScoreSdeError('ERR_BUSY', 'generator is in use by another run: give each run a generator of its own');
    for (const generator of noise.generators) drawing.add(generator);
    this.#hasClaim = true;
  }

  #release(): void {
    if (this.#hasClaim && 'generators' in this.#plan.noise)
      for (const generator of this.#plan.noise.generators) drawing.delete(generator);
  }

  async #steps(batch: Batch, lanes: RunLanes): Promise<void> {
    const { onProgress } = this.#plan;
    while (!this.#outcome && !lanes.done) {
      if (this.#saves.length > 0) {
        await batch.settle();
        this.#assertSound(lanes);
        await this.#serveSaves();
        if (this.#outcome) return;
      }
      this.#assertReadable();
      batch.keeps = this.#reader !== undefined;
      const { done } = await batch.advance();
      // The report of an update may come before that of one before it.
      if (lanes.failure !== undefined) await batch.settle().catch(() => {});
      this.#assertSound(lanes);
      const progress = lanes.progress();
      if (progress !== undefined && onProgress !== undefined)
        this.#told = this.#told
          .then(() => done)
          .then(
            () => this.#tell(progress),
            () => {}, // told where the work is awaited
          );
      if (progress !== undefined && batch.keeps) await this.#show(batch, lanes, progress);
      if (!this.#outcome) await lanes.collect();
    }
    if (this.#outcome) return;
    await batch.settle();
    this.#assertSound(lanes);
    await this.#told;
    await this.#serveSaves(); // of a run that went ahead of those who asked
    if (!this.#outcome) await this.#finish(lanes);
  }

  async #finish(lanes: RunLanes): Promise<void> {
    const { solverName, seed, device, dataRange } = this.#plan;
    const { calls, steps } = lanes;
    const samples = await lanes.take();
    // The images take the memory of what is no longer needed.
    await this.#batch!.dispose();
    const images = await imagesOf(samples, dataRange);
    const seconds = (now() - this.#since) / 1000;
    const made = { samples, images, solver: solverName, calls, steps, seed, device, seconds };
    this.#end({ result: new SamplingResult(made) });
  }

  /** ERR_CONFIG where a reader asks for steps that the samples do not have in common. */
  #assertReadable(): void {
    const { dims, maxRows, solver } = this.#plan;
    if (this.#reader === undefined || partsOf(dims[0]!, maxRows, solver).length === 1) return;
    throw new ScoreSdeError(
      'ERR_CONFIG',
      maxRows === undefined
        ? `solver ${solver.name} has no steps that the samples of a batch have in common: take onProgress, or a batch of one`
        : 'maxRows leaves no steps that the samples of a batch have in common: take onProgress, or leave out maxRows',
    );
  }

  #assertSound(lanes: RunLanes): void {
    const { failure } = lanes;
    if (failure !== undefined) throw failure;
  }

  #tell(progress: SamplingProgress): void {
    if (this.#outcome) return;
    try {
      this.#plan.onProgress!(progress);
    } catch (error) {
      this.#end({ error: error as Error });
    }
  }

  /** Gives a step to the reader and waits for it. */
  async #show(batch: Batch, lanes: RunLanes, { step, total, calls, sigma }: SamplingProgress): Promise<void> {
    await batch.settle();
    this.#assertSound(lanes);
    await this.#told;
    if (this.#outcome) return;
    const lane = lanes.only!;
    const { time, sigmaMin, sigmaMax } = this.#plan.levels;
    const timestep = Number.isNaN(total) ? Math.log(sigma / sigmaMin) / Math.log(sigmaMax / sigmaMin) : time[step - 1]!;
    const tensors = { sample: viewOf(batch.x(lane)), mean: viewOf(batch.mean(lane)) };
    const shown = new SamplingStep({ index: step - 1, total, timestep, sigma, calls, ...tensors }, () =>
      batch.denoised(lane),
    );
    this.#isParked = true;
    try {
      await this.#reading.for(this.#reader?.(shown));
    } finally {
      this.#isParked = false;
      shown.pass();
    }
    await this.#serveSaves();
  }

  /** Makes the saves that were asked for, after those that are being made. The run must not go on before that. */
  #serveSaves(): Promise<void> {
    return (this.#serving = this.#serving.then(async () => {
      for (const save of this.#saves.splice(0)) await this.#serve(save);
    }));
  }

  async #serve({ stop, resolve, reject }: Save): Promise<void> {
    if (this.#outcome) return reject(endOf(this.#outcome));
    try {
      resolve(await this.#lanes!.snapshot());
      if (stop) this.abort(new Error('the run was saved, to go on elsewhere'));
    } catch (error) {
      reject(error as Error);
    }
  }
}

/** Why a run that has ended can no longer be saved. */
function endOf(outcome: { readonly error: Error } | { readonly result: SamplingResult }): Error {
  return 'error' in outcome ? outcome.error : new ScoreSdeError('ERR_STATE', 'the run ended before it was saved');
}
