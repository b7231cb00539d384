import {
  devices,
  emptyCache,
  Generator,
  memoryUsage,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  signalStream,
  streamOf,
  Tensor,
  waitForStream,
  type EngineName,
  type ScoreModel,
  type StateType,
} from '../lib';
import { cudaDevices, on } from './support/devices';
import { bitEqual } from './support/golden';
import { runPlainly } from './support/plain';
import { failure, rejection, sentence } from './support/refusals';
import { until } from './support/until';

const types: StateType[] = ['float32', 'float16', 'bfloat16'];
const engines: EngineName[] = ['philox', 'torch'];
const scheduler = new ScoreSdeVeScheduler();
scheduler.setTimesteps(20);
scheduler.setSigmas(20);

const bytesOf = async (tensor: Tensor) => {
  const data = await tensor.getData();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
};

async function sameBits(actual: Tensor, expected: Tensor): Promise<void> {
  expect([actual.type, actual.dims]).toEqual([expected.type, expected.dims]);
  const [a, b] = [await bytesOf(actual), await bytesOf(expected)];
  if (!a.equals(b)) bitEqual(a, b);
}

const without = (devices().find(({ device }) => device === 'cuda')?.reason ?? '') !== '';
(without ? describe : describe.skip)('without a CUDA device', () => {
  test('the list says why, and so does whatever asks for one', () => {
    const { reason } = devices().find(({ device }) => device === 'cuda')!;
    for (const ask of [
      () => Tensor.empty([1], { device: 'cuda' }),
      () => new Generator(1).randn([1], { device: 'cuda:0' }),
      () => scheduler.setTimesteps(20, { device: 'cuda' }),
      () => streamOf(),
      () => Tensor.fromPointer(4096n, [1]),
    ]) {
      const error = failure(ask);
      sentence(error, 'ERR_CUDA_UNAVAILABLE', /cannot be used/);
      expect(error.message).toContain(reason);
    }
  });

  test("'auto' is the CPU", () => {
    expect(Tensor.empty([1], { device: 'auto' }).device).toBe('cpu');
  });
});

