import { native, type Native } from './index';
import { assertIdle, assertRoom, inOrder, type Access } from './order';

/** The operations that run on the caller's thread, or off the event loop in their ...Async twins. */
export type Kernel = {
  [K in keyof Native]: `${K}Async` extends keyof Native ? K : never;
}[keyof Native];

const functions = native as unknown as Record<string, (...args: unknown[]) => unknown>;

/** A call of a kernel whose arguments are checked: nothing was drawn or written yet. To be run once. */
export class KernelCall<K extends Kernel> {
  /**
   * @param args Takes the noise from its generators and gives the native arguments
   * @param access The memory that the call reads and writes
   */
  constructor(
    private readonly kernel: K,
    private readonly args: () => Parameters<Native[K]>,
    private readonly access: Access,
  ) {}

  /** On this thread; ERR_BUSY where asynchronous work on the same memory is under way. */
  run(): ReturnType<Native[K]> {
    assertIdle(this.access, this.kernel, true);
    return functions[this.kernel]!(...this.args()) as ReturnType<Native[K]>;
  }

  /** Off the event loop, after whatever uses the same memory. The draws are taken now. ERR_BUSY where too much waits already. */
  async runAsync(): Promise<ReturnType<Native[K]>> {
    assertRoom(`${this.kernel}Async`);
    const args = this.args();
    const twin = functions[`${this.kernel}Async`]!;
    return inOrder(this.access, () => twin(...args) as Promise<ReturnType<Native[K]>>);
  }
}
