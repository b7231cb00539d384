import {
  Generator,
  getNumThreads,
  ScoreSdeVeScheduler,
  setNumThreads,
  Tensor,
  type EngineName,
  type PhiloxState,
  type StateType,
  type StepSize,
} from '../lib';
import { cudaDevices, devices, elementsOf, isEmulated, reshaped } from './support/devices';
import { bitEqual } from './support/golden';

const engines: EngineName[] = ['philox', 'torch'];
const types: StateType[] = ['float32', 'float16', 'bfloat16'];
const shapes = [
  [1, 1],
  [5, 7],
  [3, 3, 61, 67],
  [2, 3, 256, 256],
];
/** Up to a size whose corrector takes two launches on a device, but no more where that is emulated. */
const shapesOn = (device: string) =>
  device !== 'cpu' && isEmulated ? [...shapes.slice(0, 3), [70, 2], [2, 3, 61, 97]] : [...shapes, [70, 2]];

const scheduler = new ScoreSdeVeScheduler();
scheduler.setTimesteps(20);
scheduler.setSigmas(20);

const generatorOf = (engine: EngineName, seed = 3) => new Generator(seed, { engine });
const draw = (generator: Generator, dims: number[], type: StateType = 'float32', device = 'cpu') =>
  generator.randn(dims, { type, device });

async function bytesOf(tensor: Tensor): Promise<Buffer> {
  const data = await elementsOf(tensor);
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
}

async function sameBits(actual: Tensor[], expected: Tensor[]): Promise<void> {
  expect(actual.map(({ type, dims }) => [type, dims])).toEqual(expected.map(({ type, dims }) => [type, dims]));
  for (const [i, tensor] of actual.entries()) {
    const [a, b] = [await bytesOf(tensor), await bytesOf(expected[i]!)];
    if (!a.equals(b)) bitEqual(a, b);
  }
}

interface Batch {
  sample: Tensor;
  score: Tensor;
  /** Where the samples stood in the batch that they are taken from: each has a timestep and a sigma of its own. */
  rows: number[];
  generator?: Generator | Generator[];
  noise?: Tensor;
  out: Tensor;
}

interface Operation {
  name: string;
  run: (batch: Batch) => Tensor[];
  runAsync: (batch: Batch) => Promise<Tensor[]>;
}

const timesteps = (rows: number[]) => Float32Array.from(rows, (row) => scheduler.timesteps![row]!);
const levels = (rows: number[]) => Float32Array.from(rows, (row) => 1 + row / 4);

const stepPred: Operation = {
  name: 'stepPred',
  run: ({ sample, score, rows, ...options }) =>
    scheduler.stepPred(score, timesteps(rows), sample, { ...options, returnDict: false }),
  runAsync: ({ sample, score, rows, ...options }) =>
    scheduler.stepPredAsync(score, timesteps(rows), sample, { ...options, returnDict: false }),
};

const stepCorrect = (stepSize: StepSize): Operation => ({
  name: `stepCorrect '${stepSize}'`,
  run: ({ sample, score, rows, ...options }) =>
    scheduler.stepCorrect(score, sample, { ...options, stepSize, sigma: levels(rows), returnDict: false }),
  runAsync: ({ sample, score, rows, ...options }) =>
    scheduler.stepCorrectAsync(score, sample, { ...options, stepSize, sigma: levels(rows), returnDict: false }),
});

const image = (tensor: Tensor) => reshaped(tensor, [...tensor.dims, 1, 1].slice(0, 4));
const addNoise: Operation = {
  name: 'addNoise',
  run: ({ sample, noise, rows, generator, out }) => [
    scheduler.addNoise(image(sample), noise && image(noise), rows, { generator, out: image(out) }),
  ],
  runAsync: async ({ sample, noise, rows, generator, out }) => [
    await scheduler.addNoiseAsync(image(sample), noise && image(noise), rows, { generator, out: image(out) }),
  ],
};

const uncoupled = [stepPred, stepCorrect('sample'), stepCorrect('dim'), stepCorrect('ald'), addNoise];
const steps = [...uncoupled, stepCorrect('batch')];

function batchOf(
  device: string,
  dims: number[],
  type: StateType,
  source: Pick<Batch, 'generator' | 'noise'>,
  outType = type,
): Batch {
  const inputs = new Generator(11);
  const [sample, score] = [draw(inputs, dims, type, device), draw(inputs, dims, type, device)];
  const rows = Array.from({ length: dims[0]! }, (_, row) => row % 20);
  return { sample, score, rows, out: Tensor.empty(dims, { type: outType, device }), ...source };
}

