import { runInNewContext } from 'node:vm';
import * as ort from 'onnxruntime-node';
import { Generator, Tensor, type TensorType } from '../lib';
import { goodDims } from './support/bad-tensors';
import { devices, elementsOf, on, reshaped } from './support/devices';
import { scheduler } from './support/edge';
import { bitEqual } from './support/golden';
import { decode } from './support/half';
import { runPlainly } from './support/plain';
import { rejection, sentence } from './support/refusals';
import { goodCall, methods, put, run, runAsync } from './support/step-calls';

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const MiB = 2 ** 20;

/** The runtime's own where it has one; else its like, told apart from Uint16Array by the same tag. */
const Float16 =
  (globalThis as unknown as { Float16Array?: Uint16ArrayConstructor }).Float16Array ??
  class Float16Array extends Uint16Array {
    override get [Symbol.toStringTag](): never {
      return 'Float16Array' as never;
    }
  };

const float16Of = (bits: Uint16Array) => new Float16(bits.buffer as ArrayBuffer, bits.byteOffset, bits.length);

describe('made from data', () => {
  const arrays: [TensorType, ArrayBufferView & { length: number }, string][] = [
    ['float32', Float32Array.of(1, -2, 3, 4), 'Float32Array'],
    ['float64', Float64Array.of(1, -2, 3, 4), 'Float64Array'],
    ['float16', Uint16Array.of(1, 2, 3, 4), 'Uint16Array'],
    ['bfloat16', Uint16Array.of(1, 2, 3, 4), 'Uint16Array'],
    ['uint8', Uint8Array.of(1, 2, 3, 4), 'Uint8Array'],
    ['int32', Int32Array.of(1, -2, 3, 4), 'Int32Array'],
    ['int64', BigInt64Array.of(1n, -2n, 3n, 4n), 'BigInt64Array'],
  ];

  test.each(arrays)('%s: the very array, with the face of an ort.Tensor', (type, data) => {
    const tensor = new Tensor(type, data as never, [2, 2]);
    expect(tensor.data).toBe(data);
    expect([tensor.type, tensor.dims, tensor.size, tensor.location, tensor.device]).toEqual([
      type,
      [2, 2],
      4,
      'cpu',
      'cpu',
    ]);
    if (type === 'bfloat16') return; // which onnxruntime has not
    const theirs = new ort.Tensor(type, data as never, [2, 2]);
    const face = ({ dims, size, location }: Pick<Tensor, 'dims' | 'size' | 'location'>) => [dims, size, location];
    expect([tensor.type, ...face(tensor)]).toEqual([theirs.type, ...face(theirs as never)]);
  });

  test.each(arrays.filter(([type]) => type !== 'bfloat16'))('the type of %s is implied', (type, data) => {
    expect(new Tensor(data as never, [4]).type).toBe(type);
  });

  test('a Uint8ClampedArray is uint8', () => {
    expect(new Tensor(Uint8ClampedArray.of(1, 2) as never, [2]).type).toBe('uint8');
  });

  test('numbers in a plain array are rounded to float32', () => {
    bitEqual(new Tensor('float32', [0.1, -1e-50, 1e39, NaN], [4]).data, [Math.fround(0.1), -0, Infinity, NaN]);
  });

  test('a view: what is written to either shows in the other', () => {
    const block = Float32Array.of(0, 1, 2, 3, 4, 5);
    const tensor = new Tensor('float32', block.subarray(1, 5), [2, 2]);
    block[2] = 20;
    tensor.data[3] = 40;
    bitEqual(tensor.data, [1, 20, 3, 40]);
    bitEqual(block, [0, 1, 20, 3, 40, 5]);
  });

  test('its data cannot be replaced, before and after dispose()', () => {
    const tensor = new Tensor('float32', Float32Array.of(1, 2));
    const other = () => Object.assign(tensor, { data: new Float64Array(1000) });
    expect(other).toThrow(TypeError);
    expect(Array.from(tensor.data)).toEqual([1, 2]);
    tensor.dispose();
    expect(other).toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }));
    expect(tensor.disposed).toBe(true);
  });

  test('what a step writes to it shows in the original', () => {
    const block = new Float32Array(30).fill(7);
    const call = goodCall('stepPred');
    const { prevSample } = run('stepPred', goodCall('stepPred'));
    call.options.out = new Tensor('float32', block.subarray(3, 27), goodDims);
    expect(run('stepPred', call).prevSample).toBe(call.options.out);
    bitEqual(block, [7, 7, 7, ...floats(prevSample), 7, 7, 7]);
  });

  test('dims are its own, and frozen', () => {
    const given = [2, 2];
    const tensor = new Tensor('float32', new Float32Array(4), given);
    given[0] = 4;
    expect(tensor.dims).toEqual([2, 2]);
    expect(Object.isFrozen(tensor.dims)).toBe(true);
    expect(() => (tensor.dims as number[]).push(1)).toThrow();
    const typed = new Tensor('float32', new Float32Array(4), Int32Array.of(2, 2) as never);
    expect(Array.isArray(typed.dims)).toBe(true);
    expect(typed.dims).toEqual([2, 2]);
    expect(new Tensor('float32', Float32Array.of(1), []).dims).toEqual([]);
  });
});

