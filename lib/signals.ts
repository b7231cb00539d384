/** What to call when a signal is aborted: one listener for each signal, however many wait for it. */
const waiting = new WeakMap<AbortSignal, Set<() => void>>();

/** Calls `stop` when the signal is aborted, until what it returns is called. */
export function onAbort(signal: AbortSignal | undefined, stop: () => void): () => void {
  if (signal === undefined) return () => {};
  let stops = waiting.get(signal);
  if (stops === undefined) {
    waiting.set(signal, (stops = new Set()));
    signal.addEventListener('abort', abort);
  }
  const set = stops.add(stop);
  return () => {
    set.delete(stop);
    if (set.size > 0 || waiting.get(signal) !== set) return;
    waiting.delete(signal);
    signal.removeEventListener('abort', abort);
  };
}

function abort(this: AbortSignal): void {
  for (const stop of waiting.get(this) ?? []) stop();
}
