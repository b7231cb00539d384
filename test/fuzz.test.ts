import fc from 'fast-check';
import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Generator, ScoreSdeError, ScoreSdeVePipeline, ScoreSdeVeScheduler } from '../lib';
import { formatConfig, parseConfig } from '../lib/scheduler/config';
import { pipelineFolder, removeFolders, temporaryFolder } from './support/folders';
import { scoreGraph } from './support/onnx';
import { root } from './support/paths';

// Bytes that nobody meant: no crash, no hang, and never an error that is not this package's.
beforeAll(() => void jest.spyOn(process, 'emitWarning').mockImplementation(() => {}));
afterAll(async () => {
  jest.restoreAllMocks();
  await removeFolders();
});

/** What `run` gives, or undefined where it fails as it should. */
async function own<T>(run: () => T): Promise<Awaited<T> | undefined> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof ScoreSdeError) return undefined;
    throw error;
  }
}

/** Bytes with some changed, cut out, doubled or put in. */
function mutations(bytes: Uint8Array): fc.Arbitrary<Uint8Array> {
  const place = fc.integer({ min: 0, max: bytes.length - 1 });
  const part = fc.tuple(place, fc.integer({ min: 0, max: 16 }));
  const change = fc.oneof(
    fc.tuple(fc.constant('set' as const), place, fc.integer({ min: 0, max: 255 })),
    fc.tuple(fc.constant('flip' as const), place, fc.integer({ min: 0, max: 7 })),
    fc.tuple(fc.constant('cut' as const), part, fc.constant(0)),
    fc.tuple(fc.constant('double' as const), part, fc.constant(0)),
    fc.tuple(fc.constant('insert' as const), place, fc.uint8Array({ maxLength: 8 })),
  );
  return fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    let result = [...bytes];
    for (const [kind, where, what] of changes) {
      const [at, length] = Array.isArray(where) ? where : [where, 0];
      if (kind === 'set') result[at] = what;
      else if (kind === 'flip') result[at] = (result[at] ?? 0) ^ (1 << what);
      else if (kind === 'cut') result.splice(at, length);
      else if (kind === 'double') result.splice(at, 0, ...result.slice(at, at + length));
      else result = [...result.slice(0, at), ...what, ...result.slice(at)];
    }
    return Uint8Array.from(result, (v) => v ?? 0);
  });
}
const textBytes = (value: object) => new TextEncoder().encode(JSON.stringify(value, null, 2));

/** Files: anything at all, JSON of anything, and the right one with mistakes. */
const filesLike = (value: object) =>
  fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.json().map((text) => new TextEncoder().encode(text)),
    fc.dictionary(fc.constantFrom(...Object.keys(value)), fc.jsonValue()).map(textBytes),
    mutations(textBytes(value)),
  );

const config = { _class_name: 'ScoreSdeVeScheduler', num_train_timesteps: 4, snr: 0.15, sigma_min: 0.01, sigma_max: 5 };

test('the text of a scheduler_config.json', async () => {
  await fc.assert(
    fc.asyncProperty(filesLike(config), async (bytes) => {
      const stored = await own(() => parseConfig(Buffer.from(bytes).toString('utf8')));
      // What was understood is written as what will be understood.
      if (stored) expect(parseConfig(formatConfig(stored)).config).toEqual(stored.config);
    }),
    { numRuns: 2000 },
  );
});

test.each([
  ['nested 100,000 deep', '['.repeat(1e5)],
  ['an object nested so', '{"a":'.repeat(1e5)],
  ['a number of 500,000 digits', `{"snr": ${'9'.repeat(5e5)}}`],
  ['an exponent of 500,000 digits', `{"snr": 1e${'9'.repeat(5e5)}}`],
  ['100,000 keys', `{${Array.from({ length: 1e5 }, (_, i) => `"k${i}":0`).join()}}`],
  ['a string of escapes', `{"a": "${'\\"'.repeat(4e5)}`],
  ['a key __proto__', '{"__proto__": {"snr": 5}}'],
])('a config of %s: soon done', async (_, text) => {
  const before = Date.now();
  await own(() => ScoreSdeVeScheduler.fromConfig(text));
  expect(Date.now() - before).toBeLessThan(5000);
  expect(({} as { snr?: number }).snr).toBeUndefined();
});