describe.each(devices)('of its own memory on %s', (device) => {
  const types: [TensorType, number][] = [
    ['float32', 4],
    ['float16', 2],
    ['bfloat16', 2],
    ['float64', 8],
    ['uint8', 1],
    ['int32', 4],
    ['int64', 8],
  ];
  const numbers = async (tensor: Tensor) => Array.from((await tensor.getData()) as ArrayLike<unknown>, Number);
  const location = device === 'cpu' ? 'cpu' : 'gpu-buffer';

  /** A tensor of all its types' bit patterns, as far as they go. */
  async function patterned(type: TensorType, dims: number[]): Promise<Tensor> {
    const host = Tensor.empty(dims, { type });
    const bytes = new Uint8Array(host.data.buffer);
    bytes.forEach((_, i) => (bytes[i] = i * 37));
    return host.to(device);
  }

  test.each(types)('%s', async (type, bytes) => {
    // Dirt, which the next tensor of that size is likely to find.
    (await patterned(type, [5, 7])).dispose();
    const tensor = Tensor.zeros([5, 7], { type, device });
    const face = [tensor.type, tensor.dims, tensor.size, tensor.device, tensor.location];
    expect(face).toEqual([type, [5, 7], 35, device, location]);
    expect((await tensor.getData()).byteLength).toBe(35 * bytes);
    expect(await numbers(tensor)).toEqual(new Array(35).fill(0));
  });

  test.each(types)('a clone of %s is independent', async (type) => {
    for (const size of [0, 1, 7, 5000]) {
      const tensor = await patterned(type, [size, 1]);
      const clone = tensor.clone();
      expect([clone.type, clone.dims, clone.size, clone.device]).toEqual([type, [size, 1], size, device]);
      const before = await numbers(tensor);
      expect(before).toEqual(await numbers(await patterned(type, [size, 1]).then((same) => same.to('cpu'))));
      expect(await numbers(clone)).toEqual(before);
      const again = tensor.clone();
      tensor.dispose();
      await patterned('uint8', [size * 8]); // which may have its memory now
      expect(await numbers(again)).toEqual(before);
      expect(await numbers(clone)).toEqual(before);
    }
  });

  test('to() of its own place is itself', async () => {
    const tensor = Tensor.zeros([2], { device });
    expect(await tensor.to(device)).toBe(tensor);
    if (device === 'cpu') expect(await tensor.getData()).toBe(tensor.data);
  });

  test('what is larger than one piece of a copy', async () => {
    const large = new Generator(1).randn([3 * 2 ** 20 + 5]);
    bitEqual(await (await large.to(device)).getData(), large.data);
  });
});

test.each(['cpu', undefined])('on device %p', (device) => {
  expect(Tensor.empty([2], { device }).device).toBe('cpu');
});

test("'auto' is a CUDA device where there is one", async () => {
  const tensor = Tensor.zeros([2], { device: 'auto' });
  expect(tensor.device).toBe(devices.at(-1));
  expect(await tensor.to('auto')).toBe(tensor);
});

