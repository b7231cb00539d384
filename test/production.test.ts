import { execFile, type ExecFileException } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { root } from './support/paths';

// What a long-lived process meets: threads that come and go, children, memory that ends, and time.

interface Ended {
  stdout: string;
  stderr: string;
  code: number | string;
}

async function run(command: string, args: string[], env: NodeJS.ProcessEnv = {}): Promise<Ended> {
  const options = { cwd: root, env: { ...process.env, ...env }, timeout: 90_000 };
  return promisify(execFile)(command, args, options).then(
    (ended) => ({ ...ended, code: 0 }),
    ({ stdout, stderr, code, signal }: ExecFileException & Ended) => ({ stdout, stderr, code: signal ?? code! }),
  );
}

const prelude = `const sde = require(${JSON.stringify(root)});`;
const node = (script: string, flags: string[] = []) =>
  run(process.execPath, [...flags, '-e', `${prelude}(async () => { ${script} })()`]);

test('a short soak: mixed calls from 4 workers, aborts, disposals, terminations', async () => {
  const script = join(root, 'test/soak/run.js');
  const { stdout, stderr, code } = await run(process.execPath, [script, '--seconds', '10', '--calls', '100']);
  expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
  const { calls, aborted, terminated } = JSON.parse(stdout) as Record<string, number>;
  expect(calls).toBeGreaterThanOrEqual(100);
  expect(aborted).toBeGreaterThan(3);
  expect(terminated).toBeGreaterThan(5);
});

describe('memory that nobody needs any more', () => {
  const leaks: [string, string][] = [
    ['tensors', 'sde.Tensor.zeros([1024]).dispose(); sde.Tensor.zeros([512]);'],
    ['generators', "new sde.Generator(1, { engine: 'torch' }).randn([20]);"],
    ['schedulers', 'new sde.ScoreSdeVeScheduler({ numTrainTimesteps: 1000 }).setSigmas(500);'],
    ['steps', 's.stepPred(x, 1, x); s.stepCorrect(x, x, { generator: g });'],
    ['asynchronous steps', 'await s.stepPredAsync(x, 1, x); await g.randnAsync([100]);'],
    [
      'refused calls',
      "try { s.stepPred(x, 1, { data: new Int8Array(2), dims: [2] }); } catch {} try { g.randn(['x']); } catch {}",
    ],
    ['refused asynchronous calls', 'await s.stepCorrectAsync(x, null).catch(() => {});'],
    ['runs', 'await p.run({ seed: 1 }); await p.run({ generator: g });'],
    ['runs that were left', 'for await (const _ of p.steps({ seed: 1 })) break;'],
    ['runs that were aborted', 'await p.run({ signal: AbortSignal.abort() }).catch(() => {});'],
    ['runs that failed', 'await bad.run({ seed: 1 }).catch(() => {});'],
    ['pictures', 'await sde.toPng(images);'],
  ];
  test.each(leaks)('%s', async (_, body) => {
    const { stdout, stderr, code } = await node(
      `const s = new sde.ScoreSdeVeScheduler({ numTrainTimesteps: 3, sigmaMax: 5 });
       const [g, x, images] = [new sde.Generator(1), sde.Tensor.zeros([1, 4]), sde.Tensor.zeros([2, 1, 4, 4])];
       x.data.fill(1);
       const p = new sde.ScoreSdeVePipeline({ scheduler: s, model: (sample) => sample, sampleShape: [2] });
       const bad = new sde.ScoreSdeVePipeline({ scheduler: s, model: () => { throw new Error('x'); }, sampleShape: [2] });
       const held = async () => {
         // Node lets go of external memory in later turns of its loop.
         for (let i = 0; i < 6; i++) { gc(); await new Promise(setImmediate); }
         const { heapUsed, external, arrayBuffers } = process.memoryUsage();
         return heapUsed + external + arrayBuffers;
       };
       const rounds = async () => { for (let i = 0; i < 300; i++) { ${body} } };
       // A leak grows every time; caches and compiled code do not.
       const grown = [];
       let before = Infinity;
       for (let i = 0; i < 6; i++) { await rounds(); const now = await held(); grown.push(now - before); before = now; }
       console.log(Math.min(...grown.slice(1)) / 300);`,
      ['--expose-gc'],
    );
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    // The least that one round could lose is some hundred bytes; what is measured is less.
    expect(Number(stdout)).toBeLessThan(200);
  });
});

