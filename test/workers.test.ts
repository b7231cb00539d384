import { existsSync, readFileSync } from 'node:fs';
import { outputs, run } from './support/child';

describe('worker threads', () => {
  test('compute the same at once, in one pool', async () => {
    const said = await run(`
      const body = async () => {
        const draw = () => new sde.Generator(7).randnAsync([3, 256, 256]);
        const [a, b] = await Promise.all([draw(), draw()]);
        const sum = (t) => t.data.reduce((x, y) => x + y, 0);
        parentPort.postMessage([sum(a), sum(b), sde.getNumThreads()]);
      };
      const results = await Promise.all([1, 2, 3, 4].map(() =>
        new Promise((resolve) => inWorker(body.toString()).on('message', resolve))));
      const here = (await new sde.Generator(7).randnAsync([3, 256, 256])).data.reduce((x, y) => x + y, 0);
      console.log(new Set(results.flat().concat(here, here, sde.getNumThreads())).size);`);
    expect(said).toBe('2'); // one sum, one number of threads
  });

  test('may be terminated while their calls are under way', async () => {
    const said = await run(`
      const body = () => {
        const loop = async (out) => { for (;;) await g.randnAsync([3, 256, 256], { out }); };
        const g = new sde.Generator(1);
        [0, 1, 2].map(() => sde.Tensor.empty([3, 256, 256])).forEach(loop);
        [0, 1].map(() => ({ data: new Float32Array(3 * 2 ** 16), dims: [3, 256, 256] })).forEach(loop);
      };
      for (let round = 0; round < 8; round++) {
        const workers = [0, 1, 2].map(() => inWorker(body.toString()));
        await new Promise((resolve) => setTimeout(resolve, 80 + 10 * round));
        await Promise.all(workers.map((worker) => worker.terminate()));
      }
      console.log((await new sde.Generator(1).randnAsync([4])).size);`);
    expect(said).toBe('4');
  });
});

test('a worker thread ends soon, however many calls wait for one another', async () => {
  // They would take minutes, and a child of this test has one.
  const said = await run(`
    const body = () => {
      const g = new sde.Generator(1, { engine: 'torch' });
      const out = sde.Tensor.empty([8, 2 ** 20]);
      for (let i = 0; i < 16000; i++) g.randnAsync(out.dims, { out });
      parentPort.postMessage('made');
    };
    const worker = inWorker(body.toString());
    await new Promise((resolve) => worker.once('message', resolve));
    await worker.terminate();
    console.log((await new sde.Generator(1).randnAsync([4])).size);`);
  expect(said).toBe('4');
});

describe('the end of the process', () => {
  test('waits for calls that nobody awaits', async () => {
    const said = await run(`
      new sde.Generator(1).randnAsync([3, 512, 512]).then((t) => console.log(t.size));`);
    expect(said).toBe(String(3 * 512 * 512));
  });

  test('does not wait where process.exit says so', async () => {
    const said = await run(`
      for (let i = 0; i < 8; i++) void new sde.Generator(i).randnAsync([3, 512, 512]);
      console.log('out');
      process.exit(0);`);
    expect(said).toBe('out');
  });
});

describe('threads', () => {
  const countThreads = "require('node:fs').readdirSync('/proc/self/task').length";
  const linux = process.platform === 'linux' ? test : test.skip;

  linux.each([2, 3])('an asynchronous call works on %s', async (count) => {
    const said = await run(
      `const before = ${countThreads};
       await new sde.Generator(1).randnAsync([3, 512, 512]);
       console.log(${countThreads} - before);`,
      { SCORE_SDE_NUM_THREADS: String(count) },
    );
    expect(said).toBe(String(count));
  });

  linux('more of them take what waits already', async () => {
    const said = await run(
      `const before = ${countThreads};
       const calls = [1, 2, 3, 4].map((seed) => new sde.Generator(seed, { engine: 'torch' }).randnAsync([1 << 22]));
       sde.setNumThreads(4);
       await Promise.all(calls);
       console.log(${countThreads} - before);`,
      { SCORE_SDE_NUM_THREADS: '1' },
    );
    expect(said).toBe('4');
  });

  // What the kernel says of a thread's time slice, where it says it and lets it be set: Linux 6.12.
  const slices = existsSync('/proc/self/sched') && /^se\.slice/m.test(readFileSync('/proc/self/sched', 'utf8'));
  (slices ? test : test.skip)('have the longest time slices, so that the event loop goes first', async () => {
    const said = await run(
      `const { readdirSync, readFileSync } = require('node:fs');
       const threads = () => readdirSync('/proc/self/task');
       await Promise.all([1, 2, 3, 4].map(() => require('node:fs/promises').stat('.'))); // libuv's threads
       const before = threads();
       await new sde.Generator(1).randnAsync([3, 512, 512]);
       const model = await sde.OnnxModel.load('models/digits/unet/model.onnx', { intraOpThreads: 3 });
       const sliceOf = (thread) => /^se\\.slice\\s*:\\s*(\\d+)/m.exec(readFileSync('/proc/self/task/' + thread + '/sched', 'utf8'))[1];
       const added = threads().filter((thread) => !before.includes(thread));
       console.log(added.length > 4, added.filter((thread) => sliceOf(thread) !== '100000000').length);
       await model.dispose();`,
      { SCORE_SDE_NUM_THREADS: '2' },
    );
    expect(said).toBe('true 0');
  });

  test.each([
    ['3', '3'],
    ['1', '1'],
  ])('SCORE_SDE_NUM_THREADS=%s', async (value, count) => {
    expect(await run('console.log(sde.getNumThreads())', { SCORE_SDE_NUM_THREADS: value })).toBe(count);
  });

  test.each(['0', '-1', 'many', '1.5', '', ' '])('SCORE_SDE_NUM_THREADS=%j is passed over', async (value) => {
    const expected = await run('console.log(sde.getNumThreads())', { SCORE_SDE_NUM_THREADS: undefined });
    const said = await outputs('console.log(sde.getNumThreads())', { SCORE_SDE_NUM_THREADS: value });
    expect(said.stdout.trim()).toBe(expected);
    const warning = `SCORE_SDE_NUM_THREADS must be an integer from 1 to 1024, got ${JSON.stringify(value)}`;
    if (value.trim()) expect(said.stderr).toContain(warning);
    else expect(said.stderr).not.toContain('SCORE_SDE_NUM_THREADS');
  });
});
