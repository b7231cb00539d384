import { now, turn } from '../../clock';
import { assertContext, handOver, type ModelContext, type ModelInputs, type ScoreModel } from '../../models/model';
import type { NonFinite } from '../../native/abi';
import { native } from '../../native/addon';
import type { Call } from '../../native/call';
import { isCrowded } from '../../native/order';
import type { Tensor, TensorLike } from '../../tensor/tensor';
import { viewOf } from '../../tensor/views';
import type { Executor, Handed } from './executor';

/** Elements up to which a kernel takes less than some 50 us, which is what the event loop may be held for. */
const syncElements =
  { 'x86-64-v4': 2 ** 15, 'x86-64-v3': 2 ** 14, 'x86-64': 2 ** 7 }[native.instructionSet()] ?? 2 ** 12;

/** Calls of the model and updates that may be under way, at most. */
const mostUnderWay = 16;
/**
 * Milliseconds that they take together, about. A run that is saved waits for them; an event loop that is busy for less does not
 * hold a run up.
 */
const msUnderWay = 20;

const over = Promise.resolve();

/**
 * The CPU. A model that keeps the order of its memory (handOver) is not waited for: the addon's threads go from its call
 * to the update and on to the next call, some steps ahead of the event loop. Any other model is awaited.
 */
export class CpuExecutor implements Executor {
  readonly device = 'cpu';
  /** Settle without a rejection. */
  readonly #underWay: Promise<void>[] = [];
  /** What a call and its update took lately, in milliseconds. */
  #took = msUnderWay;
  /** The first thing that went wrong in work that was not awaited: what came after it worked on what it left. */
  #failure: { readonly error: unknown } | undefined;

  modelDevice(): string {
    return this.device;
  }

  async call(
    model: ScoreModel,
    sample: Tensor<'float32'>,
    sigma: Tensor<'float32'>,
    inputs: ModelInputs,
    context: ModelContext,
  ): Promise<TensorLike> {
    if (!model[handOver] || isCrowded()) return model(viewOf(sample), sigma, inputs, context);
    assertContext(context);
    const { score, done } = model[handOver](viewOf(sample), sigma, inputs, context);
    this.#track(done);
    return score;
  }

  mark(): readonly [] {
    return [];
  }

  async update(call: Call<NonFinite>, elements: number, { fail }: Handed): Promise<{ done: Promise<void> }> {
    const report = (rows: NonFinite): void => {
      if (rows !== null) fail(rows);
    };
    if (this.#underWay.length > 0) {
      const done = call.runAsync().then(report);
      this.#track(done);
      return { done };
    }
    report(await (elements <= syncElements && !call.busy ? call.run() : call.runAsync()));
    return { done: over };
  }

  async work(call: Call<unknown>): Promise<void> {
    if (this.#underWay.length > 0) this.#track(call.runAsync().then(() => undefined));
    else await call.runAsync();
  }

  async pace(): Promise<void> {
    // A turn of the event loop: neither kernels on this thread nor the ends of those on others, which Node takes up to a
    // thousand at a time, keep it from the rest of the process.
    await turn();
    const steps = Math.max(1, Math.ceil(msUnderWay / this.#took));
    const most = isCrowded() ? 0 : Math.min(2 * steps, mostUnderWay);
    const [waits, before] = [this.#underWay.length > most, now()];
    await this.#downTo(most);
    if (waits) this.#took += (now() - before - this.#took) / 4;
  }

  settle(): Promise<void> {
    return this.#downTo(0);
  }

  async renew(): Promise<void> {} // each update reports for itself

  async end(): Promise<void> {
    await Promise.all(this.#underWay.splice(0));
  }

  #track(work: Promise<void>): void {
    this.#underWay.push(work.catch((error: unknown) => void (this.#failure ??= { error })));
  }

  /** Waits until so many are under way at most. */
  async #downTo(count: number): Promise<void> {
    for (; this.#underWay.length > count; this.#underWay.shift()) await this.#underWay[0];
    if (this.#failure) throw this.#failure.error;
  }
}
