import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  fromNetwork,
  Generator,
  OnnxModel,
  Tensor,
  type ErrorCode,
  type LoadProgress,
  type OnnxModelOptions,
} from '../lib';
import { handOver } from '../lib/models/model';
import { folderOf } from '../lib/sampling/pretrained';
import { removeFolders, temporaryFolder } from './support/folders';
import { bitEqual } from './support/golden';
import { loader } from './support/loading';
import { formula } from './support/models';
import { externalGraph, port, scoreGraph } from './support/onnx';
import { rejection, sentence } from './support/refusals';

const digits = join(folderOf('digits'), 'unet', 'model.onnx');
const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const shape = [1, 2, 2];
const x = new Generator(1).randn([5, ...shape]);
const lin = formula({ name: 'lin' });

const load = loader({ device: 'cpu' });
afterAll(removeFolders);

test.each<[string, OnnxModelOptions]>([
  ['without a plan of memory', { memoryPattern: false }],
  ['without kept memory', { cpuArena: false }],
  ['with operators at once', { executionMode: 'parallel', interOpThreads: 2 }],
  ['with errors told', { logSeverityLevel: 3 }],
])('gives the same %s', async (_, options) => {
  const model = await load(scoreGraph(), options);
  bitEqual(floats(await model.run(x, 2)), lin(floats(x), 2));
});

test('a free size can be fixed by its name', async () => {
  const free = scoreGraph({ inputs: [port('sample', 'float32', ['batch', 1, 'height', 2]), port('timestep')] });
  expect((await load(free)).sampleShape).toEqual([1, 'height', 2]);
  expect((await load(free, { freeDimensionOverrides: { height: 6 } })).sampleShape).toEqual([1, 6, 2]);
});

test('a size that the network does not leave free is refused with those that it does', async () => {
  const free = scoreGraph({ inputs: [port('sample', 'float32', ['batch', 1, 'height', 2]), port('timestep')] });
  const error = await rejection(() => load(free, { freeDimensionOverrides: { heigth: 6 } }));
  sentence(error, 'ERR_CONFIG', /freeDimensionOverrides\["heigth"\]: .* "batch", "height"$/);
});

test.each(['optimizedModelFilePath', 'profileFilePrefix'])(
  '%s in a folder that is not there is refused',
  async (name) => {
    const file = join(await temporaryFolder(), 'none', 'x');
    sentence(
      await rejection(() => load(scoreGraph(), { [name]: file })),
      'ERR_IO',
      new RegExp(`^${name}: .*no folder`),
    );
  },
);

test('what is no ONNX is told with the page on exporting', async () => {
  const error = await rejection(() => load(new TextEncoder().encode('no network, but some text')));
  sentence(error, 'ERR_MODEL', /cannot be loaded: .*protobuf.*exporting\.md/);
});

test('ONNX Runtime writes its graph and its times where they are asked for', async () => {
  const folder = await temporaryFolder();
  const [optimizedModelFilePath, profileFilePrefix] = [join(folder, 'optimized.onnx'), join(folder, 'times')];
  const model = await OnnxModel.load(scoreGraph(), { device: 'cpu', optimizedModelFilePath, profileFilePrefix });
  await model.run(x, 2);
  await model.dispose();
  const files = await readdir(folder);
  expect(files).toContain('optimized.onnx');
  const times = files.filter((name) => name.startsWith('times'));
  expect(times).toHaveLength(1);
  expect(JSON.parse(await readFile(join(folder, times[0]!), 'utf8'))).toBeInstanceOf(Array);
});

test('bytes that are detached are refused, before and while it loads', async () => {
  const detached = () => {
    const bytes = scoreGraph().slice();
    structuredClone(bytes, { transfer: [bytes.buffer] });
    return bytes;
  };
  sentence(await rejection(() => load(detached())), 'ERR_DISPOSED');
  sentence(await rejection(() => load(scoreGraph(), { externalData: { x: detached() } })), 'ERR_DISPOSED');
  const bytes = scoreGraph().slice();
  const loading = load(bytes);
  structuredClone(bytes, { transfer: [bytes.buffer] });
  sentence(await rejection(() => loading), 'ERR_DISPOSED');
});