describe('whatever the number of threads and the device, on the event loop and off it', () => {
  const threads = getNumThreads();
  afterAll(() => setNumThreads(threads));

  const randn: Operation = {
    name: 'randn',
    run: ({ generator, out }) => [(generator as Generator).randn(out.dims, { out })],
    runAsync: async ({ generator, out }) => [await (generator as Generator).randnAsync(out.dims, { out })],
  };
  const cases: [StateType, StateType, EngineName][] = engines.flatMap((engine) => [
    ...types.map((type): [StateType, StateType, EngineName] => [type, type, engine]),
    ['float32', 'bfloat16', engine],
    ['float16', 'float32', engine],
  ]);

  describe.each([randn, ...steps])('$name', ({ run, runAsync }) => {
    const sources = (dims: number[], engine: EngineName) => {
      const one = () => generatorOf(engine);
      const each = () => Array.from({ length: dims[0]! }, (_, seed) => generatorOf(engine, seed));
      return run === randn.run ? [one] : [one, each];
    };

    if (devices.includes('cpu'))
      test.each(cases)('threads: %s to %s with %s generators', async (type, outType, engine) => {
        for (const dims of shapesOn('cpu'))
          for (const generator of sources(dims, engine)) {
            const batch = () => batchOf('cpu', dims, type, { generator: generator() }, outType);
            setNumThreads(1);
            const expected = run(batch());
            for (const count of [1, 2, 3, 7]) {
              setNumThreads(count);
              await sameBits(run(batch()), expected);
              await sameBits(await runAsync(batch()), expected);
            }
          }
      });

    if (cudaDevices.length === 0) return;
    test.each(cases)('devices: %s to %s with %s generators', async (type, outType, engine) => {
      const device = cudaDevices[0]!;
      for (const dims of shapesOn(device))
        for (const generator of sources(dims, engine)) {
          const batch = (place: string) => batchOf(place, dims, type, { generator: generator() }, outType);
          const expected = run(batch('cpu'));
          await sameBits(run(batch(device)), expected);
          await sameBits(await runAsync(batch(device)), expected);
        }
    });
  });
});

const typesAndEngines = types.flatMap((type) => engines.map((engine) => ({ type, engine })));

describe.each(devices.flatMap((device) => steps.map((step) => ({ ...step, device }))))(
  '$name on $device',
  ({ run, device }) => {
    test.each(typesAndEngines)('in place over any input gives the same: $type, $engine', async ({ type, engine }) => {
      for (const dims of shapes.slice(1, 3)) {
        const drawn = () => batchOf(device, dims, type, { generator: generatorOf(engine) });
        const given = () => batchOf(device, dims, type, { noise: draw(generatorOf(engine), dims, type, device) });
        for (const make of [drawn, given])
          for (const input of ['sample', 'score', 'noise'] as const) {
            const batch = make();
            if (batch[input]) await sameBits(run({ ...batch, out: batch[input] }), run(make()));
          }
      }
    });

    // The predictor and addNoise draw in the type of the sample, the corrector in float32.
    test.each(typesAndEngines)('draws what randn gives, whole or by rows: $type, $engine', async ({ type, engine }) => {
      const drawn = run === stepPred.run || run === addNoise.run ? type : 'float32';
      for (const dims of shapes.slice(0, 3)) {
        const noise = draw(generatorOf(engine), dims, drawn);
        const given = async () => batchOf(device, dims, type, { noise: await noise.to(device) });
        const expected = run(await given());
        await sameBits(run(batchOf(device, dims, type, { generator: generatorOf(engine) })), expected);

        const each = () => Array.from({ length: dims[0]! }, (_, seed) => generatorOf(engine, seed));
        const cols = noise.size / dims[0]!;
        each().forEach((generator, row) => {
          const own = noise.data.subarray(row * cols, (row + 1) * cols) as Float32Array;
          generator.randn([cols], { out: new Tensor(drawn, own, [cols]) });
        });
        await sameBits(run(batchOf(device, dims, type, { generator: each() })), run(await given()));
      }
    });
  },
);

