/** Times of one call, in microseconds. */
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

/** Calls `run` for some seconds, after a few calls that do not count. */
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

/** As timeSync, each call awaited before the next. */
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
