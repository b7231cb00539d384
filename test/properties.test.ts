import fc from 'fast-check';
import { PNG } from 'pngjs';
import {
  fromInferenceSession,
  Generator,
  getNumThreads,
  ScoreSdeError,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  setNumThreads,
  Tensor,
  toPng,
  type StateType,
  type StepSize,
  type TensorType,
} from '../lib';
import { formatConfig, parseConfig } from '../lib/scheduler/config';
import { bitEqual } from './support/golden';

// What holds for whatever a caller hands in: results that agree with one another, or a ScoreSdeError.
beforeAll(() => void jest.spyOn(process, 'emitWarning').mockImplementation(() => {}));
afterAll(() => void jest.restoreAllMocks());

const small = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2, maxLength: 4 });
const seeds = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 64n - 1n });
const stateTypes = fc.constantFrom<StateType>('float32', 'float16', 'bfloat16');
const engines = fc.constantFrom('philox' as const, 'torch' as const);
const configs = fc.record(
  {
    numTrainTimesteps: fc.integer({ min: 1, max: 60 }),
    snr: fc.double({ min: 0, max: 2, noNaN: true }),
    sigmaMin: fc.double({ min: 1e-6, max: 10, noNaN: true }),
    sigmaMax: fc.double({ min: 1e-6, max: 5000, noNaN: true }),
    samplingEps: fc.double({ min: 1e-7, max: 0.01, noNaN: true }),
    correctSteps: fc.integer({ min: 0, max: 3 }),
  },
  { requiredKeys: [] },
);
const floats = (tensor: Tensor) => tensor.data as Float32Array;

/** What nobody should hand in, and what is nearly right. */
const anything = fc.oneof(
  fc.anything({ withBigInt: true, withDate: true, withMap: true, withTypedArray: true, withSparseArray: true }),
  fc.constantFrom(new Generator(1), Tensor.zeros([1, 2]), new ScoreSdeVeScheduler(), Symbol('x'), () => 0),
  fc.record(
    {
      data: fc.oneof(fc.float32Array({ maxLength: 6 }), fc.uint16Array({ maxLength: 6 }), fc.anything()),
      dims: fc.oneof(small, fc.anything()),
      type: fc.oneof(fc.constantFrom('float32', 'float16', 'int64'), fc.anything()),
    },
    { requiredKeys: [] },
  ),
);

/** Options of these names with any values. */
const options = (...names: string[]) =>
  fc.record(Object.fromEntries(names.map((name) => [name, fc.oneof(fc.constant(undefined), anything)])), {
    requiredKeys: [],
  });

