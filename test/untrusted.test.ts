import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { execFileSync } from 'node:child_process';
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ScoreSdeVePipeline } from '../lib';
import { aFolder, pipelineFolder, removeFolders, temporaryFolder, type Content } from './support/folders';
import { ModelProtoSchema, port, scoreGraph, TensorProtoSchema } from './support/onnx';
import { rejection, sentence } from './support/refusals';

// A folder that somebody else made: it must not make the loader read what lies outside of it, nor take the memory.
afterAll(removeFolders);

const load = (folder: string) => rejection(() => ScoreSdeVePipeline.fromPretrained(folder));

/** The network with a constant of one float in another file. */
function withWeightsIn(location: string, offset = '0'): Uint8Array {
  const model = fromBinary(ModelProtoSchema, scoreGraph());
  const constants = model.graph!.initializer;
  const at = constants.findIndex(({ dataType }) => dataType === 1);
  constants[at] = create(TensorProtoSchema, {
    name: constants[at]!.name,
    dataType: 1,
    dims: constants[at]!.dims,
    dataLocation: 1,
    externalData: Object.entries({ location, offset, length: '4' }).map(([key, value]) => ({ key, value })),
  });
  return toBinary(ModelProtoSchema, model);
}

describe('links', () => {
  const inItself = { 'unet/model.onnx': undefined, 'model.onnx': scoreGraph() };
  /** Moves a part of a pipeline's folder out of it, and leaves a link behind. */
  async function linkedOut(part: string, files: Record<string, Content> = {}): Promise<string> {
    const folder = await pipelineFolder(files);
    const elsewhere = join(await temporaryFolder(), 'there');
    await rename(join(folder, part), elsewhere);
    await symlink(elsewhere, join(folder, part));
    return folder;
  }
  test.each(['model_index.json', 'scheduler', 'scheduler/scheduler_config.json', 'unet', 'unet/model.onnx'])(
    'out of the folder, %s: refused',
    async (part) => {
      sentence(await load(await linkedOut(part)), 'ERR_CONFIG', new RegExp(`${part}: the link leads out of`));
    },
  );

  test.each(['model.onnx', 'config.json', 'scheduler_config.json'])(
    'out of the folder, %s in the folder itself: refused',
    async (part) => {
      const folder = await linkedOut(part, { ...inItself, 'config.json': {}, 'scheduler_config.json': {} });
      sentence(await load(folder), 'ERR_CONFIG', new RegExp(`${part}: the link leads out of`));
    },
  );

  test('out of the folder by way of another in it: refused', async () => {
    const folder = await pipelineFolder({ 'unet/model.onnx': aFolder });
    await mkdir(join(folder, 'aside'));
    await writeFile(join(folder, 'aside', 'model.onnx'), scoreGraph());
    await symlink('/etc', join(folder, 'aside', 'weights'));
    await symlink('../aside', join(folder, 'unet', 'more'));
    sentence(await load(folder), 'ERR_CONFIG', /weights: the link leads out of/);
  });

  test('within the folder: followed', async () => {
    const folder = await pipelineFolder();
    await rename(join(folder, 'unet/model.onnx'), join(folder, 'net.onnx'));
    await symlink('../net.onnx', join(folder, 'unet/model.onnx'));
    await (await ScoreSdeVePipeline.fromPretrained(folder)).dispose();
  });

  test("to the blobs beside it in Hugging Face's cache: followed", async () => {
    const cache = await temporaryFolder();
    const folder = join(cache, 'snapshots', '0123abcd');
    await mkdir(dirname(folder));
    await mkdir(join(cache, 'blobs'));
    await rename(await pipelineFolder({}, 'x'), folder);
    await rename(join(folder, 'unet/model.onnx'), join(cache, 'blobs', 'e3b0c442'));
    await symlink('../../../blobs/e3b0c442', join(folder, 'unet/model.onnx'));
    await (await ScoreSdeVePipeline.fromPretrained(folder)).dispose();
  });

  test('the folder itself may be one', async () => {
    const link = join(await temporaryFolder(), 'link');
    await symlink(await pipelineFolder(), link);
    await (await ScoreSdeVePipeline.fromPretrained(link)).dispose();
  });
});

