'use strict';
// npm run soak [-- --seconds 1800 --calls 1 --workers 4]: mixed calls from worker threads, which are terminated and started
// anew while they work, for so long and so many at least. Prints what was done, and ends with code 1 where a result was
// wrong or memory grew.
const { join } = require('node:path');
const { parseArgs } = require('node:util');
const { Worker } = require('node:worker_threads');
const { expectations } = require('./worker');

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '1800' },
    calls: { type: 'string', default: '1' },
    workers: { type: 'string', default: '4' },
  },
});
const [seconds, least, threads] = [Number(values.seconds), Number(values.calls), Number(values.workers)];
const MiB = 2 ** 20;
const median = (numbers) => [...numbers].sort((a, b) => a - b)[numbers.length >> 1];

async function main() {
  const soak = await expectations();
  const errors = [];
  const totals = { calls: 0, aborted: 0, terminated: 0 };
  const start = () => {
    const worker = new Worker(join(__dirname, 'worker.js'), { workerData: { soak } });
    let last = { calls: 0, aborted: 0 };
    worker.on('message', ({ error, calls, aborted }) => {
      if (error) return errors.push(error);
      totals.calls += calls - last.calls;
      totals.aborted += aborted - last.aborted;
      last = { calls, aborted };
    });
    worker.on('error', (error) => errors.push(error.stack));
    return worker;
  };
  const workers = Array.from({ length: threads }, start);

  const rss = [];
  const end = Date.now() + 1000 * seconds;
  // Every worker lives for about as many periods as there are workers.
  const period = Math.min(Math.max(seconds / 10, 1), 10);
  // Where the calls do not come, it ends all the same.
  const latest = Date.now() + 5000 * seconds;
  const goesOn = () => Date.now() < end || (totals.calls < least && Date.now() < latest);
  for (let i = 0; goesOn() && errors.length === 0; i++) {
    for (let k = 0; k < 10; k++) {
      await new Promise((resolve) => setTimeout(resolve, 100 * period));
      rss.push(process.memoryUsage().rss / MiB);
    }
    await workers[i % threads].terminate();
    totals.terminated++;
    workers[i % threads] = start();
  }
  await Promise.all(workers.map((worker) => worker.terminate()));

  // The heaps of V8 take a while to find their size.
  const third = Math.floor(rss.length / 3);
  const memory = { middle: Math.round(median(rss.slice(third, -third))), last: Math.round(median(rss.slice(-third))) };
  const grew = memory.last > 1.1 * memory.middle + 32;
  process.stdout.write(`${JSON.stringify({ seconds, threads, ...totals, rssMiB: memory, errors })}\n`);
  process.exitCode = errors.length > 0 || grew || !(totals.calls >= least) ? 1 : 0;
}

void main();
