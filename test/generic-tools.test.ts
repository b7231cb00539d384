import { deepEqual, deepStrictEqual } from 'node:assert';
import { inspect, isDeepStrictEqual } from 'node:util';
import { MessageChannel, receiveMessageOnPort, type TransferListItem } from 'node:worker_threads';
import {
  Generator,
  OnnxModel,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  type TensorLike,
  type TensorType,
} from '../lib';
import { devices } from './support/devices';
import { pipelineFolder, removeFolders } from './support/folders';
import { formula, modelOf } from './support/models';
import { scoreGraph } from './support/onnx';
import { bitEqual } from './support/golden';

// What tools that know nothing of this package make of its objects: comparing, cloning, printing, proxies, subclasses.

afterAll(removeFolders);

const values = (...numbers: number[]) => new Tensor('float32', Float32Array.from(numbers), [numbers.length]);

/** The same object as a framework of observable state hands it out (Vue's reactive, MobX's observable). */
const proxied = <T extends object>(target: T): T =>
  new Proxy(target, { get: (object, key, receiver): unknown => Reflect.get(object, key, receiver) });

/** What arrives at the other end of a message channel. */
function posted(value: unknown, transfer: readonly unknown[] = []): unknown {
  const { port1, port2 } = new MessageChannel();
  try {
    port1.postMessage(value, transfer as TransferListItem[]);
    return (receiveMessageOnPort(port2) as { message: unknown }).message;
  } finally {
    port1.close();
  }
}

describe('comparing', () => {
  const torch = { engine: 'torch' } as const;
  const scheduled = (steps: number) => {
    const scheduler = new ScoreSdeVeScheduler();
    scheduler.setTimesteps(steps);
    return scheduler;
  };
  const drawn = (generator: Generator) => {
    generator.randn([4]);
    return generator;
  };
  const pairs: [string, () => object, () => object][] = [
    ['tensors of other elements', () => values(1, 2), () => values(1, 3)],
    ['tensors of other dims', () => values(1, 2), () => new Tensor(Float32Array.of(1, 2), [1, 2])],
    [
      'tensors of other types',
      () => new Tensor('float16', Uint16Array.of(1)),
      () => new Tensor('bfloat16', Uint16Array.of(1)),
    ],
    ['a tensor and a disposed one', () => values(1, 2), () => disposed(values(1, 2))],
    ['generators of other seeds', () => new Generator(1), () => new Generator(2)],
    ['generators in other places', () => new Generator(1), () => drawn(new Generator(1))],
    ['torch generators of other seeds', () => new Generator(1, torch), () => new Generator(2, torch)],
    ['torch generators in other places', () => new Generator(1, torch), () => drawn(new Generator(1, torch))],
    ['schedulers of other configs', () => new ScoreSdeVeScheduler(), () => new ScoreSdeVeScheduler({ snr: 0.16 })],
    ['schedulers of other steps', () => scheduled(10), () => scheduled(11)],
  ];
  const disposed = (tensor: Tensor) => {
    tensor.dispose();
    return tensor;
  };

  test.each(pairs)('%s are unequal, and each is equal to one like it', (_, one, other) => {
    expect(isDeepStrictEqual(one(), other())).toBe(false);
    expect(() => deepEqual(one(), other())).toThrow();
    expect(one()).not.toEqual(other());
    expect([one()]).not.toStrictEqual([other()]);
    for (const same of [one, other]) {
      deepStrictEqual(same(), same());
      expect(same()).toEqual(same());
      expect(same()).toStrictEqual(same());
    }
  });

  test('who owns the memory of a tensor does not count', () => {
    const owner = Tensor.zeros([2, 2]);
    const view = new Tensor(new Float32Array(8).subarray(2, 6), [2, 2]);
    deepStrictEqual(owner, view);
    expect(owner).toStrictEqual(view);
  });

  test('a scheduler is equal to what its file gives', async () => {
    const folder = await pipelineFolder({});
    const scheduler = new ScoreSdeVeScheduler({ snr: 0.2 });
    await scheduler.savePretrained(folder);
    deepStrictEqual(await ScoreSdeVeScheduler.fromPretrained(folder), scheduler);
    deepStrictEqual(ScoreSdeVeScheduler.fromConfig(JSON.parse(JSON.stringify(scheduler)) as object), scheduler);
  });

  test('results of other samples are unequal, also where their images are clamped to the same', async () => {
    const run = async (value: number) => {
      const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 1 });
      const pipeline = new ScoreSdeVePipeline({
        scheduler,
        model: (x) => Tensor.zeros(x.dims),
        sampleShape: [1, 1, 1],
        device: 'cpu',
      });
      const sample = new Tensor('float32', [value], [1, 1, 1, 1]);
      const { seconds: _, ...result } = await pipeline.run({ sample, solver: 'euler', calls: 2, seed: 1 });
      return result;
    };
    const [two, three] = [await run(2), await run(3)];
    deepStrictEqual(two.images, three.images);
    expect(isDeepStrictEqual(two, three)).toBe(false);
  });
});