test('files outside of the folder, and what is no file, are not read', async () => {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'secret'), 'x'.repeat(1000));
  await mkdir(join(folder, 'model'));
  for (const location of ['../secret', '..', '.', '/dev/zero', join(folder, 'secret')]) {
    const graph = externalGraph(location, shape);
    const file = join(folder, 'model', 'model.onnx');
    await writeFile(file, graph);
    const told: LoadProgress[] = [];
    const error = await rejection(() => load(file, { onProgress: (progress) => told.push(progress) }));
    expect(error.code).toBe('ERR_MODEL');
    // What is no file in the folder is told before anything is read.
    expect(told).toEqual(
      location === '.'
        ? []
        : [
            { loaded: 0, total: graph.length },
            { loaded: graph.length, total: graph.length },
          ],
    );
  }
});

test('what a program added to all objects is no setting', async () => {
  Object.defineProperty(Object.prototype, 'helper', { value: () => {}, enumerable: true, configurable: true });
  try {
    bitEqual(floats(await (await load(scoreGraph())).run(x, 2)), lin(floats(x), 2));
  } finally {
    delete (Object.prototype as { helper?: unknown }).helper;
  }
});

test('a probeCache that cannot be written is told, and the model is there', async () => {
  const emit = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const file = join(await temporaryFolder(), 'file');
  await writeFile(file, '');
  const model = await load(scoreGraph(), { probeCache: join(file, 'probe.json'), interOpThreads: 4 });
  expect(emit.mock.calls).toEqual([[expect.stringMatching(/^probeCache: cannot write/), 'ScoreSdeWarning']]);
  emit.mockRestore();
  bitEqual(floats(await model.run(x, 2)), lin(floats(x), 2));
});

test('what onProgress throws is what the load rejects with', async () => {
  const reason = new Error('the bar is broken');
  const file = join(await temporaryFolder(), 'model.onnx');
  await writeFile(file, externalGraph('weights.bin', shape));
  await writeFile(join(file, '..', 'weights.bin'), new Uint8Array(4));
  let told = 0;
  const onProgress = () => {
    if (++told === 2) throw reason;
  };
  expect(await load(file, { onProgress }).catch((error: unknown) => error)).toBe(reason);
});

test('a network of many bytes gets no second session', async () => {
  const options = { device: 'cpu', intraOpThreads: 2 };
  expect((await load(digits, { ...options, maxCopyBytes: 1000 })).exact.atOnce).toBe(1);
});

test('a load that is ended rejects at once, and nothing of it stays', async () => {
  const controller = new AbortController();
  const loading = load(digits, { signal: controller.signal, intraOpThreads: 2, interOpThreads: 3 });
  controller.abort(new Error('no longer wanted'));
  const error = await rejection(() => loading);
  expect(error).toMatchObject({ code: 'ERR_ABORTED', cause: controller.signal.reason as Error });
  sentence(await rejection(() => load(digits, { signal: AbortSignal.abort() })), 'ERR_ABORTED', /aborted/);
});

test.each<[OnnxModelOptions, 'ERR_CONFIG' | 'ERR_RANGE', RegExp]>([
  [{ maxCopyBytes: NaN }, 'ERR_RANGE', /maxCopyBytes must be a number >= 0, got NaN/],
  [{ memoryPattern: 1 as never }, 'ERR_CONFIG', /memoryPattern must be a boolean, got 1/],
  [{ cpuArena: 'no' as never }, 'ERR_CONFIG', /cpuArena must be a boolean/],
  [{ check: 0 as never }, 'ERR_CONFIG', /check must be a boolean/],
  [{ executionMode: 'both' as never }, 'ERR_CONFIG', /executionMode must be 'sequential' or 'parallel'/],
  [{ logSeverityLevel: 5 as never }, 'ERR_RANGE', /logSeverityLevel must be an integer from 0 to 4, got 5/],
  [{ freeDimensionOverrides: { height: 0 } }, 'ERR_CONFIG', /must be an object of positive integers by name, got 0/],
  [
    { freeDimensionOverrides: { height: undefined as never } },
    'ERR_CONFIG',
    /positive integers by name, got undefined/,
  ],
  [
    { externalData: { 'no-such-file': new Uint8Array(4) } },
    'ERR_CONFIG',
    /no weights in a file of that name, but in none/,
  ],
  [{ externalData: { 'weights.bin': new Uint8Array(0) } }, 'ERR_CONFIG', /externalData\["weights.bin"\] must be/],
  [{ freeDimensionOverrides: 3 as never }, 'ERR_CONFIG', /must be an object of positive integers by name, got 3/],
  [{ optimizedModelFilePath: '' }, 'ERR_CONFIG', /optimizedModelFilePath must be the path of a file/],
  [{ signal: {} as never }, 'ERR_CONFIG', /signal must be an AbortSignal/],
  [{ onProgress: 1 as never }, 'ERR_CONFIG', /onProgress must be a function/],
])('%j is refused', async (options, code, says) => {
  sentence(await rejection(() => load(scoreGraph(), options)), code, says);
});

