import { AbortError, ScoreSdeError } from '../errors';
import type { ModelInputs, ScoreModel } from '../models/model';
import { planRandn, type Generator } from '../random/generator';
import { onAbort } from '../signals';
import type { Json, Levels, Solver } from '../solvers/solver';
import { batchShape, operand } from '../tensor/operand';
import { sizeOfDims, Tensor } from '../tensor/tensor';
import { rowsOf, viewOf } from '../tensor/views';
import { Batch, type LaneState } from './batch';
import { encode } from './checkpoint';
import { Lane, type NoiseSource } from './lane';
import { imagesOf, SamplingResult } from './result';
import { SamplingStep } from './sampling-step';

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
  readonly solver: Solver;
  readonly levels: Levels;
  readonly noise: NoiseSource;
  readonly seed: bigint | undefined;
  readonly inputs: ModelInputs;
  /** The inputs as the model prepared them for the whole batch. */
  readonly prepared: ModelInputs;
  readonly dataRange: readonly [low: number, high: number];
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((progress: SamplingProgress) => void) | undefined;
  /** Where the run begins, if not with noise. */
  readonly state?: LaneState | undefined;
  /** Where its lanes stand: one, or one for each sample with an adaptive solver. A null position: the sample is there. */
  readonly lanes?: readonly { readonly position: Json; readonly calls: number }[] | undefined;
}

/** Generators that runs under way draw from. */
const drawing = new WeakSet<Generator>();

/**
 * A run under way. As an async iterable it yields the steps and waits for their reader; otherwise it goes on by itself, in
 * place and ahead of the event loop.
 */
export class SamplingRun implements AsyncIterable<SamplingStep> {
  readonly #plan: RunPlan;
  readonly #result: Promise<SamplingResult>;
  #settle!: { resolve: (result: SamplingResult) => void; reject: (error: unknown) => void };
  /** Ends the model's calls. */
  readonly #stop = new AbortController();
  #outcome: { readonly error?: unknown } | undefined;
  #isBegun = false;
  #since = 0;
  #batch: Batch | undefined;
  #lanes: Lane[] = [];
  /** Of an adaptive solver: the samples that are there. */
  #samples: Tensor<'float32'> | undefined;
  /** Called with each step and awaited, where the run is watched. */
  #reader: ((step: SamplingStep) => unknown) | undefined;
  /** Whether the run stands between two stages with nothing under way. */
  #isParked = false;
  readonly #saves: (() => Promise<void>)[] = [];
  #forget: (() => void) | undefined;
  /** Settles when the run has let go of its memory, which may be long after it was aborted. */
  #over: Promise<void> = Promise.resolve();