describe('cloning', () => {
  const clones: [string, (tensor: Tensor) => unknown][] = [
    ['structuredClone', (tensor) => structuredClone(tensor)],
    ['postMessage', posted],
    ['spread', (tensor) => ({ ...tensor })],
    ['Object.assign', (tensor) => Object.assign({}, tensor)],
  ];
  const [score, x] = [values(0.5, -1, 2), values(3, 4, 5)];
  const step = (output: TensorLike, sample: TensorLike) =>
    new ScoreSdeVeScheduler().stepPred(output, 0.5, sample, { generator: new Generator(1) }).prevSample;

  test.each(clones)('%s carries the elements, and its result is taken in place of a tensor', (_, clone) => {
    const { dims, data, type } = clone(x) as Tensor<'float32'>;
    expect([Array.from(data), dims, type]).toEqual([[3, 4, 5], [3], 'float32']);
    bitEqual(step(clone(score) as TensorLike, clone(x) as TensorLike).data, step(score, x).data);
  });

  test('a copy with the same prototype is a tensor', () => {
    const copy = Object.assign(Object.create(Tensor.prototype) as Tensor<'float32'>, x);
    expect([copy.disposed, Array.from(copy.clone().data)]).toEqual([false, [3, 4, 5]]);
    copy.dispose();
    expect([copy.disposed, x.disposed, Array.from(x.data)]).toEqual([true, false, [3, 4, 5]]);
  });

  test.each<[TensorType, ArrayBufferView, unknown[]]>([
    ['float32', Float32Array.of(0.5, NaN, -Infinity), [0.5, 'NaN', '-Infinity']],
    ['bfloat16', Uint16Array.of(1, 2, 3), [1, 2, 3]],
    ['int64', BigInt64Array.of(1n, -2n, 2n ** 60n), ['1', '-2', '1152921504606846976']],
  ])('JSON has the elements of %s', (type, data, list) => {
    const tensor = new Tensor(type, data as never, [3, 1]);
    expect(JSON.parse(JSON.stringify({ tensor }))).toEqual({ tensor: { type, dims: [3, 1], data: list } });
  });

  test('a disposed tensor is not made JSON of', () => {
    const tensor = values(1);
    tensor.dispose();
    expect(() => JSON.stringify(tensor)).toThrow('the tensor [1] is disposed');
  });

  test('a generator and a scheduler carry what they hold', () => {
    const generator = new Generator(7);
    generator.randn([8]);
    expect(inspect(structuredClone(generator))).toContain('seed: 7n, offset: 2n');
    const scheduler = new ScoreSdeVeScheduler({ snr: 0.3 });
    expect(inspect(structuredClone(scheduler), { depth: 4 })).toContain('snr: 0.3');
    expect(JSON.parse(JSON.stringify(scheduler))).toEqual(scheduler.config);
  });

  test('a pipeline, which holds a function, is not cloned', () => {
    const pipeline = new ScoreSdeVePipeline({
      scheduler: new ScoreSdeVeScheduler(),
      model: modelOf(formula({ name: 'toy' })),
      sampleShape: [2],
      device: 'cpu',
    });
    expect(() => structuredClone(pipeline)).toThrow(/could not be cloned/);
  });
});

