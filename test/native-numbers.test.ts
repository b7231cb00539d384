import { join } from 'node:path';
import { Generator, OnnxModel } from '../lib';
import { Dtype, NoiseKind, type RunNetworkArgs } from '../lib/native/abi';
import { native } from '../lib/native/addon';
import { root } from './support/paths';
import { failure, rejection } from './support/refusals';

// Numbers that the package never gives to its addon: refused where they are read, for none is cut down to what fits.
const floats = new Float32Array(16);
const f32 = Dtype.float32;
const refused = (call: () => unknown, code = 'ERR_NATIVE') => expect(failure(call).code).toBe(code);
const rejected = async (call: () => Promise<unknown>) => expect((await rejection(call)).code).toBe('ERR_NATIVE');
const never = [NaN, -1, 0.5, Infinity, -Infinity, 2 ** 53, 1e300, '1', undefined] as number[];

const most = { int: 2 ** 31 - 1, safe: 2 ** 53 - 1 };

test.each<[string, number, (n: number) => unknown]>([
  ['allocate', most.safe, (n) => native.allocate(n)],
  ['setNumThreads', most.int, (n) => native.setNumThreads(n)],
  ['streamRate', most.safe, (n) => native.streamRate(n)],
  ['normalRate', most.safe, (n) => native.normalRate(n)],
  ['linspace', most.safe, (n) => native.linspace(n, floats, 0, 1)],
  ['the rows of randn', most.safe, (n) => native.randn(n, 1, NoiseKind.philox, [1n, 0n], f32, 1, floats, f32)],
  ['the columns of randn', most.safe, (n) => native.randn(1, n, NoiseKind.philox, [1n, 0n], f32, 1, floats, f32)],
  ['clamp', most.safe, (n) => native.clamp(n, floats, f32, floats, f32, 1, 0)],
  ['convert', most.safe, (n) => native.convert(n, floats, f32, floats, f32)],
  ...[0, 1, 2, 3, 4].map((at): [string, number, (n: number) => unknown] => [
    `size ${at} of imageGrid`,
    most.safe,
    (n) =>
      native.imageGrid(
        ...([0, 1, 2, 3, 4].map((i) => (i === at ? n : 1)) as [1, 1, 1, 1, 1]),
        floats,
        f32,
        new Uint8Array(16),
      ),
  ]),
  ['a device', most.int, (n) => native.deviceStream(n)],
  ['the device of a mark', most.int, (n) => native.deviceMark(n, 4)],
])('%s', (_, largest, call) => {
  // The last two would be small ones, were they cut down to a word of 32 bits.
  const beyond = largest < 2 ** 32 ? [largest + 1, 2 ** 32, 2 ** 32 + 1] : [];
  for (const n of [...never, ...beyond]) refused(() => call(n));
});

test('words of more than 64 bits, and negative ones', () => {
  for (const word of [2n ** 64n, 2n ** 64n + 1n, -1n]) {
    refused(() => native.torchSeed(new Uint8Array(5056), word));
    for (const pair of [[word, 0n] as const, [0n, word] as const])
      refused(() => native.randn(1, 1, NoiseKind.philox, pair, f32, 1, floats, f32));
  }
});

test('lists of what are no counts', async () => {
  for (const n of never)
    await rejected(() => native.randnAsync([n], 1, 1, NoiseKind.philox, [1n, 0n], f32, 1, floats, f32));
});

test('sizes whose product no number counts', () => {
  const large = 2 ** 16;
  refused(() => native.randn(2 ** 32, 2 ** 32, NoiseKind.philox, [1n, 0n], f32, 1, floats, f32));
  // 2^64, which a word holds as 0, and with it a memory of nothing would do.
  const out = new Uint8Array(16);
  refused(() => native.imageGrid(large, large, large, large, large, floats, f32, out));
  refused(() => native.imageGrid(1, large, large, 1, 2 ** 32, floats, f32, out), 'ERR_SHAPE');
  refused(() => native.imageGrid(1, 2, 2, 2, 2 ** 61, floats, f32, out));
  native.imageGrid(large, 0, large, large, large, floats, f32, out);
  expect(out).toEqual(new Uint8Array(16));
});

test('more elements than memory holds', () => {
  refused(() => native.streamRate(2 ** 52), 'ERR_MEMORY');
});

describe('a network', () => {
  test.each([0, 1, 2, 6])('is not loaded with a %i-th number that an int does not hold', async (at) => {
    const numbers = [1, 1, 1, false, false, false, 2].map((n, i) => (i === at ? 2 ** 32 + 1 : n));
    const load = () =>
      native.loadNetworkAsync('none', false, 'none', ...(numbers as [1, 1, 1, true, true, true, 1]), 0);
    await rejected(load);
  });

  test('is run by any number of calls, of any number of rows', async () => {
    const model = await OnnxModel.load(join(root, 'models', 'digits', 'unet', 'model.onnx'));
    const sample = new Generator(1).randn([3, 1, 28, 28]);
    const inputs = { class_labels: 3 };
    const spy = jest.spyOn(native, 'runNetworkAsync');
    const expected = await model.run(sample, 1, inputs);
    const [order, network, ...rest] = spy.mock.lastCall as unknown as [number[], ...RunNetworkArgs];
    const run = (atOnce: number, id: number, perCall: number) => {
      const args = [network, network, atOnce, id, perCall, ...rest.slice(4)] as unknown as RunNetworkArgs;
      return native.runNetworkAsync([native.nextCall()], ...args);
    };
    expect(order.length).toBeGreaterThan(0);
    const out = rest[10] as Float32Array;
    for (const [atOnce, perCall] of [
      [2, 1],
      [2 ** 32, 2 ** 32],
      [2 ** 53 - 1, 2 ** 53 - 1],
      [2 ** 11, 2 ** 53 - 1],
      [2 ** 53 - 1, 1],
    ] as const) {
      out.fill(NaN);
      await run(atOnce, 7, perCall);
      expect(out).toEqual(expected.data);
    }
    await rejected(() => run(2, 2 ** 32, 1));
    spy.mockRestore();
    await model.dispose();
  });
});