(cudaDevices.length === 0 ? describe.skip : describe)('on a CUDA device', () => {
  const device = 'cuda:0';

  describe('a tensor', () => {
    test('its data are not on the CPU, and the error says what to do', () => {
      sentence(
        failure(() => Tensor.zeros([2], { device }).data),
        'ERR_STATE',
        /cuda:0: await its getData\(\), or to\('cpu'\)/,
      );
    });

    test('getData() is what it held when it was called', async () => {
      const tensor = Tensor.zeros([1000], { device });
      const before = tensor.getData();
      new Generator(1).randn([1000], { out: tensor });
      bitEqual(await before, new Float32Array(1000));
      await sameBits(tensor, new Generator(1).randn([1000]));
    });

    test('disposed, its memory serves the next one, and work in flight is not harmed', async () => {
      const count = 77_777;
      // Of the blocks of this size that the pool keeps, the one given back last serves.
      const earlier = [1, 2, 3].map(() => Tensor.zeros([count], { device }));
      for (const tensor of earlier) tensor.dispose();
      const first = new Generator(1).randn([count], { device });
      const { data } = first.cudaArrayInterface;
      const copy = first.getData();
      first.dispose();
      first.dispose();
      expect(first.disposed).toBe(true);
      const second = Tensor.zeros([count], { device });
      expect(second.cudaArrayInterface.data).toEqual(data);
      bitEqual(await copy, new Generator(1).randn([count]).data);
      expect(await rejection(() => first.getData())).toMatchObject({ code: 'ERR_DISPOSED' });
      sentence(
        failure(() => scheduler.stepPred(first, 0.5, second)),
        'ERR_DISPOSED',
        /modelOutput/,
      );
      second.dispose();
      expect(memoryUsage().kept).toBeGreaterThan(4 * count);
      emptyCache();
      expect(memoryUsage().kept).toBe(0);
    });
  });

  describe('refusals, before any work', () => {
    const generator = new Generator(9);
    const state = () => JSON.stringify(generator.getState(), (_, v: unknown) => (typeof v === 'bigint' ? `${v}` : v));

    test('operands in different places', async () => {
      const host = Tensor.zeros([2, 3]);
      const there = Tensor.zeros([2, 3], { device });
      const before = state();
      for (const [call, name] of [
        [() => scheduler.stepPred(host, 0.5, there, { generator }), /modelOutput/],
        [() => scheduler.stepPred(there, 0.5, host, { generator }), /modelOutput/],
        [() => scheduler.stepPred(there, 0.5, there, { noise: host }), /noise/],
        [() => scheduler.stepPred(there, 0.5, there, { generator, out: host }), /out/],
        [() => scheduler.stepCorrect(there, there, { generator, out: host }), /out/],
      ] as const)
        sentence(failure(call), 'ERR_CONFIG', name, /to\(\) moves one/);
      expect(state()).toBe(before);
    });

    const second = devices().filter(({ device, available }) => device === 'cuda:1' && available);
    if (second.length > 0)
      test.each(second)('tensors of $device and the first', ({ device: other }) => {
        const [here, there] = [Tensor.zeros([2, 3], { device }), Tensor.zeros([2, 3], { device: other })];
        for (const [call, name] of [
          [() => scheduler.stepPred(here, 0.5, there, { generator }), /modelOutput/],
          [() => scheduler.stepCorrect(there, there, { generator, out: here }), /out/],
        ] as const)
          sentence(failure(call), 'ERR_CONFIG', name, /to\(\) moves one/);
        const [address] = there.cudaArrayInterface.data;
        sentence(
          failure(() => Tensor.fromPointer(address, [2, 3], { device })),
          'ERR_CONFIG',
          /one of cuda:1, not of cuda:0/,
        );
      });

    test('overlapping outputs', () => {
      const block = Tensor.zeros([12], { device });
      const part = (offset: bigint) => Tensor.fromPointer(block.cudaArrayInterface.data[0] + offset, [2, 3]);
      const [x, shifted] = [part(0n), part(8n)];
      sentence(
        failure(() => scheduler.stepPred(x, 0.5, x, { out: shifted })),
        'ERR_ALIAS',
        /overlaps/,
      );
    });

    test('take no memory for noise that is not drawn', () => {
      const [x, host] = [Tensor.zeros([2, 3, 1, 1], { device }), Tensor.zeros([2, 3, 1, 1])];
      const torch = new Generator(9, { engine: 'torch' });
      const { used } = memoryUsage();
      for (const call of [
        () => scheduler.stepPred(x, 0.5, x, { generator: torch, out: host }),
        () => scheduler.stepPred(x, 0.5, x, { generator: torch, out: x, outMean: x }),
        () => scheduler.stepCorrect(x, x, { generator: torch, out: host }),
        () => scheduler.addNoise(x, null, [1, 1], { generator: torch, out: host }),
      ])
        failure(call);
      expect(memoryUsage().used).toBeLessThanOrEqual(used);
    });

    test('a device that is not there', () => {
      sentence(
        failure(() => Tensor.empty([1], { device: 'cuda:99' })),
        'ERR_CUDA_UNAVAILABLE',
        /only \d+ CUDA devices/,
      );
    });

    test('more memory than there is: an error, and the next call is fine', async () => {
      sentence(
        failure(() => Tensor.empty([2 ** 39], { device })),
        'ERR_MEMORY',
        /no memory for \d+ bytes on cuda:0/,
      );
      bitEqual(await Tensor.zeros([2], { device }).getData(), [0, 0]);
    });
  });

  describe('setTimesteps with a device', () => {
    const tables = ({ timesteps, sigmas, discreteSigmas }: ScoreSdeVeScheduler) => [timesteps, sigmas, discreteSigmas];
    const scheduled = (place?: string) => {
      const made = new ScoreSdeVeScheduler();
      made.setTimesteps(30, { device: place });
      made.setSigmas(30);
      return made;
    };

    test.each(['cuda', 'cuda:0', 'auto', 'cpu'])('%s: the tables of the CPU, for states anywhere', async (place) => {
      const [found, expected] = [scheduled(place), scheduled()];
      for (const [i, table] of tables(found).entries()) bitEqual(table!, tables(expected)[i]!);
      const [m, x] = [new Generator(1).randn([70, 3]), new Generator(2).randn([70, 3])];
      const times = Float32Array.from({ length: 70 }, (_, row) => found.timesteps![row % 30]!);
      for (const t of [found.timesteps![3]!, times]) {
        const step = (s: ScoreSdeVeScheduler, score: Tensor, sample: Tensor) =>
          s.stepPred(score, t, sample, { generator: new Generator(3) }).prevSample;
        const reference = step(expected, m, x);
        await sameBits(step(found, m, x), reference);
        await sameBits(step(found, await on(device, m), await on(device, x)), reference);
      }
    });

    test.each([
      ['cuda:99', 'ERR_CUDA_UNAVAILABLE'],
      ['gpu', 'ERR_CONFIG'],
    ] as const)('%s is refused, and changes nothing', (place, code) => {
      const made = scheduled();
      const before = tables(made);
      sentence(
        failure(() => made.setTimesteps(5, { device: place })),
        code,
      );
      tables(made).forEach((table, i) => expect(table).toBe(before[i]));
    });
  });

  describe('sharing', () => {
    const values = () => new Generator(1).randn([5, 3], { device });
    const turns = () => new Promise((resolve) => setTimeout(resolve, 20));

    test('a pointer: used where it lies, its owner told once', async () => {
      const owner = values();
      const { data, shape, typestr, stream, strides, version } = owner.cudaArrayInterface;
      expect([shape, typestr, strides, version, stream]).toEqual([[5, 3], '<f4', null, 3, streamOf()]);
      const release = jest.fn();
      const tensor = Tensor.fromPointer(data[0], [15], { owner, release, stream });
      new Generator(7).randn([15], { out: tensor });
      bitEqual(await owner.getData(), new Generator(7).randn([15]).data);
      expect(release).not.toHaveBeenCalled();
      tensor.dispose();
      tensor.dispose();
      await until(() => release.mock.calls.length > 0);
      await turns();
      expect(release).toHaveBeenCalledTimes(1);
    });

    test.each(types)('DLPack, %s: taken once', async (type) => {
      const tensor = new Generator(1).randn([5, 3], { device, type });
      const expected = await tensor.to('cpu');
      const external = tensor.toDLPack({ stream: streamOf() });
      const taken = Tensor.fromDLPack(external, { stream: streamOf() });
      await sameBits(taken, tensor);
      sentence(
        failure(() => Tensor.fromDLPack(external)),
        'ERR_STATE',
        /taken already/,
      );
      sentence(
        failure(() => taken.toDLPack()),
        'ERR_STATE',
        /clone\(\) it first/,
      );
      tensor.dispose();
      await turns();
      Tensor.zeros([5, 3], { device, type }); // which would take its memory, had that been given back
      await sameBits(await taken.to('cpu'), expected);
      taken.dispose();
      await turns();
      expect(taken.disposed).toBe(true);
    });

    test('streams order themselves', () => {
      expect(() => waitForStream(streamOf())).not.toThrow();
      expect(() => signalStream(streamOf())).not.toThrow();
    });

    test.each([
      ['an address that is none', () => Tensor.fromPointer(4096n, [4]), 'ERR_CUDA', /not one of a device's memory/],
      ['a number', () => Tensor.fromPointer(4096 as never, [4]), 'ERR_CONFIG', /bigint/],
      ['a tensor on the CPU', () => Tensor.zeros([1]).toDLPack(), 'ERR_CONFIG', /on a CUDA device/],
      ['no external', () => Tensor.fromDLPack({}), 'ERR_DTYPE', /needs an external DLManagedTensorVersioned/],
      ['no handle', () => Tensor.fromIpcHandle({ type: 'float32', dims: [1], device, handle: '' }), 'ERR_CONFIG', /64/],
    ] as const)('%s is refused', (_, call, code, says) => {
      sentence(failure(call), code, says);
    });
  });

  describe('the pipeline', () => {
    const score = (x: Tensor) => x.clone();
    const onHost: ScoreModel = async (x) => score(x);
    const models: [string, ScoreModel][] = [
      ['takes CUDA tensors', Object.assign(onHost.bind(null), { devices: ['cuda'] })],
      ['takes CPU tensors', onHost],
    ];
    const pipelineOf = (model: ScoreModel, place?: string) =>
      new ScoreSdeVePipeline({
        scheduler: new ScoreSdeVeScheduler({ sigmaMax: 2 }),
        model,
        sampleShape: [1, 9, 7],
        device: place,
      });

    test.each(models.flatMap(([what, model]) => engines.map((engine) => ({ what, model, engine }))))(
      'a model that $what, engine $engine: the images of the CPU',
      async ({ model, engine }) => {
        const seen = new Set<string>();
        const watched = Object.assign(async (...args: Parameters<ScoreModel>) => {
          seen.add(args[0].device);
          return model(...args);
        }, model);
        const options = () => ({ batchSize: 3, numInferenceSteps: 6, generator: new Generator(1, { engine }) });
        const expected = await pipelineOf(onHost, 'cpu').run(options());
        const found = await pipelineOf(watched, 'cuda').run(options());
        expect([found.device, found.images.device]).toEqual([device, device]);
        expect([...seen]).toEqual([model.devices ? device : 'cpu']);
        await sameBits(await found.images.to('cpu'), expected.images);
        expect((await found.toPng()).equals(await expected.toPng())).toBe(true);
      },
    );

    test("'auto' takes the device where the model does", () => {
      expect(models.map(([, model]) => pipelineOf(model).device)).toEqual([device, 'cpu']);
    });

    test('values that are not finite are reported with their step', async () => {
      let calls = 0;
      const model = Object.assign(
        async (x: Tensor) => (calls++ === 8 ? Tensor.zeros(x.dims, { device: x.device }) : score(x)),
        { devices: ['cuda'] },
      );
      const error = await rejection(() => pipelineOf(model, 'cuda').run({ numInferenceSteps: 40, seed: 1 }));
      sentence(error, 'ERR_NON_FINITE', /^step 4 of 40 \(sigma [\d.]+\): the corrector/);
      expect(calls).toBeLessThan(20);
    });

    test('a model that leaves its score elsewhere is told so', async () => {
      const model = Object.assign(async (x: Tensor) => Tensor.zeros(x.dims), { devices: ['cuda'] });
      const error = await rejection(() => pipelineOf(model, 'cuda').run({ numInferenceSteps: 2, seed: 1 }));
      sentence(error, 'ERR_MODEL', /the score must lie where the sample does/);
    });

    test('memory does not pile up', async () => {
      const run = () => pipelineOf(models[0]![1], 'cuda').run({ batchSize: 2, numInferenceSteps: 5, seed: 1 });
      (await run()).images.dispose();
      const { stdout, stderr } = runPlainly(`
        const { memoryUsage, ScoreSdeVePipeline, ScoreSdeVeScheduler } = require('./lib');
        (async () => {
          const model = Object.assign(async (x) => x.clone(), { devices: ['cuda'] });
          const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 2 });
          const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: [64, 64], device: 'cuda' });
          for (let i = 0; i < 3; i++) {
            const { images } = await pipeline.run({ numInferenceSteps: 30, seed: 1 });
            images.dispose();
          }
          console.log(memoryUsage().used + memoryUsage().kept);
        })();
      `);
      expect(stderr).toBe('');
      expect(Number(stdout)).toBeLessThan(16384 * 400);
    });
  });
});