describe.each(devices)('on %s', (device) => {
  test('a tensor is neither compared nor cloned without its elements', async () => {
    const [one, other] = [await values(1, 2).to(device), await values(1, 3).to(device)];
    if (device === 'cpu') return expect(isDeepStrictEqual(one, other)).toBe(false);
    const wrong = { code: 'ERR_STATE', message: expect.stringContaining(`lies on ${device}`) as string };
    for (const use of [isDeepStrictEqual, (t: Tensor) => structuredClone(t), (t: Tensor) => ({ ...t }), JSON.stringify])
      expect(() => (use as (...tensors: Tensor[]) => unknown)(one, other)).toThrow(expect.objectContaining(wrong));
    expect(inspect(one)).toBe(`Tensor(float32 [2] on ${device})`);
    expect(() => proxied(one).memory).toThrow(expect.objectContaining({ code: 'ERR_STATE' }));
    one.dispose();
    expect(one.disposed).toBe(true);
  });
});

describe('transferring', () => {
  test.each(devices)('toOwned() of a tensor from %s can be moved to another thread', async (device) => {
    const tensor = await (await values(1, 2, 3).to(device)).to('cpu');
    const owned = tensor.toOwned();
    deepStrictEqual(owned, tensor);
    const arrived = posted(owned, [owned.data.buffer]) as Tensor<'float32'>;
    expect([Array.from(arrived.data), owned.disposed, tensor.disposed]).toEqual([[1, 2, 3], true, false]);
  });

  test('toOwned() is of the moment: it waits for no asynchronous call', async () => {
    const out = Tensor.empty([2 ** 20]);
    const drawing = new Generator(1).randnAsync([2 ** 20], { out });
    expect(() => out.toOwned()).toThrow(expect.objectContaining({ code: 'ERR_BUSY' }));
    await drawing;
    expect(out.toOwned().data[0]).toBe(out.data[0]);
    out.dispose();
    expect(() => out.toOwned()).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
  });
});

describe('printing', () => {
  test.each<[string, () => Tensor, string]>([
    ['all elements of a small tensor', () => values(1, -2.5), 'Tensor(float32 [2]) [ 1, -2.5 ]'],
    [
      'the first of a large one',
      () => Tensor.zeros([2 ** 20, 2]),
      'Tensor(float32 [1048576, 2]) [ 0, 0, 0, 0, 0, 0, 0, 0, ... 2097144 more ]',
    ],
    ['16-bit floats by value', () => new Tensor('float16', Uint16Array.of(0x3c00)), 'Tensor(float16 [1]) [ 1 ]'],
    ['int64', () => new Tensor(BigInt64Array.of(5n), []), 'Tensor(int64 []) [ 5n ]'],
    ['nothing of an empty one', () => new Tensor(new Float32Array(), [0, 3]), 'Tensor(float32 [0, 3]) []'],
  ])('%s', (_, make, text) => {
    const tensor = make();
    expect(inspect(tensor)).toBe(text);
    tensor.dispose();
    expect(inspect({ tensor })).toMatch(/, disposed\)/);
  });

  test('a generator shows its place, a scheduler its config and the ends of its tables', () => {
    expect(inspect(new Generator(7))).toMatch(/seed: 7n, offset: 0n/);
    const text = inspect(new ScoreSdeVeScheduler({ snr: 0.3 }));
    expect(text).toMatch(/^ScoreSdeVeScheduler \{\s+numTrainTimesteps: 2000,\s+snr: 0.3/);
    expect(text.length).toBeLessThan(1000);
  });
});

