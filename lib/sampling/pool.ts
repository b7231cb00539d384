import { KernelCall } from '../native/call';
import { bufferOf } from '../native/memory';
import { assertSameDims, operand, stateTypeOf } from '../tensor/operand';
import { Tensor, type TensorLike } from '../tensor/tensor';
import { rowsOf } from '../tensor/views';
import type { Executor } from './executor/executor';

type Floats = Tensor<'float32'>;

/** The memory of a batch: tensors of [capacity, ...] float32 whose first rows are taken. Each is made when it is first needed. */
export class Pool {
  /** Elements of one row. */
  readonly cols: number;
  /** Whether x was handed out: the next update writes elsewhere. */
  isShown = false;
  /** The values of the calls before, the newest first. */
  readonly history: Floats[] = [];
  /** X0 of solvers that mark it. */
  base: Floats | undefined;
  /** Of adaptive solvers: the results of lower order, of the last accepted step and of the present one. */
  low: { accepted: Floats; present: Floats } | undefined;
  #x: Floats | undefined;
  #spare: Floats | undefined;
  readonly #owned = new Set<Tensor>();

  constructor(
    private readonly executor: Executor,
    readonly dims: readonly number[],
  ) {
    this.cols = dims.slice(1).reduce((size, dim) => size * dim, 1);
  }

  get x(): Floats {
    return (this.#x ??= this.own());
  }

  /** Memory whose content nobody needs, until the next update takes it. */
  get spare(): Floats {
    return (this.#spare ??= this.own());
  }

  own(device = this.executor.device): Floats {
    const tensor = Tensor.empty(this.dims, { device });
    this.#owned.add(tensor);
    return tensor;
  }

  /** Where the next update of x goes: x itself, memory apart from it, or new memory that is the readers'. */
  target(how: 'in place' | 'apart' | 'new'): Floats {
    if (how === 'new') return Tensor.empty(this.dims, { device: this.executor.device });
    return how === 'apart' || this.isShown ? this.spare : this.x;
  }

  /** x is what an update wrote to its target. */
  moveTo(target: Floats): void {
    const before = this.x;
    if (target !== before) {
      if (target === this.#spare) this.#spare = undefined;
      // Memory that was handed out is its readers'; the pool's own serves the next update.
      if (!this.isShown && this.#owned.has(before)) this.#spare ??= before;
      this.#x = target;
    }
    this.isShown = false;
  }

  /** Gives x away. */
  release(): Floats {
    const { x } = this;
    this.#owned.delete(x);
    this.#x = undefined;
    return x;
  }

  /** Leaves x to its readers and goes on in a copy. */
  async unshare(): Promise<void> {
    if (!this.isShown) return;
    const target = this.spare;
    await this.copy(this.x, target, 'x');
    this.moveTo(target);
  }

  /** Copies a tensor of any state type, from wherever it lies. ERR_SHAPE, ERR_DTYPE, ERR_DISPOSED. */
  async copy(from: TensorLike, to: Floats, name: string): Promise<void> {
    let given = operand(from, name);
    assertSameDims(given, { name: 'its rows', dims: to.dims });
    const { device } = this.executor;
    let passing: Tensor | undefined;
    if (from instanceof Tensor ? from.device !== device : device !== 'cpu') {
      passing = await new Tensor(stateTypeOf(given.type), given.memory as never, given.dims).to(device);
      given = operand(passing, name);
    }
    const [out, count] = [operand(to, 'out'), to.size];
    const access = { reads: [bufferOf(given.memory)], writes: [bufferOf(out.memory)] };
    await this.executor.work(
      new KernelCall('convert', () => [count, given.memory, given.type, out.memory, out.type] as never, access),
    );
    if (passing === undefined) return;
    await this.executor.settle();
    passing.dispose();
  }

  /** Moves the rows from `first + count` up to `end` down by `count`. */
  async close(first: number, count: number, end: number): Promise<void> {
    // A part at a time, so that no part overlaps the place that it goes to.
    for (let to = first; to + count < end; to += count)
      await this.move(to + count, to, Math.min(count, end - to - count));
  }

  /** Copies what is kept of some rows to others. */
  async move(from: number, to: number, count: number): Promise<void> {
    for (const tensor of [this.x, this.base, this.low?.accepted, ...this.history])
      if (tensor !== undefined) await this.copy(rowsOf(tensor, from, count), rowsOf(tensor, to, count), 'rows');
  }

  dispose(): void {
    for (const tensor of this.#owned) tensor.dispose();
    this.#owned.clear();
  }
}
