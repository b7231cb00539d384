import { toBinary, create } from '@bufbuild/protobuf';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Generator, type LoadProgress, type OnnxModelOptions } from '../lib';
import { removeFolders, temporaryFolder } from './support/folders';
import { bitEqual } from './support/golden';
import { loader } from './support/loading';
import { externalGraph, ModelProtoSchema } from './support/onnx';
import { rejection, sentence } from './support/refusals';

// Networks whose weights lie in other files.

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const shape = [1, 2, 2];
const x = new Generator(1).randn([5, ...shape]);

const load = loader({ device: 'cpu' });
afterAll(removeFolders);

const weight = (value: number) => new Uint8Array(Float32Array.of(value).buffer);
const times = (factor: number) => floats(x).map((v) => factor * v);

test('takes them from memory, for bytes and in place of the file', async () => {
  const folder = await temporaryFolder();
  const graph = externalGraph('weights.bin', shape);
  const ofBytes = await load(graph, { externalData: { 'weights.bin': weight(3) } });
  bitEqual(floats(await ofBytes.run(x, 2)), times(3));
  const ofBuffer = await load(graph, { externalData: { 'weights.bin': weight(5).buffer as ArrayBuffer } });
  bitEqual(floats(await ofBuffer.run(x, 2)), times(5));
  await writeFile(join(folder, 'model.onnx'), graph);
  await writeFile(join(folder, 'weights.bin'), weight(7));
  const ofFile = await load(join(folder, 'model.onnx'), { externalData: { 'weights.bin': weight(4) } });
  bitEqual(floats(await ofFile.run(x, 2)), times(4));
});

test('the bytes are not needed once it is loaded', async () => {
  const bytes = weight(3);
  const model = await load(externalGraph('weights.bin', shape), { externalData: { 'weights.bin': bytes } });
  bytes.fill(0);
  bitEqual(floats(await model.run(x, 2)), times(3));
});

test.each<[string, OnnxModelOptions, RegExp]>([
  ['no object', { externalData: [weight(1)] as never }, /externalData must be an object of bytes/],
  [
    'no bytes',
    { externalData: { 'weights.bin': 'text' as never } },
    /externalData\["weights.bin"\] must be a Uint8Array/,
  ],
])('%s is refused', async (_, options, says) => {
  sentence(await rejection(() => load(externalGraph('weights.bin', shape), options)), 'ERR_CONFIG', says);
});

test('files are read ahead, and how far that is is told', async () => {
  const folder = await temporaryFolder();
  const graph = externalGraph('weights.bin', shape);
  await writeFile(join(folder, 'model.onnx'), graph);
  await writeFile(join(folder, 'weights.bin'), weight(3));
  const told: LoadProgress[] = [];
  await load(join(folder, 'model.onnx'), { onProgress: (progress) => told.push(progress) });
  const total = graph.length + 4;
  expect(told).toEqual([0, graph.length, total].map((loaded) => ({ loaded, total })));
});

/** A folder with a network and files of one weight each. */
async function folderOf(graph: Uint8Array, weights: Record<string, number> = {}): Promise<string> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'model.onnx'), graph);
  for (const [name, value] of Object.entries(weights)) await writeFile(join(folder, name), weight(value));
  return join(folder, 'model.onnx');
}

test.each(['w.bin', './w.bin', 'a/../w.bin', './/w.bin'])(
  'a name may be spelled otherwise than the graph, %s',
  async (spelled) => {
    for (const key of ['w.bin', './w.bin'])
      bitEqual(
        floats(await (await load(externalGraph(spelled, shape), { externalData: { [key]: weight(3) } })).run(x, 2)),
        times(3),
      );
  },
);

test('one of two files is given, and the other lies beside the graph', async () => {
  const file = await folderOf(externalGraph(['a.bin', './b.bin'], shape), { 'a.bin': 2, 'b.bin': 5 });
  bitEqual(floats(await (await load(file)).run(x, 2)), times(10));
  bitEqual(floats(await (await load(file, { externalData: { 'b.bin': weight(3) } })).run(x, 2)), times(6));
});