describe('what the network is said to be is checked before its file is', () => {
  test.each<[OnnxModelOptions, ErrorCode, RegExp]>([
    [{ prediction: 'epsilon' as never }, 'ERR_CONFIG', /prediction must be/],
    [{ conditioning: 'time' as never }, 'ERR_CONFIG', /conditioning must be/],
    [{ conditioning: 't' }, 'ERR_CONFIG', /conditioning 't' needs a range/],
    [{ preconditioning: 'vp' as never }, 'ERR_CONFIG', /preconditioning must be/],
    [{ preconditioning: 'edm', prediction: 'noise' }, 'ERR_CONFIG', /both given/],
    [{ dataRange: [1, 0] }, 'ERR_RANGE', /dataRange must be/],
    [{ classes: 0 }, 'ERR_RANGE', /classes must be/],
    [{ defaultInputs: 3 as never }, 'ERR_CONFIG', /defaultInputs must be/],
    [{ sample: 3 as never }, 'ERR_CONFIG', /sample must be a name of the network's, got 3/],
    [{ timestep: null as never }, 'ERR_CONFIG', /timestep must be a name of the network's, got null/],
    [{ output: ['x'] as never }, 'ERR_CONFIG', /output must be a name of the network's, got an array of 1/],
    [{ libraryPath: '' }, 'ERR_CONFIG', /libraryPath must be the path of a file, got ""/],
  ])('%j', async (options, code, says) => {
    sentence(await rejection(() => load(join(__dirname, 'no-such-file.onnx'), options)), code, says);
  });
});

test('options that are changed after a load change nothing', async () => {
  const conditioning: { index: number; sigmas: number[] } = { index: 2, sigmas: [9, 1] };
  const options: OnnxModelOptions = { conditioning, sampleShape: shape, check: false, dataRange: [-1, 1] };
  const model = await load(scoreGraph(), options);
  conditioning.sigmas = ['x' as never];
  conditioning.index = -1;
  Object.assign(options, { prediction: 'epsilon', dataRange: 3 });
  const found = await model.checkKind({ slow: true });
  expect(found?.why).toMatch(/a score that takes \{ index: 2, sigmas: \[9, 1\] \}/);
  expect(model.dataRange).toEqual([-1, 1]);
});

test('a range that is said of a model leaves the order of its memory', async () => {
  const model = await load(scoreGraph(), { check: false });
  const ranged = fromNetwork(model, { dataRange: [-1, 1] });
  const { score, done } = ranged[handOver]!(x, new Tensor('float32', [1, 2, 3, 4, 5], [5]), {}, {});
  await done;
  bitEqual(floats(score), floats(await model.run(x, [1, 2, 3, 4, 5])));
  expect(fromNetwork(await load(scoreGraph(), { check: false, prediction: 'noise' }))[handOver]).toBeUndefined();
});

test('the score of a network of another kind is checked as that of a score network is', async () => {
  const model = await load(scoreGraph(), { check: false, prediction: 'noise' });
  const call = (...args: unknown[]) => rejection(() => (model.run as (...all: unknown[]) => Promise<unknown>)(...args));
  sentence(await call(x, 2, {}, null), 'ERR_CONFIG', /context must be an object/);
  sentence(await call(x, 2, {}, { out: x }), 'ERR_ALIAS', /out and sample overlap/);
  sentence(await call(x, 0), 'ERR_RANGE', /sigma must be finite and above 0, got 0/);
});
