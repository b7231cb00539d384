import { performance } from 'node:perf_hooks';
import { clearTimeout, setTimeout } from 'node:timers';
import { setImmediate } from 'node:timers/promises';

// Fake timers (of jest, vitest, sinon, node:test) replace the global timers and the functions of node:timers by ones that
// stand still. What is taken here, when the package is loaded, stays the real thing.

/** Resolves in the event loop's next turn. */
export const turn: () => Promise<void> = setImmediate;

const [set, clear] = [setTimeout, clearTimeout];

/** Calls `callback` after so many milliseconds, if the process still lives. Returns a function that ends this. */
export function later(milliseconds: number, callback: () => void): () => void {
  const timer = set(callback, milliseconds).unref();
  return () => clear(timer);
}

/** Milliseconds of wall time, from some time on. */
export const now: () => number = performance.now.bind(performance);
