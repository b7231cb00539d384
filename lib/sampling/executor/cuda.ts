import { turn } from '../../clock';
import type { ModelContext, ModelInputs, ScoreModel } from '../../models/model';
import { checkedResult } from '../../models/result';
import type { NonFinite } from '../../native/abi';
import { native } from '../../native/addon';
import { KernelCall, type Call } from '../../native/call';
import { deviceIndex } from '../../native/memory';
import { assertGoesOn } from '../../signals';
import { stateTypeOf } from '../../tensor/operand';
import { Tensor, type TensorLike } from '../../tensor/tensor';
import { viewOf } from '../../tensor/views';
import { takesDevice } from './place';
import type { Executor, Handed } from './executor';

/** Updates that may be enqueued ahead of the device. */
const mostAhead = 8;

/** The word of a row that no update made other than finite. */
const none = 2 ** 32 - 1;

/** A CUDA device: everything is enqueued on its stream, and the host waits only for what it needs. */
export class CudaExecutor implements Executor {
  readonly #index: number;
  #marked: ReturnType<typeof native.deviceMark>;
  readonly #ahead: Promise<void>[] = [];
  /** The updates whose outcome is not known yet. */
  #handed: Handed[] = [];
  /** The model's result, where it computes on the host. */
  #copy: Tensor | undefined;

  constructor(
    readonly device: string,
    private readonly rows: number,
  ) {
    this.#index = deviceIndex(device);
    this.#marked = native.deviceMark(this.#index, rows);
  }

  modelDevice(model: ScoreModel): string {
    return takesDevice(model, this.device) ? this.device : 'cpu';
  }

  async call(
    model: ScoreModel,
    sample: Tensor<'float32'>,
    sigma: Tensor<'float32'>,
    inputs: ModelInputs,
    context: ModelContext,
  ): Promise<TensorLike> {
    if (takesDevice(model, this.device)) return model(viewOf(sample), sigma, inputs, context);
    const onHost = await sample.to('cpu');
    const result = await model(viewOf(onHost), sigma, inputs, context);
    assertGoesOn(context.signal); // the batch may be gone by now
    // As wide as the model's is: an update takes the 16-bit types, too.
    const { dims, memory, type } = checkedResult(result, sample.dims);
    this.#copy?.dispose();
    this.#copy = await new Tensor(stateTypeOf(type), memory as never, dims).to(this.device);
    onHost.dispose();
    return this.#copy;
  }

  mark(index: number): readonly unknown[] {
    return [this.#marked.handle, index];
  }

  async update(call: Call<NonFinite>, _elements: number, handed: Handed): Promise<{ done: Promise<void> }> {
    this.#handed.push(handed);
    await this.work(call);
    const done = native.deviceDoneAsync(this.#index);
    done.catch(() => {}); // told where it is awaited, if nothing else ends the run first
    this.#ahead.push(done);
    return { done };
  }

  async work(call: Call<unknown>): Promise<void> {
    // What is drawn on the host takes its time.
    if (call instanceof KernelCall) call.run();
    else await call.runAsync();
  }

  async pace(): Promise<void> {
    await turn();
    if (this.#ahead.length <= mostAhead) return;
    while (this.#ahead.length > mostAhead / 2) await this.#ahead.shift();
    this.#report();
  }

  async settle(): Promise<void> {
    await native.deviceDoneAsync(this.#index);
    await Promise.all(this.#ahead.splice(0));
    this.#report();
    this.#handed = [];
  }

  async renew(): Promise<void> {
    if (this.#handed.length === 0) return;
    await this.settle();
    this.#marked = native.deviceMark(this.#index, this.rows);
  }

  async end(): Promise<void> {
    await Promise.allSettled(this.#ahead.splice(0));
    this.#copy?.dispose();
  }

  /** Reports the rows of whose updates one is known to have gone wrong, without waiting for the device. */
  #report(): void {
    const words = native.deviceMarkSeen(this.#marked.mark);
    const first = this.#handed[0]?.index ?? none;
    words.forEach((word, row) => {
      if (word !== none && word >= first) this.#handed.find(({ index }) => index === word)?.fail([row]);
    });
    if (this.#handed.length > 4 * mostAhead) this.#handed = this.#handed.slice(-3 * mostAhead);
  }
}