describe.each(devices)('disposed on %s', (device) => {
  const three = new Float32Array(1024).fill(3);

  test('once or twice, its memory is gone', async () => {
    const tensor = Tensor.zeros([8], { device });
    const data = device === 'cpu' ? tensor.data : undefined;
    expect(tensor.disposed).toBe(false);
    tensor.dispose();
    expect([tensor.disposed, data?.length ?? 0, data?.buffer.byteLength ?? 0]).toEqual([true, 0, 0]);
    expect(() => tensor.dispose()).not.toThrow();
    expect(tensor.disposed).toBe(true);
    sentence(await rejection(() => tensor.getData()), 'ERR_DISPOSED');
  });

  test('twice, and nothing that took its memory since is harmed', async () => {
    const first = Tensor.empty([1024], { device });
    first.dispose();
    const second = await on(device, new Tensor('float32', three.slice(), [1024]));
    first.dispose();
    bitEqual(await elementsOf(second), three);
  });

  test('a view lets go of what it does not own', async () => {
    const owner = await on(device, new Tensor('float32', three.slice(), [1024]));
    const view = reshaped(owner, [2, 512]);
    view.dispose();
    view.dispose();
    bitEqual(await elementsOf(owner), three);
  });

  test('at the end of its scope, also when that ends in an error', () => {
    const seen: Tensor[] = [];
    {
      using tensor = Tensor.zeros([2], { device });
      seen.push(tensor);
      expect(tensor.disposed).toBe(false);
    }
    const scope = () => {
      using tensor = Tensor.zeros([2], { device });
      seen.push(tensor);
      throw new Error('within');
    };
    expect(scope).toThrow('within');
    expect(seen.map(({ disposed }) => disposed)).toEqual([true, true]);
    const tensor = Tensor.zeros([2], { device });
    tensor[Symbol.dispose]();
    expect(tensor.disposed).toBe(true);
  });
});

describe('the memory', () => {
  // V8 counts what was not made by its own allocator as external, and times its collections by it.
  test('is reported to V8 while it lives', () => {
    // In a process of its own, between collections: those of others' memory would count, too.
    const { stdout, stderr } = runPlainly(`
      const { Tensor } = require('./lib');
      require('node:v8').setFlagsFromString('--expose-gc');
      const gc = require('node:vm').runInNewContext('gc');
      const external = () => (gc(), process.memoryUsage().external);
      const before = external();
      const tensors = Array.from({ length: 4 }, () => Tensor.empty([4, 2 ** 20]));
      const during = external();
      tensors.forEach((tensor) => tensor.dispose());
      console.log(JSON.stringify([during - before, external() - before]));
    `);
    expect(stderr).toBe('');
    const [during, after] = JSON.parse(stdout) as [number, number];
    expect(Math.abs(during - 64 * MiB)).toBeLessThan(MiB);
    expect(Math.abs(after)).toBeLessThan(MiB);
  });

  test.each([
    ['disposed', 64, '.dispose()'],
    ['dropped', 320, ''],
  ])('of tensors that are %s does not pile up', (_, limit, end) => {
    const { stdout, stderr } = runPlainly(`
      const { Tensor } = require('./lib');
      (async () => {
        const before = process.memoryUsage().rss;
        let most = 0;
        for (let i = 0; i < 64; i++) {
          const tensor = Tensor.zeros([8, 2 ** 18]);
          most = Math.max(most, process.memoryUsage().rss - before);
          ${end ? `tensor${end};` : ''}
          ${end ? '' : 'await new Promise(setImmediate);'}
        }
        console.log(most);
      })();
    `);
    expect(stderr).toBe('');
    // 512 MiB in all, 8 at a time; a collector takes its time.
    expect(Number(stdout)).toBeGreaterThanOrEqual(7 * MiB);
    expect(Number(stdout)).toBeLessThan(limit * MiB);
  });
});