describe('external weights', () => {
  const bytes = new Uint8Array(Float32Array.of(1).buffer);
  const outside = /cannot be loaded: .*external/i; // onnxruntime's own words

  test('beside the network: read', async () => {
    const folder = await pipelineFolder({ 'unet/model.onnx': withWeightsIn('w.bin'), 'unet/w.bin': bytes });
    await (await ScoreSdeVePipeline.fromPretrained(folder)).dispose();
  });

  test('of which only the git-lfs pointer is there: named', async () => {
    const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 4000\n`;
    const model = withWeightsIn('w.bin', '400');
    const folder = await pipelineFolder({
      'unet/model.onnx': model,
      'unet/w.bin': pointer,
      'unet/page.html': '<html>',
    });
    sentence(await load(folder), 'ERR_MODEL', /unet.w.bin: this is a git-lfs pointer/);
  });

  test('beside a network in the folder itself: read, but through no link that leads out', async () => {
    const files = { 'unet/model.onnx': undefined, 'model.onnx': withWeightsIn('w.bin') };
    const folder = await pipelineFolder({ ...files, 'w.bin': bytes });
    await (await ScoreSdeVePipeline.fromPretrained(folder)).dispose();
    await rm(join(folder, 'w.bin'));
    const file = join(await temporaryFolder(), 'w.bin');
    await writeFile(file, bytes);
    await symlink(file, join(folder, 'w.bin'));
    sentence(await load(folder), 'ERR_CONFIG', /w.bin: the link leads out of/);
  });

  test.each(['../w.bin', '../../w.bin', 'x/../../../w.bin'])('at %s: refused', async (location) => {
    const folder = await pipelineFolder({ 'unet/model.onnx': withWeightsIn(location), 'w.bin': bytes });
    await writeFile(join(folder, '..', 'w.bin'), bytes);
    const { code, message } = await load(folder);
    expect({ code, message }).toEqual({ code: 'ERR_MODEL', message: expect.stringMatching(outside) as string });
  });

  test('at an absolute path: refused', async () => {
    const file = join(await temporaryFolder(), 'w.bin');
    await writeFile(file, bytes);
    const folder = await pipelineFolder({ 'unet/model.onnx': withWeightsIn(file) });
    const { code, message } = await load(folder);
    expect({ code, message }).toEqual({ code: 'ERR_MODEL', message: expect.stringMatching(outside) as string });
  });

  test('through a link that leads out: refused', async () => {
    const file = join(await temporaryFolder(), 'w.bin');
    await writeFile(file, bytes);
    const folder = await pipelineFolder({ 'unet/model.onnx': withWeightsIn('w.bin') });
    await symlink(file, join(folder, 'unet/w.bin'));
    sentence(await load(folder), 'ERR_CONFIG', /w.bin: the link leads out of/);
  });
});

test.each(['unet/model.onnx', 'scheduler/scheduler_config.json', 'unet/w.bin'])(
  'a pipe that nobody writes to as %s: no waiting',
  async (part) => {
    const folder = await pipelineFolder(part === 'unet/w.bin' ? {} : { [part]: undefined });
    execFileSync('mkfifo', [join(folder, part)]);
    sentence(await load(folder), 'ERR_CONFIG', /expected a file or a folder/);
  },
);

describe('numbers', () => {
  const config = (fields: object) =>
    pipelineFolder({ 'scheduler/scheduler_config.json': { _class_name: 'ScoreSdeVeScheduler', ...fields } });
  test.each([{ num_train_timesteps: 2 ** 31 }, { num_train_timesteps: 1e300 }, { correct_steps: 1e300 }])(
    '%j: refused',
    async (fields) => {
      sentence(await load(await config(fields)), 'ERR_CONFIG', new RegExp(Object.keys(fields)[0]!));
    },
  );

  test('a sample that would fill the memory: refused', async () => {
    const sample = port('sample', 'float32', ['batch', 'channels', 'height', 'width']);
    const folder = await pipelineFolder({
      'unet/model.onnx': scoreGraph({ inputs: [sample, port('timestep')] }),
      'unet/config.json': { in_channels: 65536, sample_size: 65536 },
    });
    sentence(await load(folder), 'ERR_MODEL', /one sample of \[65536, 65536, 65536\] has more than/);
  });

  test('the same in the network itself: refused', async () => {
    const sample = port('sample', 'float32', ['batch', 16, 65536, 65536]);
    const folder = await pipelineFolder({ 'unet/model.onnx': scoreGraph({ inputs: [sample, port('timestep')] }) });
    const before = process.memoryUsage().rss;
    sentence(await load(folder), 'ERR_MODEL', /one sample of \[16, 65536, 65536\] has more than/);
    expect(process.memoryUsage().rss - before).toBeLessThan(2 ** 28);
  });

  test('a large file of settings: refused unread', async () => {
    const folder = await pipelineFolder({ 'model_index.json': ' '.repeat(2 ** 20 + 1) });
    sentence(await load(folder), 'ERR_CONFIG', /model_index.json: expected at most 1048576 bytes/);
  });
});
