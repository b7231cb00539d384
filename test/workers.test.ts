import { execFile, type ExecFileException } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const root = join(__dirname, '..');

/** Runs JavaScript in a node process of its own, where `sde` is this package, in its worker threads, too. */
async function run(script: string, environment: NodeJS.ProcessEnv = {}): Promise<string> {
  const source = `
    const { Worker, isMainThread, parentPort } = require('node:worker_threads');
    const sde = require(${JSON.stringify(root)});
    const source = ${JSON.stringify(`const { parentPort } = require('node:worker_threads');`)};
    const inWorker = (body) => new Worker(
      source + 'const sde = require(${JSON.stringify(root)});(' + body + ')()', { eval: true });
    (async () => { ${script} })();`;
  const env = { ...process.env, ...environment };
  const ended = promisify(execFile)(process.execPath, ['-e', source], { env, timeout: 60_000 });
  const { stdout } = await ended.catch((error: ExecFileException & { stderr: string }) => {
    throw new Error(`code ${error.code}, signal ${error.signal}: ${error.stderr}`);
  });
  return stdout.trim();
}

jest.setTimeout(90_000);

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
  test.each([
    ['3', '3'],
    ['1', '1'],
  ])('SCORE_SDE_NUM_THREADS=%s', async (value, count) => {
    expect(await run('console.log(sde.getNumThreads())', { SCORE_SDE_NUM_THREADS: value })).toBe(count);
  });

  test.each(['0', '-1', 'many', '1.5', ''])('SCORE_SDE_NUM_THREADS=%j is passed over', async (value) => {
    const expected = await run('console.log(sde.getNumThreads())', { SCORE_SDE_NUM_THREADS: undefined });
    expect(await run('console.log(sde.getNumThreads())', { SCORE_SDE_NUM_THREADS: value })).toBe(expected);
  });
});