describe('tensors of others', () => {
  const tensorArguments = {
    stepPred: ['modelOutput', 'sample', 'noise', 'out', 'outMean'],
    stepCorrect: ['modelOutput', 'sample', 'noise', 'out'],
    addNoise: ['sample', 'noise', 'out'],
  };
  const foreign: [string, (data: Float32Array) => { data: unknown; dims: readonly number[] }][] = [
    ["onnxruntime's", (data) => new ort.Tensor('float32', data, goodDims)],
    ['a plain object', (data) => ({ data, dims: goodDims })],
    ['one with strides', (data) => ({ data, dims: goodDims, strides: [12, 4, 2, 1] })],
    ['one whose dims are typed', (data) => ({ data, dims: Int32Array.from(goodDims) as never })],
    [
      // As transformers.js has it: a class around an ort.Tensor, whose parts are getters.
      'one of getters',
      (data) =>
        new (class {
          readonly ort_tensor = new ort.Tensor('float32', data, goodDims);
          get data() {
            return this.ort_tensor.data;
          }
          get dims() {
            return this.ort_tensor.dims;
          }
          get type() {
            return this.ort_tensor.type;
          }
        })(),
    ],
    [
      'one of another realm',
      (data) => {
        const tensor = runInNewContext('({ data: new Float32Array(24), dims: [2, 3, 2, 2] })') as {
          data: Float32Array;
        };
        tensor.data.set(data);
        return tensor as never;
      },
    ],
  ];
  const rows = foreign.flatMap(([what, make]) =>
    methods.flatMap((method) => tensorArguments[method].map((argument) => ({ what, make, method, argument }))),
  );

  test.each(rows)('$what serves $method as $argument', async ({ make, method, argument }) => {
    const values = new Generator(8).randn(goodDims).data as Float32Array;
    const reference = goodCall(method);
    put(reference, argument, new Tensor('float32', values.slice(), goodDims));
    const expected = run(method, reference);
    for (const start of [run, runAsync]) {
      const call = goodCall(method);
      const tensor = make(values.slice());
      put(call, argument, tensor);
      const actual = await start(method, call);
      bitEqual(floats(actual.prevSample), floats(expected.prevSample));
      if (expected.prevSampleMean) bitEqual(floats(actual.prevSampleMean!), floats(expected.prevSampleMean));
      // Inputs stay as they are; an output is the caller's own memory, and the result is a Tensor all the same.
      if (argument === 'out') expect(actual.prevSample.data).toBe(tensor.data);
      else if (argument === 'outMean') expect(actual.prevSampleMean!.data).toBe(tensor.data);
      else bitEqual(floats(tensor), values);
      expect(actual.prevSample).toBeInstanceOf(Tensor);
    }
  });

  test('arrays of another realm make tensors, and fill generator lists', () => {
    const data = runInNewContext('Float32Array.of(1, 2, 3, 4)') as Float32Array;
    const tensor = new Tensor(data, runInNewContext('[2, 2]') as number[]);
    expect([tensor.type, tensor.dims, tensor.data]).toEqual(['float32', [2, 2], data]);
    expect(tensor.data).toBe(data);
    bitEqual(tensor.clone().data, [1, 2, 3, 4]);
    bitEqual(new Tensor('float32', runInNewContext('[1, 2]') as number[], [2]).data, [1, 2]);
    const list = runInNewContext('(...items) => items') as (...items: Generator[]) => Generator[];
    const [call, reference] = [goodCall('stepPred'), goodCall('stepPred')];
    call.options.generator = list(new Generator(1), new Generator(2));
    reference.options.generator = [new Generator(1), new Generator(2)];
    bitEqual(floats(run('stepPred', call).prevSample), floats(run('stepPred', reference).prevSample));
  });
});

describe.each(devices)('numbers of others, for states on %s', (device) => {
  test.each(['timestep', 'sigma'])('one number a sample: %s', async (argument) => {
    const numbers: unknown[] = [
      new ort.Tensor('float32', Float32Array.of(0.25, 1), [2]),
      new ort.Tensor('float64', Float64Array.of(0.25, 1), [2]),
      new Tensor('float16', Uint16Array.of(0x3400, 0x3c00), [2]),
      new Tensor('bfloat16', Uint16Array.of(0x3e80, 0x3f80), [2]),
      { data: [0.25, 1], dims: [2] },
      runInNewContext('[0.25, 1]'),
      runInNewContext('Float32Array.of(0.25, 1)'),
    ];
    const method = argument === 'sigma' ? 'stepCorrect' : 'stepPred';
    const results = [];
    for (const value of [[0.25, 1], ...numbers]) {
      const call = goodCall(method, 'philox', device);
      call.options.stepSize = 'ald';
      put(call, argument, value);
      results.push((await elementsOf(run(method, call).prevSample)).slice());
    }
    for (const result of results) bitEqual(result, results[0]!);
    // The second sample's number must count, too.
    const other = goodCall(method, 'philox', device);
    other.options.stepSize = 'ald';
    put(other, argument, [0.25, 0.25]);
    expect([...(await elementsOf(run(method, other).prevSample))]).not.toEqual([...results[0]!]);
  });

  test('indices', async () => {
    const indices: unknown[] = [
      new ort.Tensor('int64', BigInt64Array.of(3n, 7n), [2]),
      new ort.Tensor('int32', Int32Array.of(3, 7), [2]),
      new Tensor('int64', BigInt64Array.of(3n, 7n), [2]),
      runInNewContext('BigInt64Array.of(3n, 7n)'),
      runInNewContext('[3, 7]'),
      [3n, 7n],
    ];
    const results = [];
    for (const value of [[3, 7], ...indices]) {
      const call = goodCall('addNoise', 'philox', device);
      put(call, 'timestep', value);
      results.push((await elementsOf(run('addNoise', call).prevSample)).slice());
    }
    for (const result of results) bitEqual(result, results[0]!);
    const adjacent = [[3, 7], ...indices].map((value) => scheduler().getAdjacentSigma(value as number[], 0));
    for (const result of adjacent) bitEqual(result, adjacent[0]!);
  });
});

