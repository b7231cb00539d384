import { ScoreSdeError } from '../errors';
import { assertContext, handOver, type ModelContext, type ModelInputs, type ScoreModel } from '../models/model';
import { type Mark } from '../native/abi';
import { native } from '../native/addon';
import { KernelCall, type Call } from '../native/call';
import { deviceIndex } from '../native/memory';
import { isCrowded } from '../native/order';
import { planRandn, type Generator } from '../random/generator';
import type { NoiseOptions } from '../scheduler/steps';
import { onAbort } from '../signals';
import { assertOnePlace, assertSameDims, batchShape, operand, stateTypeOf, type Operand } from '../tensor/operand';
import { Tensor, type TensorLike, type TensorType } from '../tensor/tensor';

/** What the model is given beside the sample. */
type Given = [sigma: Tensor<'float32'>, inputs: ModelInputs, context: ModelContext];

/** Where a run's states lie, and how its work is done there. */
export interface Place {
  readonly device: string;
  /** Takes the next draw: where that is worth it, it is made while the model runs. */
  draw(): Promise<NoiseOptions>;
  /** The model's score, in this place; it may be under way. */
  score(model: ScoreModel, sample: Tensor<'float32'>, ...given: Given): Promise<TensorLike>;
  /** Where the model takes and gives tensors. */
  modelDevice(model: ScoreModel): string;
  /** What a step takes to tell of values that are not finite; `call` counts the steps' calls. */
  mark(call: number): Mark;
  /** The score, where it is a copy that this place made; undefined where it is the model's. */
  passing(score: TensorLike): Tensor | undefined;
  /** Runs a step's call, after which `used` are not needed any more. Gives the first call known to have gone wrong. */
  run(work: Call<boolean | void>, call: number, used: readonly unknown[]): Promise<number | undefined>;
  /** Ends a step of the run; the last one once all is done. Gives what `run` does. */
  settle(isLast: boolean): Promise<number | undefined>;
  /** Ends what is still under way when the run ends, and waits for it. */
  rest(): Promise<void>;
}

/** Elements up to which a kernel takes less than some 50 us, which is what the event loop may be held for. */
const syncElements =
  { 'x86-64-v4': 2 ** 15, 'x86-64-v3': 2 ** 14, 'x86-64': 2 ** 7 }[native.instructionSet()] ?? 2 ** 12;

/** For a reader who may dispose what it is given. */
export function viewOf<T extends TensorType>(tensor: Tensor<T>): Tensor<T> {
  return new Tensor<T>(tensor.type, tensor.memory as never, tensor.dims);
}

/** A call's number, once it is known whether it gave what is not finite. */
type Outcome = Promise<number | undefined>;

/** Calls, the model's and the steps', that may be under way on the CPU. */
const callsAhead = 16;

/** The CPU. Where the model's calls keep the order of its memory, the threads go from them to the steps' and on without the event loop. */
export class Host implements Place {
  readonly device = 'cpu';
  readonly #underWay: Outcome[] = [];
  /** Of the run's signal, and of its end. */
  readonly #stop = new AbortController();
  #forget: (() => void) | undefined;

  constructor(
    private readonly generator: readonly Generator[],
    private readonly elements: number,
    /** Whether a step may begin before the last one is done. */
    private readonly goesAhead: boolean,
  ) {}

  async draw(): Promise<NoiseOptions> {
    return { generator: this.generator };
  }