test.each([
  ['model_index.json', { _class_name: 'ScoreSdeVePipeline', scheduler: ['diffusers', 'ScoreSdeVeScheduler'] }],
  ['unet/config.json', { in_channels: 1, sample_size: [2, 2], default_inputs: { class_labels: 3 } }],
  ['scheduler/scheduler_config.json', config],
])('the bytes of a %s', async (path, value) => {
  const folder = await pipelineFolder();
  await mkdir(join(folder, 'unet'), { recursive: true });
  await fc.assert(
    fc.asyncProperty(filesLike(value), async (bytes) => {
      await writeFile(join(folder, path), bytes);
      const pipeline = await own(() => ScoreSdeVePipeline.fromPretrained(folder));
      await pipeline?.dispose();
    }),
    { numRuns: 300 },
  );
});

test('the bytes of a torch state: refused, or a state whose draws repeat', async () => {
  const generator = new Generator(5, { engine: 'torch' });
  generator.randn([13]);
  const sound = generator.getState() as Uint8Array;
  const header = fc
    .tuple(fc.integer({ min: 0, max: 31 }), fc.integer({ min: 0, max: 255 }))
    .map(([at, value]) => Uint8Array.from(sound, (byte, i) => (i === at || i === 5056 - 1 - at ? value : byte)));
  const noise = fc.uint8Array({ minLength: 5056, maxLength: 5056 });
  await fc.assert(
    fc.asyncProperty(fc.oneof(header, noise, mutations(sound), fc.uint8Array()), async (bytes) => {
      const set = () => new Generator(0, { engine: 'torch' }).setState(bytes);
      if ((await own(set)) === undefined) return;
      for (const count of [1, 5, 16, 700]) expect(set().randn([count]).data).toEqual(set().randn([count]).data);
    }),
    { numRuns: 300 },
  );
});

test('the bytes of a network', async () => {
  // onnxruntime reads them: in a process of its own, which must live and answer for each.
  const folder = await temporaryFolder();
  const graphs = fc.sample(mutations(scoreGraph()), { numRuns: 150, seed: 20260101 });
  const folders = await Promise.all(graphs.map((bytes) => pipelineFolder({ 'unet/model.onnx': bytes })));
  const script = `
    const { ScoreSdeVePipeline, ScoreSdeError } = require(${JSON.stringify(root)});
    (async () => {
      let [run, refused] = [0, 0];
      for (const folder of ${JSON.stringify(folders)}) {
        process.stdout.write(folder + '\\n');
        try {
          const pipeline = await ScoreSdeVePipeline.fromPretrained(folder);
          await pipeline.run({ batchSize: 2, seed: 1 }).finally(() => pipeline.dispose());
          run++;
        } catch (error) {
          if (!(error instanceof ScoreSdeError)) throw error;
          refused++;
        }
      }
      process.stdout.write(run + ' ' + refused);
    })();`;
  const child = spawn(process.execPath, ['-e', script], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 90_000,
  });
  let [said, failed] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (said += data.toString()));
  child.stderr.on('data', (data: Buffer) => (failed += data.toString()));
  const ended = await new Promise((resolve) => child.on('close', (code, signal) => resolve([code, signal])));
  const last = said.split('\n').at(-1)!;
  expect([ended, failed]).toEqual([[0, null], '']);
  const [run, refused] = last.split(' ').map(Number);
  expect(run! + refused!).toBe(graphs.length);
  expect(refused).toBeGreaterThan(graphs.length / 4);
});