describe('16-bit states', () => {
  const bits = () => Uint16Array.from({ length: 24 }, (_, i) => 0x3c00 + 37 * i);

  test('float16 as a Float16Array is what its bits are as a Uint16Array', () => {
    const data = bits();
    const tensor = new Tensor(float16Of(data) as never, goodDims);
    expect([tensor.type, tensor.size]).toEqual(['float16', 24]);
    expect(tensor.data.buffer).toBe(data.buffer);
    bitEqual(tensor.data as Uint16Array, data);
    data[0] = 0x4000;
    expect(tensor.data[0]).toBe(0x4000);
  });

  test.each(methods)('%s takes a Float16Array as an input and as out', async (method) => {
    for (const start of [run, runAsync]) {
      const results = [new Uint16Array(24), new Uint16Array(24)];
      const [plain, named] = [goodCall(method), goodCall(method)];
      put(plain, 'sample', { data: bits(), dims: goodDims });
      put(plain, 'out', { data: results[0], dims: goodDims });
      put(named, 'sample', { data: float16Of(bits()), dims: goodDims });
      put(named, 'out', { data: float16Of(results[1]!), dims: goodDims });
      run(method, plain);
      await start(method, named);
      bitEqual(results[1]!, results[0]!);
      expect(results[0]!.some((word) => word !== 0)).toBe(true);
    }
  });

  test.each(['float16', 'bfloat16'] as const)('%s is told from the other by its type alone', (type) => {
    // A step that changes nothing: a zero score, and no noise.
    const zeros = { data: new Float32Array(24), dims: goodDims };
    const call = goodCall('stepPred');
    Object.assign(call, { modelOutput: zeros, sample: { data: bits(), dims: goodDims, type } });
    put(call, 'noise', zeros);
    bitEqual(floats(run('stepPred', call).prevSample), decode(type, bits()));
  });
});

// In a process of its own: onnxruntime checks its results by class, which jest's realm has of its own.
test('a session of onnxruntime takes it as a feed, and a step takes what comes out', () => {
  const { stdout, stderr } = runPlainly(`
    const ort = require('onnxruntime-node');
    const { Generator, ScoreSdeVeScheduler, Tensor } = require('./lib');
    (async () => {
      const session = await ort.InferenceSession.create('models/digits/unet/model.onnx');
      const ours = {
        sample: new Generator(1).randn([1, 1, 28, 28]),
        timestep: new Tensor('float32', [0.5], [1]),
        class_labels: new Tensor('int64', BigInt64Array.of(3n), [1]),
      };
      const theirs = Object.fromEntries(
        Object.entries(ours).map(([name, { type, data, dims }]) => [name, new ort.Tensor(type, data, dims)]),
      );
      const [a, b] = [(await session.run(ours)).out_sample, (await session.run(theirs)).out_sample];
      const step = (modelOutput, sample) =>
        new ScoreSdeVeScheduler().stepPred(modelOutput, 0.5, sample, { generator: new Generator(2) }).prevSample.data;
      const copy = new Tensor('float32', Float32Array.from(b.data), b.dims);
      const same = (x, y) => x.length === y.length && x.every((value, i) => value === y[i]);
      console.log(JSON.stringify({
        dims: a.dims,
        same: same(a.data, b.data),
        moves: new Set(a.data).size > 100,
        steps: same(step(a, ours.sample), step(copy, theirs.sample)),
      }));
    })();
  `);
  expect(stderr).toBe('');
  expect(JSON.parse(stdout)).toEqual({ dims: [1, 1, 28, 28], same: true, moves: true, steps: true });
});
