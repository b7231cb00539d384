import { fromBinary } from '@bufbuild/protobuf';
import { spawnSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Generator, ScoreSdeVePipeline, Tensor } from '../lib';
import { removeFolders, temporaryFolder } from './support/folders';
import { golden, within, type Golden } from './support/golden';
import { ModelProtoSchema } from './support/onnx';
import { root } from './support/paths';

// A network with the parts of NCSN++, exported by examples/export_ncsnpp.py, gives what PyTorch computes: the export in
// test/golden everywhere, and one made anew where PyTorch is installed.
interface Case {
  levels: number[];
  sizes: number[];
  steps: number;
  batch_size: number;
  seed: number;
}

afterAll(removeFolders);

// The last bit of ln(1348) turns an angle of the embedding by 1e-4. Usual differences are 1e-6.
const tolerance = 3e-5;

// AddressSanitizer's library, where the suite runs under it, is not for Python.
const { LD_PRELOAD: _, ...env } = process.env;
function python(command: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: root, env, encoding: 'utf8' });
  return { status, text: `${stdout}${stderr}` };
}
/** A Python that has PyTorch: that which is named must have it, one that is found may. */
const named = process.env.SCORE_SDE_PYTHON;
const torch = named ?? ['python3', '/usr/bin/python3'].find((path) => python(path, '-c', 'import torch').status === 0);

async function exported(): Promise<string> {
  const folder = join(await temporaryFolder(), 'small');
  const { status, text } = python(torch!, join(root, 'test/exporting/small_ncsnpp.py'), folder);
  if (status !== 0) throw new Error(text);
  return folder;
}
const once = async () => join(root, 'test/golden/exporting');
const exports: [string, () => Promise<string>][] = [['exported once', once]];
if (torch !== undefined) exports.push(['exported now', exported]);

describe.each(exports)('a network with the parts of NCSN++, %s', (_, made) => {
  let folder: string;
  let pipeline: ScoreSdeVePipeline;
  let expected: Golden<Case>;
  beforeAll(async () => {
    folder = await made();
    expected = golden(join(folder, 'expected'));
    pipeline = await ScoreSdeVePipeline.fromPretrained(folder, { device: 'cpu' });
  });
  afterAll(() => pipeline.dispose());

  test('gives the score of PyTorch at every noise level, also in sizes that were not traced', async () => {
    const { levels, sizes } = expected.json;
    expect(sizes.length).toBeGreaterThan(1);
    const sigma = new Tensor('float32', Float32Array.from(levels), [levels.length]);
    for (const size of sizes) {
      const sample = expected.tensor(`sample_${size}`);
      const score = await pipeline.model(new Tensor('float32', sample.data, sample.dims), sigma);
      const truth = expected.tensor(`score_${size}`).data;
      expect(score.dims).toEqual(sample.dims);
      for (const k of levels.keys()) {
        const row = truth.subarray(k * size * size, (k + 1) * size * size);
        const found = (score.data as Float32Array).subarray(k * size * size, (k + 1) * size * size);
        within(found, row, tolerance * Math.max(...row.map(Math.abs)));
      }
    }
  });

  test("gives the samples of PyTorch's run of the same seed", async () => {
    const { steps, batch_size, seed } = expected.json;
    const generator = new Generator(seed, { engine: 'torch' });
    const { samples } = await pipeline.run({ numInferenceSteps: steps, batchSize: batch_size, generator });
    const truth = expected.tensor('samples');
    expect(samples.dims).toEqual(truth.dims);
    within(samples.data as Float32Array, truth.data, tolerance * Math.max(...truth.data.map(Math.abs)));
  });

  test('has its filters as convolutions by channel with constant taps', async () => {
    const { graph } = fromBinary(ModelProtoSchema, await readFile(join(folder, 'unet/model.onnx')));
    const constants = new Map(graph!.initializer.map(({ name, dims }) => [name, dims.map(Number)]));
    for (const { opType, output, attribute } of graph!.node)
      if (opType === 'Constant') constants.set(output[0]!, attribute[0]!.t!.dims.map(Number));
    const filters = graph!.node.filter(
      ({ opType, attribute }) =>
        /^Conv(Transpose)?$/.test(opType) && attribute.some(({ name, ints }) => name === 'strides' && ints[0] === 2n),
    );
    const weights = filters.map(({ opType, input }) => [opType, constants.get(input[1]!)]);
    expect(weights.sort()).toEqual([
      ['Conv', [1, 1, 4, 4]],
      ['Conv', [8, 1, 4, 4]],
      ['Conv', [8, 1, 4, 4]],
      ['ConvTranspose', [1, 1, 4, 4]],
      ['ConvTranspose', [16, 1, 4, 4]],
      ['ConvTranspose', [16, 1, 4, 4]],
    ]);
  });
});

if (torch !== undefined)
  describe('the exporter', () => {
    test('overwrites no folder', async () => {
      const folder = await temporaryFolder();
      await writeFile(join(folder, 'x'), '');
      const { status, text } = python(torch, join(root, 'examples/export_ncsnpp.py'), 'checkpoint', folder);
      expect([status, text]).toEqual([1, `${folder} is not empty: name a new folder\n`]);
    });
  });
