import { AbortError } from './errors';

/** The callbacks of each signal. A signal gets one listener for all of them: Node warns of more than ten. */
const callbacks = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `callback` when the signal is aborted. Returns a function that ends this. */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (signal === undefined) return () => {};
  let set = callbacks.get(signal);
  if (set === undefined) {
    callbacks.set(signal, (set = new Set()));
    signal.addEventListener('abort', abort);
  }
  const added = set.add(callback);
  return () => {
    added.delete(callback);
    if (added.size > 0 || callbacks.get(signal) !== added) return;
    callbacks.delete(signal);
    signal.removeEventListener('abort', abort);
  };
}

function abort(this: AbortSignal): void {
  for (const callback of callbacks.get(this) ?? []) callback();
}

/** AbortError where the signal is aborted. */
export function assertGoesOn(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new AbortError(signal);
}

/**
 * Waits for one promise at a time, but no longer than until a signal is aborted. What the promise gives later is dropped.
 * Unlike Promise.race against one promise of the abort, it leaves nothing behind after each wait.
 */
export class Wait {
  readonly #forget: () => void;
  #reject: ((error: unknown) => void) | undefined;

  constructor(private readonly signal: AbortSignal | undefined) {
    this.#forget = onAbort(signal, () => this.#reject?.(new AbortError(signal!)));
  }

  /** Whether the promise of a wait that was ended has not settled yet, or the present one has not. */
  get isPending(): boolean {
    return this.#reject !== undefined;
  }

  /** The promise's value, or its rejection, or AbortError. */
  for<T>(promise: PromiseLike<T> | T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#reject = reject;
      if (this.signal?.aborted) reject(new AbortError(this.signal));
      Promise.resolve(promise).then(
        (value) => {
          this.#reject = undefined;
          resolve(value);
        },
        (error: Error) => {
          this.#reject = undefined;
          reject(error);
        },
      );
    });
  }

  /** Stops listening. */
  end(): void {
    this.#forget();
  }
}