describe('memory that there is not', () => {
  // Of the build that is installed: a sanitizer's own memory has no room below such a limit.
  const limited = (script: string) =>
    run(
      'sh',
      ['-c', `ulimit -v 6000000; exec "$0" -e "$1"`, process.execPath, `${prelude}(async () => { ${script} })()`],
      {
        LD_PRELOAD: undefined,
        SCORE_SDE_PREBUILD: undefined,
      },
    );
  const given = `const [s, generator] = [new sde.ScoreSdeVeScheduler(), new sde.Generator(1)];
    const half = { type: 'float16', data: new Uint16Array(2 ** 28), dims: [1, 1, 2 ** 14, 2 ** 14] };
    const held = [];
    const fill = () => { try { for (;;) held.push(sde.Tensor.empty([2 ** 25])); } catch { return true; } };`;
  const codeOf = (call: string) => `await (async () => ${call})().then(() => 'done', (error) => error.code)`;

  test.each([
    ['empty tensors', '[0, 1].map(() => sde.Tensor.empty([1000, 1000, 1000]))'],
    ['a draw', 'sde.Tensor.empty([500, 1000, 1000]) && new sde.Generator(1).randn([1000, 1000, 1000])'],
    ['a step', 'sde.Tensor.empty([1000, 1000, 1000]) && s.stepPredAsync(half, 1, half, { generator })'],
    ['a picture', 'fill() && sde.toPng(half)'],
  ])('%s: ERR_MEMORY, and the process goes on', async (_, call) => {
    const { stdout, stderr, code } = await limited(
      `${given} console.log(${codeOf(call)}, sde.Tensor.zeros([1000]).size)`,
    );
    expect({ stdout: stdout.trim(), stderr, code }).toEqual({ stdout: 'ERR_MEMORY 1000', stderr: '', code: 0 });
  });
});

describe('processes', () => {
  test('a fork loads the addon anew, whatever its parent does', async () => {
    const { stdout, stderr, code } = await node(`
      const { fork } = require('node:child_process');
      const { writeFileSync } = require('node:fs');
      const file = require('node:path').join(require('node:os').tmpdir(), 'score-sde-fork-' + process.pid + '.js');
      writeFileSync(file, ${JSON.stringify(`${prelude} new sde.Generator(3).randnAsync([3, 256, 256]).then((t) => process.send(t.data[9]));`)});
      const loop = (async () => { for (let i = 0; i < 40; i++) await new sde.Generator(i).randnAsync([3, 256, 256]); })();
      const values = await Promise.all([1, 2, 3].map(() => new Promise((resolve) => fork(file).on('message', resolve))));
      await loop;
      require('node:fs').unlinkSync(file);
      console.log(new Set([...values, new sde.Generator(3).randn([3, 256, 256]).data[9]]).size);`);
    expect({ stdout: stdout.trim(), stderr, code }).toEqual({ stdout: '1', stderr: '', code: 0 });
  });

  test.each([
    ['process.exit in a worker', 'process.exit(0)'],
    ['an error in a worker', "throw new Error('meant')"],
    ['a worker that ends with calls under way', ''],
  ])('%s, with calls under way, leaves the rest working', async (_, end) => {
    const { stdout, stderr, code } = await node(`
      const { Worker } = require('node:worker_threads');
      const body = ${JSON.stringify(prelude)} + 'for (let i = 0; i < 8; i++) new sde.Generator(i).randnAsync([3, 256, 256]);' +
        'setImmediate(() => {' + ${JSON.stringify(end)} + '});';
      for (let round = 0; round < 5; round++)
        await Promise.all([1, 2, 3].map(() => new Promise((resolve) =>
          new Worker(body, { eval: true }).on('error', () => {}).on('exit', resolve))));
      console.log((await new sde.Generator(1).randnAsync([4])).size);`);
    expect({ stdout: stdout.trim(), stderr, code }).toEqual({ stdout: '4', stderr: '', code: 0 });
  });

  test.each(['SIGTERM', 'SIGINT'])('%s ends a process whose calls are under way at once', async (signal) => {
    const { code } = await node(`
      setInterval(() => {}, 1000);
      for (let i = 0; i < 20; i++) void new sde.Generator(i).randnAsync([3, 512, 512]);
      process.kill(process.pid, '${signal}');`);
    expect(code).toBe(signal);
  });

  test('an uncaught error ends it with code 1, not with a crash', async () => {
    const { code, stderr } = await node(`
      for (let i = 0; i < 8; i++) void new sde.Generator(i).randnAsync([3, 512, 512]);
      setImmediate(() => { throw new Error('meant'); });`);
    expect(code).toBe(1);
    expect(stderr).toContain('meant');
  });
});
