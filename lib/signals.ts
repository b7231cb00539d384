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