/** Samples of one batch of 16, in any choice and order. */
async function samples(device: string, rows: number[], type: StateType, engine: EngineName): Promise<Batch> {
  const { sample, score } = batchOf('cpu', [16, 3, 17, 13], type, {});
  const dims = [rows.length, 3, 17, 13];
  const taken = async (from: Tensor) => {
    const tensor = Tensor.empty(dims, { type });
    const bytes = await bytesOf(tensor);
    for (const [i, row] of rows.entries()) bytes.set(await rowOf(from, row), (i * bytes.length) / rows.length);
    return tensor.to(device);
  };
  const generator = rows.map((row) => generatorOf(engine, row));
  const out = Tensor.empty(dims, { type, device });
  return { sample: await taken(sample), score: await taken(score), rows, generator, out };
}

async function rowOf(tensor: Tensor, row: number): Promise<Buffer> {
  const bytes = await bytesOf(tensor);
  const size = bytes.length / tensor.dims[0]!;
  return bytes.subarray(row * size, (row + 1) * size);
}

describe.each(devices)('a sample with a generator of its own on %s', (device) => {
  const all = Array.from({ length: 16 }, (_, row) => row);
  const four = [9, 0, 15, 4];

  describe.each(uncoupled)('$name', ({ run }) => {
    test.each(typesAndEngines)('does not depend on its batch: $type, $engine', async ({ type, engine }) => {
      const [of16, of4] = [
        run(await samples(device, all, type, engine)),
        run(await samples(device, four, type, engine)),
      ];
      for (const row of all)
        for (const [k, alone] of run(await samples(device, [row], type, engine)).entries()) {
          const bytes = await bytesOf(alone);
          bitEqual(await rowOf(of16[k]!, row), bytes);
          if (four.includes(row)) bitEqual(await rowOf(of4[k]!, four.indexOf(row)), bytes);
        }
    });
  });

  test("stepCorrect 'batch' does depend on it, as the reference does", async () => {
    const { run } = stepCorrect('batch');
    const [of16] = run(await samples(device, all, 'float32', 'philox'));
    for (const row of all) {
      const [alone] = run(await samples(device, [row], 'float32', 'philox'));
      expect((await rowOf(of16!, row)).equals(await bytesOf(alone!))).toBe(false);
    }
  });
});

describe('where a draw lies in its stream', () => {
  const start = 2n ** 32n - 700n; // the counter carries on the way
  const at = (offset: bigint) =>
    new Generator(5).setState({ engine: 'philox', seed: 5n, offset: BigInt.asUintN(64, offset) });
  const values = (generator: Generator, n: number) => draw(generator, [n]).data as Float32Array;

  test('philox: element i is word i % 4 of counter offset + i / 4', () => {
    const whole = values(at(start), 4100);
    for (const counter of [0, 1, 15, 63, 64, 255, 256, 699, 700, 701, 1024])
      bitEqual(values(at(start + BigInt(counter)), 4100 - 4 * counter), whole.subarray(4 * counter));
  });

  test('philox: the counter wraps at 2^64', () => {
    const whole = values(at(-20n), 160);
    for (let counter = 0; counter < 40; counter++)
      bitEqual(values(at(BigInt(counter) - 20n), 4), whole.subarray(4 * counter, 4 * counter + 4));
  });

  test.each([0, 1, 3, 4, 5, 1024, 4097])('philox: a draw of %d takes ceil(n / 4) counters', (n) => {
    const generator = at(start);
    values(generator, n);
    expect((generator.getState() as PhiloxState).offset).toBe(start + BigInt(Math.ceil(n / 4)));
  });

  test.each([
    [8, 5, true],
    [2048, 1000, true],
    [5, 8, false],
    [1023, 1, false],
  ])('philox: draws of %d and %d are one draw cut in two: %p', (first, second, same) => {
    const generator = at(start);
    const parts = [...values(generator, first), ...values(generator, second)];
    const whole = values(at(start), first + second);
    bitEqual(parts.slice(0, first), whole.subarray(0, first));
    expect(parts.slice(first).every((value, i) => value === whole[first + i])).toBe(same);
  });

  test.each(engines)('%s: asynchronous draws are taken in the order of the calls', async (engine) => {
    const generator = generatorOf(engine);
    const sizes = [20, 5, 70000, 3, 16];
    const together = await Promise.all(sizes.map((n) => generator.randnAsync([n])));
    const oneByOne = generatorOf(engine);
    await sameBits(
      together,
      sizes.map((n) => draw(oneByOne, [n])),
    );
  });
});