describe('any arguments: a result, or a ScoreSdeError', () => {
  const threads = getNumThreads();
  afterEach(() => setNumThreads(threads));
  const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 5 });
  const x = Tensor.zeros([1, 2]);
  const pipeline = new ScoreSdeVePipeline({ scheduler, model: (sample) => sample, sampleShape: [2] });
  const calls: Record<string, (...args: any[]) => unknown> = {
    'new ScoreSdeVeScheduler': (a) => new ScoreSdeVeScheduler(a),
    fromConfig: (a, b) => ScoreSdeVeScheduler.fromConfig(a, b),
    setTimesteps: (a, b) => new ScoreSdeVeScheduler().setTimesteps(a, b),
    setSigmas: (a, b) => new ScoreSdeVeScheduler().setSigmas(a, b),
    getAdjacentSigma: (a, b) => scheduler.getAdjacentSigma(a, b),
    stepPred: (a, b, c, d) => scheduler.stepPred(a, b, c, d),
    'stepPred, options': (a) => scheduler.stepPred(x, 1, x, a),
    stepPredAsync: (a, b, c, d) => scheduler.stepPredAsync(a, b, c, d),
    stepCorrect: (a, b, c) => scheduler.stepCorrect(a, b, c),
    'stepCorrect, options': (a) => scheduler.stepCorrect(x, x, a),
    stepCorrectAsync: (a, b, c) => scheduler.stepCorrectAsync(a, b, c),
    addNoise: (a, b, c) => scheduler.addNoise(a, b, c),
    'new Tensor': (a, b, c) => new Tensor(a, b, c),
    'Tensor.empty, options': (a) => Tensor.empty([2], a),
    'tensor.to': (a) => x.to(a),
    'new Generator': (a, b) => new Generator(a, b),
    'randn, options': (a) => new Generator(1).randn([2], a),
    manualSeed: (a) => new Generator(1).manualSeed(a),
    setState: (a) => new Generator(1).setState(a),
    'setState, torch': (a) => new Generator(1, { engine: 'torch' }).setState(a),
    toPng: (a, b) => toPng(a, b),
    'toPng, options': (a) => toPng(Tensor.zeros([1, 1, 2, 2]), a),
    setNumThreads: (a) => setNumThreads(a),
    'new ScoreSdeVePipeline': (a) => new ScoreSdeVePipeline(a),
    'pipeline.run': (a) => pipeline.run(a),
    'pipeline.run, parts': (seed, generator, stepSize) => pipeline.run({ seed, generator, stepSize }),
    'pipeline.run, more parts': (batchSize, modelInputs, signal) =>
      pipeline.run({ batchSize: typeof batchSize === 'number' ? batchSize % 8 : batchSize, modelInputs, signal }),
    fromInferenceSession: (a, b) => fromInferenceSession(a, b),
    fromPretrained: (a, b) => ScoreSdeVePipeline.fromPretrained(a, b),
  };
  const steps = ['generator', 'noise', 'out', 'returnDict'];
  const named: Record<string, fc.Arbitrary<unknown>> = {
    'new ScoreSdeVeScheduler': options('snr', 'sigmaMin', 'sigmaMax', 'samplingEps', 'correctSteps'),
    fromConfig: options('snr', 'sigma_min', 'sigma_max', 'sampling_eps', 'correct_steps', '_class_name', 'more'),
    'stepPred, options': options(...steps, 'outMean', 'returnMean'),
    'stepCorrect, options': options(...steps, 'stepSize', 'sigma'),
    'Tensor.empty, options': options('type', 'device'),
    'randn, options': options('type', 'device', 'out'),
    setState: options('engine', 'seed', 'offset'),
    'toPng, options': options('columns'),
    'new ScoreSdeVePipeline': options('scheduler', 'model', 'sampleShape', 'device'),
    'pipeline.run': options('seed', 'generator', 'stepSize', 'modelInputs', 'signal', 'onStep'),
    fromInferenceSession: options('inputMetadata', 'outputMetadata', 'run', 'release'),
  };
  test.each(Object.keys(calls))('%s', async (name) => {
    const call = calls[name]!;
    const first = fc.oneof(anything, named[name] ?? anything);
    const inputs = fc.tuple(first, ...Array.from({ length: call.length - 1 }, () => anything));
    await fc.assert(
      fc.asyncProperty(inputs, async (args) => {
        try {
          await call(...args);
        } catch (error) {
          if (!(error instanceof ScoreSdeError)) throw error;
          expect(error.message).toMatch(/^.{10,2000}$/s);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('steps', () => {
  const step = (kind: 'pred' | StepSize, s: ScoreSdeVeScheduler, score: Tensor, sample: Tensor, options: object) =>
    kind === 'pred'
      ? s.stepPred(score, 0.5, sample, options).prevSample
      : s.stepCorrect(score, sample, { ...options, stepSize: kind, sigma: 1.5 }).prevSample;
  const kinds = fc.constantFrom<'pred' | StepSize>('pred', 'batch', 'sample', 'dim', 'ald');

  test('in place, into other memory and asynchronously: the same bits', async () => {
    await fc.assert(
      fc.asyncProperty(kinds, small, seeds, engines, async (kind, dims, seed, engine) => {
        const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 10, sigmaMax: 20 });
        const draw = (salt: bigint) => new Generator(BigInt.asUintN(64, seed + salt)).randn(dims);
        const generator = () => new Generator(seed, { engine });
        const [score, sample] = [draw(1n), draw(2n)];
        const expected = step(kind, scheduler, score, sample, { generator: generator() });
        const out = sample.clone();
        step(kind, scheduler, score, out, { generator: generator(), out });
        bitEqual(floats(out), floats(expected));
        if (kind === 'pred') {
          const later = await scheduler.stepPredAsync(score, 0.5, sample, { generator: generator() });
          bitEqual(floats(later.prevSample), floats(expected));
        }
      }),
      { numRuns: 100 },
    );
  });

  test('a sample with a generator of its own does not depend on its batch', () => {
    fc.assert(
      fc.property(fc.constantFrom('pred', 'sample', 'dim', 'ald'), small, seeds, (kind, dims, seed) => {
        const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 10, sigmaMax: 20 });
        const [rows = 1, ...rest] = dims;
        const cols = rest.reduce((a, b) => a * b, 1);
        const [score, sample] = [1n, 2n].map((k) => new Generator(BigInt.asUintN(64, seed + k)).randn(dims));
        const generator = Array.from({ length: rows }, (_, k) => new Generator(k));
        const together = step(kind, scheduler, score!, sample!, { generator });
        for (let row = 0; row < rows; row++) {
          const part = (tensor: Tensor) =>
            new Tensor('float32', floats(tensor).slice(row * cols, (row + 1) * cols), [1, ...rest]);
          const alone = step(kind, scheduler, part(score!), part(sample!), { generator: new Generator(row) });
          bitEqual(floats(alone), floats(part(together)));
        }
      }),
      { numRuns: 100 },
    );
  });
});

describe('generators', () => {
  test('a state that is taken and set again: the same draws', () => {
    const draws = fc.array(fc.tuple(fc.integer({ min: 0, max: 70 }), stateTypes), { maxLength: 4 });
    fc.assert(
      fc.property(engines, seeds, draws, fc.integer({ min: 1, max: 70 }), (engine, seed, before, size) => {
        const generator = new Generator(seed, { engine });
        for (const [count, type] of before) generator.randn([count], { type });
        const state = generator.getState();
        const first = generator.randn([size]);
        bitEqual(floats(generator.setState(state).randn([size])), floats(first));
        bitEqual(floats(new Generator(0, { engine }).setState(state).randn([size])), floats(first));
      }),
    );
  });

  test('a philox draw is where its offset says: any part of it can be drawn alone', () => {
    fc.assert(
      fc.property(
        seeds,
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.integer({ min: 0, max: 20 }),
        (seed, at, skip) => {
          const from = (offset: bigint, count: number) => {
            const key = BigInt.asUintN(64, seed);
            const state = { engine: 'philox' as const, seed: key, offset: BigInt.asUintN(64, offset) };
            return floats(new Generator(0).setState(state).randn([count]));
          };
          bitEqual(from(at + BigInt(skip), 16), from(at, 4 * skip + 16).slice(4 * skip));
        },
      ),
    );
  });
});

describe('schedules and their files', () => {
  test('what is written is read again as it was', () => {
    fc.assert(
      fc.property(configs, fc.dictionary(fc.string(), fc.jsonValue()), (config, unknown) => {
        const { config: own } = new ScoreSdeVeScheduler(config);
        const extra = Object.fromEntries(Object.entries(unknown).map(([key, value]) => [`x${key}`, value]));
        const text = formatConfig(parseConfig({ ...own, ...extra }));
        const again = parseConfig(text);
        expect(again.config).toEqual(own);
        expect(formatConfig(again)).toBe(text);
        expect(JSON.parse(text)).toMatchObject(JSON.parse(JSON.stringify(extra)) as object);
      }),
    );
  });

  test('tables run from sigmaMin to sigmaMax, one index a timestep', () => {
    fc.assert(
      fc.property(configs, (config) => {
        const s = new ScoreSdeVeScheduler(config);
        const { sigmaMin, sigmaMax } = s.config;
        const [low, high] = [Math.min(sigmaMin, sigmaMax), Math.max(sigmaMin, sigmaMax)];
        const all = [...s.sigmas, ...s.discreteSigmas];
        expect(Math.min(...all)).toBeGreaterThanOrEqual(low * (1 - 1e-5));
        expect(Math.max(...all)).toBeLessThanOrEqual(high * (1 + 1e-5));
        expect(s.timesteps!).toHaveLength(s.length);
      }),
    );
  });
});

test('a picture holds the pixels of its images', async () => {
  const batches = fc.tuple(fc.integer({ min: 1, max: 5 }), fc.constantFrom(1, 3, 4), fc.integer({ min: 1, max: 4 }));
  await fc.assert(
    fc.asyncProperty(batches, fc.integer({ min: 1, max: 7 }), seeds, async ([count, channels, size], columns, seed) => {
      const images = new Generator(seed).randn([count, channels, size, size]);
      const { width, height, data } = PNG.sync.read(await toPng(images, { columns }));
      expect([width, height]).toEqual([columns * size, Math.ceil(count / columns) * size]);
      const n = (seed < 0n ? -seed : seed) % BigInt(count);
      const [left, top] = [(Number(n) % columns) * size, Math.floor(Number(n) / columns) * size];
      const value = floats(images)[Number(n) * channels * size * size]!;
      const byte = Math.min(Math.max(value * 255, 0), 255);
      expect(Math.abs(data[4 * (top * width + left)]! - byte)).toBeLessThanOrEqual(0.5001);
    }),
    { numRuns: 50 },
  );
});

test('values of any type pass through a tensor as they are', () => {
  const types: TensorType[] = ['float32', 'float16', 'bfloat16', 'float64', 'uint8', 'int32', 'int64'];
  fc.assert(
    fc.property(fc.constantFrom(...types), small, (type, dims) => {
      const tensor = Tensor.zeros(dims, { type });
      const copy = tensor.clone();
      expect([copy.type, copy.dims, copy.size]).toEqual([type, dims, dims.reduce((a, b) => a * b, 1)]);
      tensor.dispose();
      expect(copy.data).toHaveLength(copy.size);
    }),
  );
});