describe('behind a Proxy', () => {
  const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 5 });

  test('a tensor works', async () => {
    const [score, x] = [values(0.5, -1, 2), values(3, 4, 5)];
    const step = (output: Tensor, sample: Tensor) =>
      scheduler.stepPred(output, 0.5, sample, { generator: new Generator(1) }).prevSample;
    bitEqual(step(proxied(score), proxied(x)).data, step(score, x).data);
    const view = proxied(Tensor.zeros([2]));
    expect([view.disposed, view.size, Array.from(view.data), Array.from(view.clone().data)]).toEqual([
      false,
      2,
      [0, 0],
      [0, 0],
    ]);
    expect(Array.from(await view.getData())).toEqual([0, 0]);
    view.dispose();
    expect([view.disposed, view.data]).toEqual([true, undefined]);
    expect(() => view.clone()).toThrow('the tensor [2] is disposed');
  });

  test.each(['philox', 'torch'] as const)('a %s generator works', (engine) => {
    const [one, other] = [new Generator(3, { engine }), proxied(new Generator(3, { engine }))];
    bitEqual(other.randn([5]).data, one.randn([5]).data);
    bitEqual(other.clone().randn([5]).data, one.randn([5]).data);
  });

  test('a scheduler and a pipeline work', async () => {
    const model = modelOf(formula({ name: 'toy' }));
    const made = (scheduler: ScoreSdeVeScheduler) =>
      new ScoreSdeVePipeline({ scheduler, model, sampleShape: [2], device: 'cpu' });
    const settings = { numInferenceSteps: 3, seed: 4 };
    const [one, other] = [made(scheduler), proxied(made(proxied(scheduler)))];
    bitEqual((await other.run(settings)).samples.data, (await one.run(settings)).samples.data);
    await other.dispose();
    await expect(other.run(settings)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
  });
});

describe('a subclass', () => {
  class MyScheduler extends ScoreSdeVeScheduler {}
  class MyPipeline extends ScoreSdeVePipeline {}
  class MyTensor extends Tensor {}

  test('is what its static methods make', async () => {
    const folder = await pipelineFolder({});
    expect(MyScheduler.fromConfig({ snr: 0.3 })).toBeInstanceOf(MyScheduler);
    expect(MyScheduler.fromConfig({ snr: 0.3 }).config.snr).toBe(0.3);
    expect(await MyScheduler.fromPretrained(folder, { subfolder: 'scheduler' })).toBeInstanceOf(MyScheduler);
    await using pipeline = await MyPipeline.fromPretrained(folder, { device: 'cpu' });
    expect(pipeline).toBeInstanceOf(MyPipeline);
    expect(MyTensor.zeros([2])).toBeInstanceOf(MyTensor);
    expect(MyTensor.empty([2])).toBeInstanceOf(MyTensor);
    const Mine = class extends (OnnxModel as unknown as new () => object) {} as unknown as typeof OnnxModel;
    await using model = await Mine.load(scoreGraph(), { device: 'cpu', exact: false });
    expect(model).toBeInstanceOf(Mine);
  });

  test('with options of its own keeps them', () => {
    class Noisy extends ScoreSdeVeScheduler {
      constructor() {
        super({ snr: 0.5 });
      }
    }
    expect(Noisy.fromConfig({ snr: 0.3, sigma_max: 7 }).config).toMatchObject({ snr: 0.5, sigmaMax: 1348 });
  });

  test('has nothing to do with a method that is taken from its class', () => {
    const taken = Reflect.get(ScoreSdeVeScheduler, 'fromConfig') as (config: object) => ScoreSdeVeScheduler;
    expect(taken({ snr: 0.3 })).toBeInstanceOf(ScoreSdeVeScheduler);
    const tools = { zeros: Reflect.get(Tensor, 'zeros') as (dims: number[]) => Tensor };
    expect(tools.zeros([2]).data).toHaveLength(2);
  });
});

describe('an OnnxModel', () => {
  test('is a function with the methods of functions', async () => {
    await using model = await OnnxModel.load(scoreGraph(), { device: 'cpu', exact: false });
    expect(model).toBeInstanceOf(Function);
    const x = new Generator(1).randn([1, 1, 2, 2]);
    const sigma = values(0.5);
    const expected = (await model(x, sigma)).data;
    const spy = jest.fn(model as (...args: Parameters<OnnxModel>) => ReturnType<OnnxModel>);
    for (const call of [
      () => spy(x, sigma),
      () => model.apply(undefined, [x, sigma]),
      () => model.call(undefined, x, sigma),
      () => model.bind(undefined, x)(sigma),
    ])
      bitEqual((await call()).data as Float32Array, expected as Float32Array);
    expect(spy).toHaveBeenCalledTimes(1);
  });
});
