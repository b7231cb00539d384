import { type Native, type Order } from './abi';
import { native } from './addon';
import { DeviceMemory } from './memory';
import { assertIdle, assertRoom, counted, inOrder, isBusy, type Access } from './order';

/** The operations that run on the caller's thread, or off the event loop in their ...Async twins. */
export type Kernel = {
  [K in keyof Native]: `${K}Async` extends keyof Native ? K : never;
}[keyof Native];

const functions = native as unknown as Record<string, (...args: unknown[]) => unknown>;

/** Work that is checked: nothing was drawn or written yet. To be run once. */
export interface Call<Result> {
  /** Whether asynchronous work on the same memory is under way. */
  readonly busy: boolean;
  /** On this thread; on a device, only enqueued. ERR_BUSY where asynchronous work on the same memory is under way. */
  run(): Result;
  /** Off the event loop, after whatever uses the same memory. The draws are taken now. ERR_BUSY where too much waits already. */
  runAsync(): Promise<Result>;
}

/** A call of a kernel. */
export class KernelCall<K extends Kernel> implements Call<ReturnType<Native[K]>> {
  /**
   * @param args Takes the noise from its generators and gives the native arguments
   * @param access The memory that the call reads and writes
   * @param before What must be done first, such as a draw on the host for work on a device
   * @param after What can be done once that work is enqueued, or has failed
   */
  constructor(
    private readonly kernel: K,
    private readonly args: () => Parameters<Native[K]>,
    private readonly access: Access,
    private readonly before?: Call<unknown>,
    private readonly after?: () => void,
  ) {}

  get busy(): boolean {
    return isBusy(this.access) || (this.before?.busy ?? false);
  }

  run(): ReturnType<Native[K]> {
    try {
      assertIdle(this.access, this.kernel, true);
      this.before?.run();
      return functions[this.kernel]!(...this.args()) as ReturnType<Native[K]>;
    } finally {
      this.after?.();
    }
  }

  async runAsync(): Promise<ReturnType<Native[K]>> {
    const failed = (error: unknown): never => {
      this.after?.();
      throw error;
    };
    const twin = functions[`${this.kernel}Async`]!;
    let args: unknown[];
    try {
      assertRoom(`${this.kernel}Async`);
      args = this.args();
    } catch (error) {
      return failed(error);
    }
    const start = (order: Order) => {
      try {
        return twin(order, ...args) as Promise<ReturnType<Native[K]>>;
      } finally {
        this.after?.();
      }
    };
    // A device's stream has an order of its own, in which what is enqueued here stands already.
    const onDevice = this.access.writes.some((memory) => memory instanceof DeviceMemory);
    if (onDevice && !this.before && !this.busy) return counted(start([]));
    const first = this.before?.runAsync();
    first?.catch(() => {}); // told in its turn
    return first
      ? inOrder(this.access, () => first.then(() => start([]), failed))
      : inOrder(this.access, start, !onDevice);
  }
}