  /** @internal `begun` is told of what settles when the run is over. */
  constructor(
    plan: RunPlan,
    private readonly begun: (over: Promise<unknown>) => void,
  ) {
    this.#plan = plan;
    this.#result = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    this.#result.catch(() => {}); // whoever iterates hears of it there
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
   * The run as the bytes of a safetensors file, between the present stage and the next: `pipeline.resume(bytes)` goes on
   * from there, in any process and on any device, to the same bits. The run itself goes on, unless `stop` is true: then it
   * ends as by abort().
   * @throws ScoreSdeError ERR_STATE once the run has ended, and ERR_ABORTED where it ends before it was saved
   */
  save(options: { stop?: boolean } = {}): Promise<Uint8Array> {
    const { stop = false } = options;
    if (this.#outcome !== undefined)
      return Promise.reject(new ScoreSdeError('ERR_STATE', 'the run has ended: there is nothing left to save'));
    return new Promise((resolve, reject) => {
      this.#saves.push(async () => {
        try {
          if (this.#outcome) throw this.#outcome.error ?? new ScoreSdeError('ERR_STATE', 'the run has ended');
          resolve(await this.#snapshot());
          if (stop) this.abort(new Error('the run was saved, to go on elsewhere'));
        } catch (error) {
          reject(error as Error);
        }
      });
      if (this.#isParked) void this.#serveSaves();
      this.begin();
    });
  }

  /** The steps, each once the one before was read. Leaving the loop aborts the run. */
  async *[Symbol.asyncIterator](): AsyncGenerator<SamplingStep, void, void> {
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
        const next = new Promise<SamplingStep | undefined>((resolve, reject) => ([give, fail] = [resolve, reject]));
        if (this.#outcome?.error !== undefined) throw this.#outcome.error;
        if (this.#outcome) return;
        this.begin();
        goOn?.();
        const step = await next;
        if (step === undefined) return;
        yield step;
        if (this.#stop.signal.aborted) throw this.#outcome!.error!;
      }
    } finally {
      this.#reader = undefined;
      this.abort();
      goOn?.();
    }
  }

  /** Aborts the run, and waits until it has let go of its memory. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.abort();
    await this.#over;
  }

  /** @internal Begins, if it has not: `reader` is called with each step and awaited. */
  begin(reader?: (step: SamplingStep) => unknown): void {
    if (this.#isBegun || this.#outcome !== undefined) return;
    this.#isBegun = true;
    if (reader !== undefined) this.#reader = reader;
    this.#since = performance.now();
    this.#over = this.#drive();
    this.begun(this.#result);
  }

  #end(outcome: { error: unknown } | { result: SamplingResult }): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = 'error' in outcome ? outcome : {};
    this.#forget?.();
    if ('generators' in this.#plan.noise)
      for (const generator of this.#plan.noise.generators) drawing.delete(generator);
    if ('error' in outcome) this.#settle.reject(outcome.error);
    else this.#settle.resolve(outcome.result);
    void this.#serveSaves();
  }

  async #drive(): Promise<void> {
    const { model, device, dims, signal } = this.#plan;
    let batch: Batch | undefined;
    try {
      this.#claim();
      if (signal?.aborted) this.abort(signal.reason);
      else this.#forget = onAbort(signal, () => this.abort(signal!.reason));
      if (this.#outcome) return;
      batch = this.#batch = new Batch({
        model,
        sampleShape: dims.slice(1),
        capacity: dims[0]!,
        device,
        signal: this.#stop.signal,
      });
      await this.#join(batch);
      await this.#steps(batch);
    } catch (error) {
      this.#end({ error });
    } finally {
      this.#stop.abort();
      await batch?.dispose();
    }
  }

  /** ERR_BUSY where another run draws from the same generator: the draws would interleave by chance. */
  #claim(): void {
    const { noise } = this.#plan;
    if (!('generators' in noise)) return;
    if (noise.generators.some((generator) => drawing.has(generator)))
      throw new ScoreSdeError('ERR_BUSY', 'generator is in use by another run: give each run a generator of its own');
    for (const generator of noise.generators) drawing.add(generator);
  }

  async #join(batch: Batch): Promise<void> {
    const { solver, levels, noise, inputs, prepared, state, dims, lanes, device } = this.#plan;
    const rows = dims[0]!;
    if (!this.#isAdaptive) {
      const lane = new Lane({ solver, levels, rows, noise, inputs, ...lanes?.[0] });
      this.#lanes = [lane];
      return batch.join(lane, state, prepared);
    }
    // An adaptive solver takes each sample its own way.
    const samples = (this.#samples = Tensor.empty(dims, { device }));
    if (state === undefined) {
      const into = operand(samples, 'sample');
      await planRandn(
        (noise as { generators: Generator[] }).generators,
        into,
        batchShape(into),
        levels.start,
      ).runAsync();
    }
    const kept = (row: number): LaneState => {
      const part = (tensor: unknown) => rowsOf(tensor as Tensor<'float32'>, row, 1);
      const { x, history, base, low } = state ?? { x: samples, history: [], base: undefined, low: undefined };
      return { x: part(x), history: history.map(part), base: base && part(base), low: low && part(low) };
    };
    for (let row = 0; row < rows; row++) {
      const lane = new Lane({ solver, levels, rows: 1, noise, inputs: inputsOf(inputs, row, rows), ...lanes?.[row] });
      this.#lanes.push(lane);
      await batch.join(lane, kept(row));
    }
    await this.#collect(batch);
  }

  get #isAdaptive(): boolean {
    return this.#plan.solver.tolerance !== undefined;
  }

  /** Takes the samples that are there out of the batch, where each has its own way. */
  async #collect(batch: Batch): Promise<void> {
    if (!this.#isAdaptive) return;
    for (const [row, lane] of this.#lanes.entries()) {
      if (!lane.done || lane.first < 0) continue;
      await batch.copyTo(lane, rowsOf(this.#samples!, row, 1));
      await batch.leave(lane);
    }
    await batch.settle();
  }

  async #steps(batch: Batch): Promise<void> {
    const { levels, onProgress } = this.#plan;
    const [lane] = this.#lanes;
    const total = this.#isAdaptive ? NaN : levels.sigma.length;
    let mean: Tensor<'float32'> | undefined;
    while (!this.#outcome && this.#lanes.some(({ done }) => !done)) {
      await this.#betweenStages();
      if (this.#outcome) return;
      this.#assertReadable();
      batch.keeps = this.#reader !== undefined;
      const { done } = await batch.advance();
      this.#assertSound();
      const { step, sigma, endsStep } = lane!.last!;
      const calls = Math.max(...this.#lanes.map((each) => each.calls));
      if (onProgress !== undefined && (endsStep || this.#isAdaptive)) {
        const progress = { step: step + 1, total, calls, sigma: Math.fround(sigma) };
        done.then(
          () => this.#tell(progress),
          () => {}, // told where the work is awaited
        );
      }
      if (batch.keeps && endsStep) {
        await batch.settle();
        this.#assertSound();
        if (this.#outcome) return;
        mean = batch.mean(lane!);
        const state = { index: step, total, timestep: levels.time[step] ?? NaN, sigma: Math.fround(sigma), calls };
        const tensors = { sample: viewOf(batch.x(lane!)), mean: viewOf(mean) };
        await this.#show(new SamplingStep({ ...state, ...tensors }, () => batch.denoised(lane!)));
      }
      if (!this.#outcome) await this.#collect(batch);
    }
    if (this.#outcome) return;
    await batch.settle();
    this.#assertSound();
    await this.#finish(batch, batch.keeps ? mean : undefined);
  }

  async #finish(batch: Batch, mean: Tensor<'float32'> | undefined): Promise<void> {
    const { levels, seed, device, dataRange } = this.#plan;
    const [lane] = this.#lanes;
    const calls = Math.max(...this.#lanes.map((each) => each.calls));
    const samples = this.#samples ?? mean ?? (await batch.take(lane!));
    const images = await imagesOf(samples, dataRange);
    const steps = this.#isAdaptive ? Math.max(...this.#lanes.map(({ last }) => last!.step)) : levels.sigma.length;
    const seconds = (performance.now() - this.#since) / 1000;
    this.#end({ result: new SamplingResult({ samples, images, calls, steps, seed, device, seconds }) });
  }

  /** ERR_CONFIG where a reader asks for steps that the samples do not have in common. */
  #assertReadable(): void {
    if (this.#reader !== undefined && this.#isAdaptive && this.#lanes.length > 1)
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `solver ${this.#plan.solver.name} has no steps that the samples of a batch have in common: take onProgress, or a batch of one`,
      );
  }

  #assertSound(): void {
    for (const { failure } of this.#lanes) if (failure !== undefined) throw failure;
  }

  #tell(progress: SamplingProgress): void {
    if (this.#outcome) return;
    try {
      this.#plan.onProgress!(progress);
    } catch (error) {
      this.#end({ error });
    }
  }

  /** Gives a step to the reader and waits for it. */
  async #show(step: SamplingStep): Promise<void> {
    this.#isParked = true;
    try {
      await Promise.race([this.#reader?.(step), this.#aborted]);
    } finally {
      this.#isParked = false;
      step.pass();
    }
    await this.#serveSaves();
  }

  /** Resolves when the run has ended otherwise than by itself. */
  get #aborted(): Promise<void> {
    return this.#result.then(
      () => {},
      () => {},
    );
  }

  async #betweenStages(): Promise<void> {
    if (this.#saves.length === 0) return;
    await this.#batch!.settle();
    this.#assertSound();
    await this.#serveSaves();
  }

  async #serveSaves(): Promise<void> {
    while (this.#saves.length > 0) await this.#saves.shift()!();
  }

  async #snapshot(): Promise<Uint8Array> {
    const { solver, levels, dims, noise, seed, inputs, dataRange } = this.#plan;
    const batch = this.#batch!;
    const gathered = async (parts: readonly Tensor[]): Promise<Float32Array> => {
      const whole = new Float32Array(sizeOfDims(dims, 'the batch'));
      let at = 0;
      for (const part of parts) {
        whole.set((await part.getData()) as Float32Array, at);
        at += part.size;
      }
      return whole;
    };
    // A lane that has left the batch holds its sample alone.
    const states = this.#lanes.map((lane, row) =>
      lane.first < 0
        ? { x: rowsOf(this.#samples!, row, 1), history: [], base: undefined, low: undefined }
        : batch.state(lane),
    );
    const [x, ...rest] = [
      states.map((state) => state.x),
      ...Array.from({ length: solver.history }, (_, i) => states.map((state) => state.history[i] ?? state.x)),
    ];
    const optional = async (parts: (Tensor | undefined)[]) =>
      parts.some((part) => part !== undefined) ? gathered(parts.map((part, i) => part ?? states[i]!.x)) : undefined;
    return encode({
      solver,
      levels,
      dims,
      noise,
      seed,
      inputs,
      dataRange,
      lanes: this.#lanes.map(({ position, calls }) => ({ position: position ?? null, calls })),
      x: await gathered(x!),
      history: await Promise.all(rest.map(gathered)),
      base: await optional(states.map((state) => state.base)),
      low: await optional(states.map((state) => state.low)),
    });
  }
}

/** The inputs of one sample of a batch. */
function inputsOf(inputs: ModelInputs, row: number, rows: number): ModelInputs {
  const one = (value: unknown): unknown =>
    (Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value)) &&
    (value as ArrayLike<unknown>).length === rows
      ? (value as ArrayLike<unknown>)[row]
      : value;
  return Object.fromEntries(Object.entries(inputs).map(([name, value]) => [name, one(value)])) as ModelInputs;
}