describe('is refused before it is loaded', () => {
  const two = () => externalGraph(['a.bin', 'b.bin'], shape);
  const page = /exporting\.md/;

  test('a name that the graph does not have', async () => {
    const wrong = { externalData: { 'c.bin': weight(1) } };
    for (const network of [two(), await folderOf(two())])
      sentence(
        await rejection(() => load(network, wrong)),
        'ERR_CONFIG',
        /externalData\["c.bin"\]: .*"a.bin", "b.bin"$/,
      );
  });

  test('a file by two names', async () => {
    const twice = { externalData: { 'a.bin': weight(1), './a.bin': weight(2) } };
    sentence(await rejection(() => load(two(), twice)), 'ERR_CONFIG', /each file once, got "a.bin", ".\/a.bin"/);
  });

  test('bytes of a graph without those of its files', async () => {
    sentence(await rejection(() => load(two())), 'ERR_MODEL', /"a.bin", "b.bin".*externalData must give/, page);
    const some = { externalData: { 'a.bin': weight(1) } };
    sentence(await rejection(() => load(two(), some)), 'ERR_MODEL', /in "b.bin", .*externalData must give/, page);
  });

  test('a file that is missing', async () => {
    const file = await folderOf(two(), { 'a.bin': 1 });
    sentence(
      await rejection(() => load(file)),
      'ERR_MODEL',
      /model.onnx has weights in "b.bin", not found in its folder/,
      page,
    );
  });

  test('a list of many files is cut', async () => {
    const names = Array.from({ length: 12 }, (_, i) => `w${10 + i}.bin`);
    sentence(await rejection(() => load(externalGraph(names, shape))), 'ERR_MODEL', /"w14.bin" and 7 more, /);
  });

  test('too few bytes, and a file that is cut short', async () => {
    const few = { externalData: { 'w.bin': new Uint8Array(3) } };
    const graph = externalGraph('w.bin', shape);
    sentence(
      await rejection(() => load(graph, few)),
      'ERR_CONFIG',
      /externalData\["w.bin"\] must have 4 bytes, .*got 3/,
    );
    const file = await folderOf(graph);
    await writeFile(join(file, '..', 'w.bin'), new Uint8Array(2));
    sentence(await rejection(() => load(file)), 'ERR_MODEL', /w.bin: must have 4 bytes, .*got 2/, page);
  });

  test('a page in place of a file', async () => {
    const file = await folderOf(externalGraph('w.bin', shape));
    await writeFile(join(file, '..', 'w.bin'), '<a>');
    sentence(await rejection(() => load(file)), 'ERR_MODEL', /w.bin: this is a page of HTML/, page);
  });
});

test('bytes that are transferred away while it loads', async () => {
  const bytes = weight(3);
  const loading = load(externalGraph('w.bin', shape), { externalData: { 'w.bin': bytes } });
  structuredClone(bytes, { transfer: [bytes.buffer] });
  sentence(await rejection(() => loading), 'ERR_DISPOSED', /transferred away/);
});

test('a graph of more than 64 MiB is looked at, too, and its weights are passed over', async () => {
  const raw = { name: 'large', dataType: 2, dims: [70n << 20n], rawData: new Uint8Array(70 << 20) };
  // Two messages one after the other are one that has the parts of both.
  const large = toBinary(ModelProtoSchema, create(ModelProtoSchema, { graph: { initializer: [raw] } }));
  const file = await folderOf(Buffer.concat([large, externalGraph('./w.bin', shape)]), { 'w.bin': 7 });
  const totals = new Set<number>();
  const onProgress = ({ total }: LoadProgress) => void totals.add(total);
  const model = await load(file, { externalData: { 'w.bin': weight(3) }, onProgress });
  bitEqual(floats(await model.run(x, 2)), times(3));
  expect([...totals]).toEqual([large.length + externalGraph('./w.bin', shape).length + 4]);
  sentence(await rejection(() => load(file, { externalData: { v: weight(3) } })), 'ERR_CONFIG', /but in "w.bin"/);
});
