import { Generator, ScoreSdeVeScheduler, Tensor } from '../lib';
import { Dtype, NoiseKind, Row, RowKind, RowNormals, StepSizeCode, type Noise, type StepArgs } from '../lib/native/abi';
import { native } from '../lib/native/addon';
import { DeviceMemory } from '../lib/native/memory';
import { inOrder } from '../lib/native/order';
import { cudaDevices, devices, elementsOf, on } from './support/devices';

type Type = 'float32' | 'float16' | 'bfloat16';
type Fields = Partial<Record<Exclude<keyof typeof Row, 'size' | 'b'>, number>> & { b?: number[] };

/** A record whose other places are those of a row that does nothing but copy. */
function record({ b = [], ...fields }: Fields): number[] {
  const places = Array.from({ length: Row.size }, () => 0);
  places[Row.kind] = RowKind.linear;
  places[Row.pm] = 1;
  places[Row.a] = 1;
  for (const [name, value] of Object.entries(fields)) places[Row[name as keyof Fields & keyof typeof Row]] = value;
  b.forEach((value, k) => (places[Row.b + k] = value));
  return places;
}

/** What a step works on, [rows, cols] each. */
interface Operands {
  sample: Tensor;
  output: Tensor;
  history: Tensor[];
  base: Tensor;
  given: Tensor;
}

/** What a step gives; bits of the 16-bit types. */
interface Results {
  out: ArrayLike<number>;
  mean: ArrayLike<number>;
  pushed: ArrayLike<number>;
  bad: number[];
}

const names = ['sample', 'output', 'base', 'given'] as const;

function drawn(dims: number[], type: Type): Operands {
  let seed = 1;
  const next = () => new Generator(seed++).randn(dims, { type } as { type: 'float32' }) as Tensor;
  const history = Array.from({ length: 6 }, next);
  return { sample: next(), output: next(), history, base: next(), given: next() };
}

/** The memory of a tensor and its type, as the addon takes them. */
function pair(tensor: Tensor | null): [never, Dtype] {
  return [(tensor?.memory ?? null) as never, tensor === null ? Dtype.float32 : Dtype[tensor.type as Type]];
}

