import { once } from 'node:events';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';

/** The times of a call, in microseconds. */
export interface Timing {
  median: number;
  p10: number;
  p90: number;
}

const warmUps = 3;
const leastRuns = 11;

function timing(times: number[]): Timing {
  const sorted = times.sort((a, b) => a - b);
  const at = (share: number) => 1000 * sorted[Math.floor(share * (sorted.length - 1))]!;
  return { median: at(0.5), p10: at(0.1), p90: at(0.9) };
}

/** Times calls of `run` for some seconds, after a few untimed ones. */
export function timeSync(run: () => unknown, seconds: number): Timing {
  for (let i = 0; i < warmUps; i++) run();
  const times: number[] = [];
  for (let now = performance.now(), end = now + 1000 * seconds; now < end || times.length < leastRuns;) {
    run();
    const then = performance.now();
    times.push(then - now);
    now = then;
  }
  return timing(times);
}

/** As timeSync, for a call that is awaited before the next. */
export async function timeAsync(run: () => Promise<unknown>, seconds: number): Promise<Timing> {
  for (let i = 0; i < warmUps; i++) await run();
  const times: number[] = [];
  for (let now = performance.now(), end = now + 1000 * seconds; now < end || times.length < leastRuns;) {
    await run();
    const then = performance.now();
    times.push(then - now);
    now = then;
  }
  return timing(times);
}

/** For how long the event loop was blocked, in milliseconds: the longest time, and the 99th percentile. */
export interface Held {
  longest: number;
  p99: number;
}

/** For how long the event loop was blocked during some work. */
export async function heldDuring(work: () => Promise<unknown>): Promise<Held> {
  const monitor = monitorEventLoopDelay({ resolution: 1 });
  monitor.enable();
  await work();
  monitor.disable();
  // The monitor's times include its period of 1 ms.
  return { longest: monitor.max / 1e6 - 1, p99: monitor.percentile(99) / 1e6 - 1 };
}

/** The median, the upper one of two. */
export function median(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1]!;
}

/** For how long the event loop is blocked while `threads` threads compute and this package does nothing. */
export async function heldBeside(threads: number, seconds: number): Promise<Held> {
  const workers = Array.from({ length: threads }, () => new Worker('for (;;);', { eval: true }));
  await Promise.all(workers.map((worker) => once(worker, 'online')));
  const held = await heldDuring(() => setTimeout(1000 * seconds));
  await Promise.all(workers.map((worker) => worker.terminate()));
  return held;
}