  async score(model: ScoreModel, sample: Tensor<'float32'>, ...[sigma, inputs, context]: Given): Promise<TensorLike> {
    if (!model[handOver] || isCrowded()) return model(viewOf(sample), sigma, inputs, context);
    assertContext(context);
    this.#forget ??= onAbort(context.signal, () => this.#stop.abort(context.signal!.reason));
    const stoppable = { out: context.out, signal: this.#stop.signal };
    const { score, done } = model[handOver](viewOf(sample), sigma, inputs, stoppable);
    this.#handedOver(done.then(() => undefined));
    return score;
  }

  modelDevice(): string {
    return this.device;
  }

  mark(): Mark {
    return [];
  }

  async run(work: Call<boolean | void>, call: number): Outcome {
    const outcome = (finite: boolean | void) => (finite === false ? call : undefined);
    let known: number | undefined;
    if (this.#underWay.length > 0) this.#handedOver(work.runAsync().then(outcome));
    else known = outcome(await (this.elements <= syncElements && !work.busy ? work.run() : work.runAsync()));
    // A turn of the event loop: neither kernels on this thread nor the ends of those on others, which Node takes up to a
    // thousand at a time, keep it from the rest of the process.
    await new Promise(setImmediate);
    return known ?? this.#downTo(isCrowded() ? 0 : callsAhead);
  }

  passing(): undefined {}

  async settle(isLast: boolean): Outcome {
    return isLast || !this.goesAhead ? this.#downTo(0) : undefined;
  }

  async rest(): Promise<void> {
    this.#forget?.();
    if (this.#underWay.length > 0) this.#stop.abort();
    await Promise.allSettled(this.#underWay);
  }

  #handedOver(outcome: Outcome): void {
    outcome.catch(() => {}); // told where it is awaited, if nothing else ends the run first
    this.#underWay.push(outcome);
  }

  /** Waits until so many calls are under way at most. */
  async #downTo(count: number): Outcome {
    for (; this.#underWay.length > count; this.#underWay.shift()) {
      const call = await this.#underWay[0];
      if (call !== undefined) return call;
    }
    return undefined;
  }
}

/** Steps that may be enqueued ahead of the device. */
const ahead = 4;

const none = 2 ** 32 - 1;

/** Everything is enqueued, and nothing waits for the device but what the host needs of it. */
export class OnDevice implements Place {
  readonly #index: number;
  readonly #marked: ReturnType<typeof native.deviceMark>;
  readonly #steps: Promise<void>[] = [];
  #copy: Tensor | undefined;

  constructor(
    readonly device: string,
    private readonly generator: readonly Generator[],
    private readonly dims: readonly number[],
  ) {
    this.#index = deviceIndex(device);
    this.#marked = native.deviceMark(this.#index);
  }

  draw(): Promise<NoiseOptions> {
    if (this.generator[0]!.engine !== 'torch') return Promise.resolve({ generator: this.generator });
    const noise = Tensor.empty(this.dims, { device: this.device });
    const drawn = operand(noise, 'noise');
    const made = planRandn(this.generator, drawn, batchShape(drawn)).runAsync();
    const options = made.then(() => ({ noise }));
    options.catch(() => {}); // told where it is awaited, if the model does not fail first
    return options;
  }

  modelDevice(model: ScoreModel): string {
    return takesDevice(model, this.device) ? this.device : 'cpu';
  }

  async score(model: ScoreModel, sample: Tensor<'float32'>, ...given: Given): Promise<TensorLike> {
    if (takesDevice(model, this.device)) return model(viewOf(sample), ...given);
    const onHost = await sample.to('cpu');
    const score = await model(viewOf(onHost), ...given);
    // As wide as the model's is: a step takes the 16-bit types, too.
    const { dims, memory, type } = checkedScore(score, this.dims);
    this.#copy = await new Tensor(stateTypeOf(type), memory as never, dims).to(this.device);
    onHost.dispose();
    return this.#copy;
  }

  mark(call: number): Mark {
    return [this.#marked.handle, call];
  }

  passing(score: TensorLike): Tensor | undefined {
    return score === this.#copy ? this.#copy : undefined;
  }

  async run(work: Call<boolean | void>, _call: number, used: readonly unknown[]): Promise<number | undefined> {
    // What is drawn on the host takes its time.
    if (work instanceof KernelCall) work.run();
    else await work.runAsync();
    for (const tensor of used) if (tensor instanceof Tensor) tensor.dispose();
    return this.#seen();
  }

  async settle(isLast: boolean): Promise<number | undefined> {
    this.#done();
    if (this.#steps.length > ahead) await this.#steps.shift();
    if (!isLast) {
      await new Promise(setImmediate);
      return undefined;
    }
    this.#seen();
    this.#done();
    await Promise.all(this.#steps.splice(0));
    return this.#seen();
  }

  async rest(): Promise<void> {} // memory that is given back is free once the stream has done with it

  #done(): void {
    const done = native.deviceDoneAsync(this.#index);
    done.catch(() => {}); // told where it is awaited, if nothing else ends the run first
    this.#steps.push(done);
  }

  #seen(): number | undefined {
    const first = native.deviceMarkSeen(this.#marked.mark);
    return first === none ? undefined : first;
  }
}

/** ERR_MODEL unless the model returned a score for these states, in their place. */
export function checkedScore(score: TensorLike, dims: readonly number[], beside?: Tensor): Operand {
  try {
    const found = operand(score, 'the score');
    assertSameDims(found, { name: 'the sample', dims });
    if (beside) assertOnePlace([operand(beside, 'the sample'), found]);
    return found;
  } catch (cause) {
    throw new ScoreSdeError('ERR_MODEL', `the model's result does not fit: ${(cause as Error).message}`, { cause });
  }
}

/** Whether a model takes and gives tensors on that device. */
export function takesDevice(model: ScoreModel, device: string): boolean {
  return model.devices?.some((name) => name === device || name === device.replace(/:\d+$/, '')) ?? false;
}