/** Runs a step on a device; `aliased` changes its operands there. */
async function run(
  device: string,
  records: number[][],
  operands: Operands,
  noise: Noise,
  aliased: (there: Operands & { out: Tensor; mean: Tensor; pushed: Tensor }) => void = () => {},
): Promise<Results> {
  const { dims, type } = operands.sample;
  const copy = (tensor: Tensor) => on(device, tensor.clone());
  const blank = () => Tensor.zeros(dims, { type, device } as { type: 'float32' }) as Tensor;
  const there = {
    ...(Object.fromEntries(await Promise.all(names.map(async (n) => [n, await copy(operands[n])]))) as Operands),
    history: await Promise.all(operands.history.map(copy)),
    out: blank(),
    mean: blank(),
    pushed: blank(),
  };
  aliased(there);
  const { sample, output, given, base, history, out, mean, pushed } = there;
  const [rows, cols] = dims as [number, number];
  const marked = device === 'cpu' ? undefined : native.deviceMark(Number(device.slice(5)), rows);
  const bad = native.step(
    ...([
      rows,
      cols,
      Float32Array.from(records.flat()),
      ...pair(sample),
      ...pair(output),
      ...noise,
      ...pair(out),
      ...pair(mean),
      ...pair(pushed),
      ...pair(given),
      ...pair(base),
      history.length,
      ...history.flatMap(pair),
      ...(marked ? [marked.handle, 7] : []),
    ] as StepArgs),
  );
  const told = marked ? await markedRows(device, marked.mark) : Array.from(bad ?? []);
  const [o, m, p] = (await Promise.all([out, mean, pushed].map(elementsOf))) as [
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  return { out: o, mean: m, pushed: p, bad: told };
}

async function markedRows(device: string, mark: object): Promise<number[]> {
  await native.deviceDoneAsync(Number(device.slice(5)));
  return Array.from(native.deviceMarkSeen(mark)).flatMap((word, row) => (word === 7 ? [row] : []));
}

/** Some rows of operands, as a batch. */
function rowsOf(operands: Operands, first: number, count: number): Operands {
  const cut = (tensor: Tensor): Tensor => {
    const cols = tensor.dims[1]!;
    const part = (tensor.data as Float32Array).slice(first * cols, (first + count) * cols);
    return new Tensor(tensor.type as 'float32', part, [count, cols]);
  };
  return {
    ...(Object.fromEntries(names.map((n) => [n, cut(operands[n])])) as unknown as Operands),
    history: operands.history.map(cut),
  };
}

const slice = (values: ArrayLike<number>, first: number, count: number): number[] =>
  Array.from(values).slice(first, first + count);

const none: Noise = [NoiseKind.none, null, Dtype.float32];
const { fround } = Math;
const { drawn: Drawn, given: Given, none: None } = RowNormals;

const correct = { kind: RowKind.correct, snr: 0.2 };
/** Rows of every kind, in groups that belong together. */
const groups: Fields[][] = [
  [{ kind: RowKind.predict, normals: Drawn, sigma: 1.7, next: 1.6, phase: 1 }],
  [
    { ...correct, normals: Drawn, group: 1, phase: 2 },
    { ...correct, normals: Drawn, group: 1 },
    { ...correct, normals: Given, group: 1, snr: 0.3 },
  ],
  [{ ...correct, normals: Drawn, group: 2, converts: 1, px: -0.3, pm: 0.4 }],
  [{ terms: 3, b: [0.5, -0.25, 0.125], a: 0.9, e: 0.3, normals: Drawn, converts: 1, px: 0.9, pm: -1.1, phase: 3 }],
  [{ ...correct, normals: Drawn, stepSize: StepSizeCode.sample }],
  [{ terms: 2, b: [0.5, -0.25], a: 1.1 }],
  [{ ...correct, normals: None, stepSize: StepSizeCode.dim }],
  [{ kind: RowKind.predict, normals: None, sigma: 0.9, next: 0.4, converts: 1, px: 0.1, pm: 2 }],
  [{ terms: 7, b: [1, 2, 3, 4, 0, 5, 6], base: -1, a: 0.5, e: 2, normals: Given }],
  [{ ...correct, normals: Given, stepSize: StepSizeCode.ald, sigma: 2 }],
  [{ e: 3, normals: Given }],
  [{ kind: RowKind.predict, normals: Given, sigma: 3, next: 2 }],
];

describe.each(devices)('on %s', (device) => {
  test('a result that is infinite only as a float16 is not finite, whatever the update', async () => {
    const operands = drawn([4, 1300], 'float16');
    (operands.sample.data as Uint16Array).fill(0);
    (operands.output.data as Uint16Array).fill(0x3c00); // 1
    // x + sigma^2 m, and x + 2 (snr sigma)^2 m; 65520 rounds to infinity.
    const predictor = (to: number) => record({ kind: RowKind.predict, sigma: Math.sqrt(to) });
    const corrector = (to: number) =>
      record({ kind: RowKind.correct, stepSize: StepSizeCode.ald, snr: 1, sigma: Math.sqrt(to / 2) });
    const rows = [predictor(65_521), predictor(65_519), corrector(65_519), corrector(65_521)];
    const { out, bad } = await run(device, rows, operands, none);
    expect(bad).toEqual([0, 3]);
    expect([0, 1300, 2600, 3900].map((at) => out[at])).toEqual([0x7c00, 0x7bff, 0x7bff, 0x7c00]);
  });

  describe.each(['float32', 'float16', 'bfloat16'] as const)('%s', (type) => {
    // Rows that end within a vector, a counter and a block; and short ones.
    test.each([3001, 7])('rows of all kinds at once give the bits of each alone, %i columns', async (cols) => {
      const rows = groups.flat();
      const operands = drawn([rows.length, cols], type);
      const streams = rows.map((_, row) => [BigInt(row + 1), 1000n * BigInt(row)]);
      const noise = (first: number, count: number): Noise => [
        NoiseKind.philox,
        BigUint64Array.from(streams.slice(first, first + count).flat()),
        Dtype.float32,
      ];
      const whole = await run(device, rows.map(record), operands, noise(0, rows.length));
      let first = 0;
      for (const group of groups) {
        const count = group.length;
        const alone = await run(device, group.map(record), rowsOf(operands, first, count), noise(first, count));
        for (const what of ['out', 'mean', 'pushed'] as const) {
          const expected = slice(whole[what], first * cols, count * cols);
          expect([first, what, Array.from(alone[what])]).toEqual([first, what, expected]);
        }
        first += count;
      }
    });

    test('a linear update rounds after each operation, in its order', async () => {
      const operands = drawn([2, 1500], type);
      const [a, px, pm, base, e] = [0.7, 1.3, -0.6, 0.2, 0.4].map(fround) as [number, number, number, number, number];
      const b = [0.9, -0.8, 0, 0.6, 0.5, -0.4, 0.3].map(fround);
      const row = record({ terms: 7, b, a, base, e, converts: 1, px, pm, normals: Given });
      const { out, mean, pushed } = await run(device, [row], operands, none);
      const wide = (tensor: Tensor) => widened(tensor.data as Float32Array, type);
      const [x, m, x0, z] = [operands.sample, operands.output, operands.base, operands.given].map(
        wide,
      ) as Float32Array[];
      const history = operands.history.map(wide);
      const expected = { out: new Float32Array(3000), mean: new Float32Array(3000), pushed: new Float32Array(3000) };
      for (let i = 0; i < 3000; i++) {
        const p = fround(fround(px * x![i]!) + fround(pm * m![i]!));
        let sum = fround(fround(a * x![i]!) + fround(b[0]! * p));
        for (let k = 1; k < 7; k++) if (b[k] !== 0) sum = fround(sum + fround(b[k]! * history[k - 1]![i]!));
        sum = fround(sum + fround(base * x0![i]!));
        expected.pushed[i] = p;
        expected.mean[i] = sum;
        expected.out[i] = fround(sum + fround(e * z![i]!));
      }
      const got = { out, mean, pushed };
      for (const what of ['out', 'mean', 'pushed'] as const)
        expect(Array.from(got[what])).toEqual(Array.from(narrowed(expected[what], type)));
    });

    test('what a row does not use is not read', async () => {
      const operands = drawn([3, 1100], type);
      const nan = type === 'float32' ? NaN : 0x7fff;
      for (const unused of [operands.history[0]!, operands.history[2]!, operands.base, operands.given])
        (unused.data as Float32Array).fill(nan);
      (operands.output.data as Float32Array).subarray(2200).fill(nan);
      const rows = [
        record({ terms: 1, b: [0.5], e: NaN }),
        record({ terms: 4, b: [0, 0, 0.5, 0], converts: 1, px: 1, pm: 1 }),
        record({ a: 2 }),
      ];
      const { out, pushed, bad } = await run(device, rows, operands, none);
      expect(bad).toEqual([]);
      const isNumber = (values: ArrayLike<number>) =>
        Array.from(widened(values as Float32Array, type)).every(Number.isFinite);
      expect(isNumber(out)).toBe(true);
      // P of a row whose own factor for it is 0 is kept, and none of a row without terms.
      expect(slice(pushed, 1100, 1100).some((value) => value !== 0)).toBe(true);
      expect(slice(pushed, 2200, 1100).every((value) => value === 0)).toBe(true);
      expect(isNumber(pushed)).toBe(true);
    });

    test('rows that are not finite are told, and no others', async () => {
      const operands = drawn([5, 1300], type);
      const values = operands.sample.data as Float32Array;
      values[1300 * 2 - 1] = type === 'float32' ? Infinity : type === 'float16' ? 0x7c00 : 0x7f80;
      const still = record({});
      // Finite before it is rounded to a 16-bit type.
      const large = record({ a: { float32: 3e38, float16: 65519, bfloat16: 3.39e38 }[type] });
      values.fill(type === 'float32' ? 1 : type === 'float16' ? 0x3c00 : 0x3f80, 3 * 1300);
      const { bad } = await run(device, [still, still, still, large, still], operands, none);
      expect(bad).toEqual([1]);
      const larger = record({ a: { float32: Infinity, float16: 65520, bfloat16: 3.4e38 }[type] });
      expect((await run(device, [still, still, still, large, larger], operands, none)).bad).toEqual([1, 4]);
      expect((await run(device, [still], operands, none)).bad).toEqual([1]);
    });

    test.each(['batch', 'sample', 'dim'] as const)(
      "a corrector may write in its operands' place, %s",
      async (stepSize) => {
        // Long rows of one stream, all correctors or not.
        const corrector = { kind: RowKind.correct, stepSize: StepSizeCode[stepSize], snr: 0.2, normals: Drawn };
        const operands = drawn([4, 20_001], type);
        for (const others of [corrector, { e: 1, normals: Drawn }]) {
          const rows = [corrector, others, corrector, corrector].map(record);
          const noise: Noise = [NoiseKind.philox, [5n, 6n], Dtype.float32];
          const { out, bad } = await run(device, rows, operands, noise);
          for (const place of ['sample', 'output'] as const) {
            const there = await run(device, rows, operands, noise, (all) => (all.out = all[place]));
            expect([place, Buffer.compare(bytes(there.out), bytes(out)), there.bad]).toEqual([place, 0, bad]);
          }
        }
      },
    );

    test('results may take the place of operands', async () => {
      const rows = [record({ terms: 3, b: [0.5, -0.25, 0.125], base: 0.5, e: 1, normals: Given, a: 0.9 })];
      const operands = drawn([2, 2100], type);
      const expected = await run(device, rows, operands, none);
      const places: ((there: Operands & { out: Tensor; mean: Tensor; pushed: Tensor }) => void)[] = [
        (there) => ((there.out = there.sample), (there.pushed = there.history[0]!)),
        (there) => ((there.out = there.output), (there.pushed = there.history[1]!)),
        (there) => ((there.out = there.history[0]!), (there.pushed = there.output)),
        (there) => ((there.out = there.base), (there.mean = there.sample), (there.pushed = there.given)),
        (there) => ((there.out = there.given), (there.mean = there.output)),
      ];
      for (const aliased of places) expect(await run(device, rows, operands, none, aliased)).toEqual(expected);
    });

    test('one stream is a draw of the whole batch, wherever a row takes no part in it', async () => {
      const operands = drawn([3, 1029], type);
      const rows = [{ e: 1, normals: Drawn }, { e: 1 }, { e: 1, normals: Drawn, a: 0.5 }].map(record);
      const one = await run(device, rows, operands, [NoiseKind.philox, [5n, 6n], Dtype[type]]);
      const draw = new Generator(5).setState({ engine: 'philox', seed: 5n, offset: 6n });
      const given = draw.randn([3, 1029], { type } as { type: 'float32' }) as Tensor;
      const again = rows.map((row) => row.map((value, place) => (place === Row.normals ? 2 * value : value)));
      const { out } = await run(device, again, { ...operands, given }, none);
      expect(Array.from(one.out)).toEqual(Array.from(out));
    });
  });
});

if (cudaDevices.length > 0) {
  test.each(cudaDevices)('%s and the CPU give the same bits', async (device) => {
    const rows = groups.flat();
    const operands = drawn([rows.length, 2050], 'float32');
    const streams = BigUint64Array.from(rows.flatMap((_, row) => [BigInt(row), 3n]));
    const noise: Noise = [NoiseKind.philox, streams, Dtype.float32];
    expect(await run(device, rows.map(record), operands, noise)).toEqual(
      await run('cpu', rows.map(record), operands, noise),
    );
  });

  test.each(cudaDevices)('a part of a block on %s lives as long as it is used', async (device) => {
    const index = Number(device.slice(5));
    const whole = native.deviceAllocate(index, 1024);
    native.deviceUpload(
      whole,
      Float32Array.from({ length: 256 }, (_, i) => i),
    );
    const part = native.deviceSlice(whole, 512, 256);
    expect(() => native.deviceSlice(whole, 1000, 25)).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
    native.deviceRelease(whole);
    const memory = new DeviceMemory(part, index, 64, 256);
    expect((await elementsOf(new Tensor('float32', memory as never, [64])))[63]).toBe(191);
    memory.release();
  });
}

test('a call that waits for its turn keeps its records', async () => {
  const scheduler = new ScoreSdeVeScheduler();
  scheduler.setTimesteps(10);
  scheduler.setSigmas(10);
  const [x, score] = [new Generator(1).randn([3, 40]), new Generator(2).randn([3, 40])];
  const noise = new Generator(3).randn([3, 40]);
  const levels = [[0.3], [0.9], [0.2, 0.5, 0.7], [0.8, 0.4, 0.6]];
  const expected = levels.map((t) => scheduler.stepPred(score, t, x, { noise }).prevSample.data);
  // Work that is none of the addon's calls: what comes after it is handed over when it ends.
  const access = { reads: [], writes: [x.data.buffer] };
  const first = inOrder(access, () => new Promise<void>((resolve) => setTimeout(resolve, 20)));
  const steps = levels.map((t) => scheduler.stepPredAsync(score, t, x, { noise }));
  await first;
  expect((await Promise.all(steps)).map(({ prevSample }) => prevSample.data)).toEqual(expected);
});

describe('what the addon refuses', () => {
  const operands = drawn([2, 8], 'float32');
  const refused = (rows: Fields[], noise: Noise = none, without: Partial<Record<keyof Operands, null>> = {}) =>
    expect(() => {
      const { sample, output, given, base, history } = { ...operands, ...without };
      native.step(
        ...([
          2,
          8,
          Float32Array.from(rows.flatMap(record)),
          ...pair(sample),
          ...pair(output),
          ...noise,
          ...pair(Tensor.empty([2, 8])),
          ...[null, Dtype.float32, null, Dtype.float32],
          ...pair(given),
          ...pair(base),
          ...(history ? [6, ...history.flatMap(pair)] : [0]),
        ] as unknown as StepArgs),
      );
    }).toThrow(expect.objectContaining({ code: 'ERR_NATIVE' }));

  test.each(['kind', 'normals', 'stepSize', 'converts', 'terms', 'phase', 'group'] as const)(
    'a %s out of range',
    (name) => {
      for (const value of [NaN, -1, 0.5, 2 ** 25, Infinity]) refused([{ [name]: value }, {}]);
    },
  );

  test('operands, noise and streams that are not there', () => {
    refused([{}, { terms: 1 }], none, { output: null });
    refused([{ kind: RowKind.predict }], none, { output: null });
    refused([{ terms: 2, b: [1, 1] }], none, { history: null });
    refused([{ base: 1 }], none, { base: null });
    refused([{ normals: Given }], none, { given: null });
    refused([{ normals: Drawn }]);
    refused([{ ...correct, stepSize: StepSizeCode.sample }]);
    refused([{ normals: Drawn, phase: 1 }], [NoiseKind.philox, [1n, 0n], Dtype.float32]);
    const state = new Uint8Array(5056);
    native.torchSeed(state, 1n);
    refused([{ normals: Drawn }, {}], [NoiseKind.torch, [state], Dtype.float32]);
  });

  test('records of another number than rows, and memory that is shorter', () => {
    refused([]);
    expect(() => native.step(3, 8, ...shortArgs(2))).toThrow(expect.objectContaining({ code: 'ERR_NATIVE' }));
    expect(() => native.step(3, 8, ...shortArgs(1))).toThrow(expect.objectContaining({ code: 'ERR_SHAPE' }));
  });

  const shortArgs = (records: number) => {
    const memory = new Float32Array(16);
    const nothing = [null, Dtype.float32] as const;
    return [
      Float32Array.from(Array.from({ length: records }, () => record({})).flat()),
      memory,
      Dtype.float32,
      ...nothing,
      NoiseKind.none,
      ...nothing,
      memory,
      Dtype.float32,
    ] as const;
  };
});

/** 16-bit values as float32; float32 ones as they are. */
function widened(values: Float32Array, type: Type): Float32Array {
  const wide = new Float32Array(values.length);
  native.convert(values.length, values, Dtype[type], wide, Dtype.float32);
  return wide;
}

function bytes(values: ArrayLike<number>): Buffer {
  const { buffer, byteOffset, byteLength } = values as Float32Array;
  return Buffer.from(buffer, byteOffset, byteLength);
}

function narrowed(values: Float32Array, type: Type): Float32Array | Uint16Array {
  const narrow = type === 'float32' ? new Float32Array(values.length) : new Uint16Array(values.length);
  native.convert(values.length, values, Dtype.float32, narrow, Dtype[type]);
  return narrow;
}
