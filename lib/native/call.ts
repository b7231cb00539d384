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

export interface KernelCallOptions {
  /** What the public method is called, for messages; the kernel's name unless given. */
  method?: string | undefined;
  /** What must be done first, such as a draw on the host for work on a device. */
  before?: Call<unknown> | undefined;
  /** What can be done once the call is enqueued, or has failed. */
  after?: (() => void) | undefined;
}

const noOptions: KernelCallOptions = {};

/** A call of a kernel. */
export class KernelCall<K extends Kernel> implements Call<ReturnType<Native[K]>> {
  /**
   * @param args Takes the noise from its generators and gives the native arguments. A step's records may lie in memory
   *   that the next call uses, too
   * @param access The memory that the call reads and writes
   */
  constructor(
    private readonly kernel: K,
    private readonly args: () => Parameters<Native[K]>,
    private readonly access: Access,
    private readonly options = noOptions,
  ) {}

  get busy(): boolean {
    return isBusy(this.access) || (this.options.before?.busy ?? false);
  }

  run(): ReturnType<Native[K]> {
    const { method = this.kernel, before, after } = this.options;
    try {
      assertIdle(this.access, method, true);
      before?.run();
      return functions[this.kernel]!(...this.args()) as ReturnType<Native[K]>;
    } finally {
      after?.();
    }
  }

  async runAsync(): Promise<ReturnType<Native[K]>> {
    const { method = this.kernel, before, after } = this.options;
    const failed = (error: unknown): never => {
      after?.();
      throw error;
    };
    const twin = functions[`${this.kernel}Async`]!;
    let args: unknown[];
    try {
      assertRoom(`${method}Async`);
      args = this.args();
    } catch (error) {
      return failed(error);
    }
    let isStarted = false;
    const start = (order: Order) => {
      isStarted = true;
      try {
        return twin(order, ...args) as Promise<ReturnType<Native[K]>>;
      } finally {
        after?.();
      }
    };
    // A device's stream has an order of its own, in which what is enqueued here stands already.
    const onDevice = this.access.writes.some((memory) => memory instanceof DeviceMemory);
    if (onDevice && !before && !this.busy) return counted(start([]));
    const first = before?.runAsync();
    first?.catch(() => {}); // told in its turn
    const result = first
      ? inOrder(this.access, () => first.then(() => start([]), failed))
      : inOrder(this.access, start, !onDevice);
    // Until the addon has copied them, a call that waits keeps its records in memory of its own.
    if (!isStarted && this.kernel === 'step') args = withOwnRecords(args);
    return result;
  }
}

function withOwnRecords([rows, cols, records, ...rest]: unknown[]): unknown[] {
  const own = (given: unknown): unknown => (given instanceof Float32Array ? given.slice() : given);
  return [rows, cols, Array.isArray(records) ? records.map(own) : own(records), ...rest];
}
