import * as ort from 'onnxruntime-node';
import {
  AbortError,
  Generator,
  ScoreSdeError,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  toPng,
  type EngineName,
  type ErrorCode,
  type RunOptions,
  type SamplingStep,
  type SchedulerConfig,
  type ScoreModel,
  type StepSize,
  type StepsOptions,
  type TensorLike,
} from '../lib';
import { devices, elementsOf } from './support/devices';
import { toHalf } from './support/edge';
import { bitEqual } from './support/golden';
import { formula } from './support/models';
import { failure, position, rejection, sentence } from './support/refusals';

let warnings: jest.SpyInstance;
beforeEach(() => {
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => {
  expect(warnings).not.toHaveBeenCalled();
  jest.restoreAllMocks();
});

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const engines: EngineName[] = ['philox', 'torch'];

type Score = (sample: Tensor, sigma: number) => TensorLike;
const gauss = formula({ name: 'gauss', mu: 0.5 });
/** The exact score of pixels around 0.5: no element depends on another. */
const pixels: Score = (sample, sigma) => new Tensor('float32', gauss(floats(sample), sigma), sample.dims);

const modelOf =
  (score: Score): ScoreModel =>
  (sample, sigma) =>
    Promise.resolve(score(sample, floats(sigma)[0]!));

const shape = [1, 3, 3];
const schedule = { numTrainTimesteps: 6, sigmaMin: 0.01, sigmaMax: 7.3, snr: 0.17 };

/** A pipeline whose model is watched. */
function watchedOn(device: string, score: ScoreModel = modelOf(pixels), config: Partial<SchedulerConfig> = {}) {
  const model = jest.fn(score);
  const scheduler = new ScoreSdeVeScheduler({ ...schedule, ...config });
  return { model, scheduler, pipeline: new ScoreSdeVePipeline({ scheduler, model, sampleShape: shape, device }) };
}

/** Its model computes on the host, wherever the states lie. */
const pipelineOn =
  (device: string) =>
  (score: Score = pixels, config: Partial<SchedulerConfig> = {}, sampleShape = shape) =>
    new ScoreSdeVePipeline({
      scheduler: new ScoreSdeVeScheduler({ ...schedule, ...config }),
      model: modelOf(score),
      sampleShape,
      device,
    });

interface ByHand {
  batchSize?: number;
  sampleShape?: number[];
  numInferenceSteps?: number;
  config?: Partial<SchedulerConfig>;
  generator: Generator | Generator[];
  stepSize?: StepSize;
  score?: Score;
  edit?: (index: number, sample: Float32Array) => void;
}

/** The reference's pipeline through the public scheduler, step by step on this thread. */
function byHand({
  batchSize = 2,
  sampleShape = shape,
  numInferenceSteps = 5,
  config = {},
  generator,
  stepSize,
  score = pixels,
  edit,
}: ByHand): { sample: Tensor; mean: Tensor }[] {
  const scheduler = new ScoreSdeVeScheduler({ ...schedule, ...config });
  scheduler.setTimesteps(numInferenceSteps);
  scheduler.setSigmas(numInferenceSteps);
  const dims = [batchSize, ...sampleShape];
  const scale = Math.fround(scheduler.initNoiseSigma);
  const drawn = Array.isArray(generator)
    ? generator.flatMap((own) => [...floats(own.randn(sampleShape))])
    : [...floats(generator.randn(dims))];
  let sample: Tensor = new Tensor(
    'float32',
    Float32Array.from(drawn, (v) => v * scale),
    dims,
  );
  return Array.from(scheduler.timesteps!, (t, index) => {
    const sigma = scheduler.sigmas[index]!;
    for (let k = 0; k < scheduler.config.correctSteps; k++)
      sample = scheduler.stepCorrect(score(sample, sigma), sample, { generator, stepSize, sigma }).prevSample;
    const { prevSample, prevSampleMean } = scheduler.stepPred(score(sample, sigma), t, sample, { generator });
    edit?.(index, floats(prevSample));
    sample = prevSample;
    return { sample, mean: prevSampleMean };
  });
}

const clamp = (values: Float32Array) => values.map((v) => Math.min(Math.max(v, 0), 1));
const isClamped = async (images: Tensor, mean: Tensor) =>
  bitEqual(await elementsOf(images), clamp(await elementsOf(mean)));

async function collect(pipeline: ScoreSdeVePipeline, options: StepsOptions): Promise<SamplingStep[]> {
  const all: SamplingStep[] = [];
  for await (const step of pipeline.steps(options)) all.push(step);
  return all;
}

const ended = async (pipeline: ScoreSdeVePipeline, options: StepsOptions): Promise<void> => {
  for await (const _ of pipeline.steps(options));
};

describe.each(devices)('on %s', (device) => {
  const pipelineOf = pipelineOn(device);
  const watched = (score?: ScoreModel, config?: Partial<SchedulerConfig>) => watchedOn(device, score, config);

  describe('the image of a seed', () => {
    let digits: ScoreSdeVePipeline;
    beforeAll(async () => {
      digits = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu' });
    });
    afterAll(() => digits.dispose());

    // Of this shape a batch of 16 runs off the thread, one image on it.
    const analytic = pipelineOf(pixels, {}, [3, 32, 32]);
    test.each<[string, () => ScoreSdeVePipeline, number]>([
      ['an analytic model', () => analytic, 6],
      ...(device === 'cpu' ? [['the digits', () => digits, 3] as [string, () => ScoreSdeVePipeline, number]] : []),
    ])('is the same alone, in a batch of 4 and of 16: %s', async (_, pipelineOf, numInferenceSteps) => {
      const pipeline = pipelineOf();
      const size = pipeline.sampleShape.reduce((a, b) => a * b);
      const image = async (seed: number, batchSize: number) => {
        const { images } = await pipeline.run({ seed, batchSize, numInferenceSteps });
        const values = await elementsOf(images);
        return (k: number) => values.subarray((k - seed) * size, (k - seed + 1) * size);
      };
      const [sixteen, four] = [await image(100, 16), await image(106, 4)];
      for (const seed of [100, 107, 108, 115]) bitEqual((await image(seed, 1))(seed), sixteen(seed));
      for (const seed of [106, 107, 108, 109]) bitEqual(four(seed), sixteen(seed));
      expect(sixteen(100)).not.toEqual(sixteen(101));
    });

    test.each<[number | bigint, bigint]>([
      [5, 5n],
      [5n, 5n],
      [0, 0n],
      [-1, 2n ** 64n - 1n],
      [-(2n ** 63n), 2n ** 63n],
      [Number.MAX_SAFE_INTEGER, 2n ** 53n - 1n],
      [2n ** 64n - 1n, 2n ** 64n - 1n],
    ])('seed %p is the stream of %p', async (seed, stream) => {
      const result = await pipelineOf().run({ seed, numInferenceSteps: 5 });
      expect(result.seed).toBe(stream);
      await isClamped(result.images, byHand({ batchSize: 1, generator: new Generator(stream) }).at(-1)!.mean);
    });

    test('after 2^64 - 1 comes 0', async () => {
      const { images } = await pipelineOf().run({ seed: 2n ** 64n - 1n, batchSize: 2, numInferenceSteps: 5 });
      const generator = [new Generator(2n ** 64n - 1n), new Generator(0)];
      await isClamped(images, byHand({ generator, stepSize: 'sample' }).at(-1)!.mean);
    });

    test('a random seed is told, and makes the same image again', async () => {
      const pipeline = pipelineOf();
      const first = await pipeline.run({ batchSize: 2 });
      const other = await pipeline.run({ batchSize: 2 });
      expect(typeof first.seed).toBe('bigint');
      expect(first.seed).not.toBe(other.seed);
      const again = await pipeline.run({ batchSize: 2, seed: first.seed });
      expect(again.seed).toBe(first.seed);
      bitEqual(await elementsOf(again.images), await elementsOf(first.images));
    });
  });

  describe('the draws are those of the reference, in its order', () => {
    const sources: [string, (engine: EngineName) => Generator | Generator[]][] = [
      ['one generator', (engine) => new Generator(11, { engine })],
      ['one a sample', (engine) => [new Generator(11, { engine }), new Generator(12, { engine })]],
    ];
    const rows = engines.flatMap((engine) =>
      sources.flatMap(([source, make]) =>
        [0, 1, 2].map((correctSteps) => ({ engine, source, correctSteps, make: () => make(engine) })),
      ),
    );
    test.each(rows)('$engine, $source, correctSteps $correctSteps', async ({ correctSteps, make }) => {
      const pipeline = pipelineOf(pixels, { correctSteps });
      const options = { batchSize: 2, numInferenceSteps: 5 };
      const [hand, own, another] = [make(), make(), make()];
      const expected = byHand({ config: { correctSteps }, generator: hand });

      const steps = await collect(pipeline, { ...options, generator: own });
      expect(steps).toHaveLength(5);
      for (const [i, { sample, mean }] of steps.entries()) {
        bitEqual(await elementsOf(sample), floats(expected[i]!.sample));
        bitEqual(await elementsOf(mean), floats(expected[i]!.mean));
      }
      const { images, calls, seed } = await pipeline.run({ ...options, generator: another });
      await isClamped(images, expected.at(-1)!.mean);
      expect({ calls, seed }).toEqual({ calls: 5 * (correctSteps + 1), seed: undefined });
      // Not one draw more than by hand.
      const positions = (generators: Generator | Generator[]) => [generators].flat().map(position);
      expect([positions(own), positions(another)]).toEqual([positions(hand), positions(hand)]);
    });

    const modes: StepSize[] = ['batch', 'sample', 'dim', 'ald'];
    const generators = () => [new Generator(7), new Generator(8), new Generator(9)];
    test.each(modes)('stepSize %s', async (stepSize) => {
      const options = { batchSize: 3, numInferenceSteps: 5, stepSize };
      const drawn = await pipelineOf().run({ ...options, generator: new Generator(7) });
      await isClamped(drawn.images, byHand({ batchSize: 3, stepSize, generator: new Generator(7) }).at(-1)!.mean);
      const seeded = await pipelineOf().run({ ...options, seed: 7 });
      await isClamped(seeded.images, byHand({ batchSize: 3, stepSize, generator: generators() }).at(-1)!.mean);
    });

    test("unless told otherwise a seed measures by 'sample', a generator by 'batch'", async () => {
      const images = async (options: RunOptions) =>
        elementsOf((await pipelineOf().run({ batchSize: 3, numInferenceSteps: 5, ...options })).images);
      bitEqual(await images({ seed: 7 }), await images({ seed: 7, stepSize: 'sample' }));
      expect(await images({ seed: 7 })).not.toEqual(await images({ seed: 7, stepSize: 'batch' }));
      bitEqual(await images({ generator: generators() }), await images({ generator: generators(), stepSize: 'batch' }));
      expect(await images({ generator: generators() })).not.toEqual(await images({ seed: 7 }));
    });

    test.each(engines)('big samples, off the thread: %s', async (engine) => {
      const sampleShape = [3, 256, 256];
      const options = { numInferenceSteps: 2, generator: new Generator(3, { engine }) };
      const { images } = await pipelineOf(pixels, {}, sampleShape).run(options);
      const generator = new Generator(3, { engine });
      await isClamped(images, byHand({ batchSize: 1, sampleShape, numInferenceSteps: 2, generator }).at(-1)!.mean);
    });
  });

  describe('what the model is given and may give', () => {
    test('the states, a level for each, and the inputs as they are', async () => {
      const modelInputs = { class_labels: [3, 1, 4], guidance: 7n, mask: Tensor.zeros([3, 2]) };
      const seen: unknown[] = [];
      const { pipeline, scheduler } = watched((sample, sigma, inputs) => {
        seen.push([sample.dims, sample.type, sigma.dims, sigma.type, [...floats(sigma)]]);
        expect(inputs).toBe(modelInputs);
        return pixels(sample, floats(sigma)[0]!);
      });
      await pipeline.run({ batchSize: 3, numInferenceSteps: 2, seed: 1, modelInputs });
      expect(modelInputs).toEqual({ class_labels: [3, 1, 4], guidance: 7n, mask: expect.any(Tensor) });
      scheduler.setTimesteps(2);
      scheduler.setSigmas(2);
      const call = (sigma: number) => [[3, ...shape], 'float32', [3], 'float32', [sigma, sigma, sigma]];
      expect(seen).toEqual([...scheduler.sigmas].flatMap((sigma) => [call(sigma), call(sigma)]));
    });

    test('no inputs are an empty object', async () => {
      const { pipeline, model } = watched();
      await pipeline.run({ numInferenceSteps: 1 });
      expect(model.mock.calls[0]![2]).toEqual({});
    });

    const same: Score = (sample) => new Tensor('float32', floats(sample).slice(), sample.dims);
    const kept = new Float32Array(18);
    const forms: [string, Score, Score][] = [
      ['a plain object', (x, t) => ({ data: pixels(x, t).data, dims: [...x.dims] }), pixels],
      ['an ort.Tensor', (x, t) => new ort.Tensor('float32', pixels(x, t).data as Float32Array, [...x.dims]), pixels],
      [
        'float16',
        (x, t) => toHalf(pixels(x, t) as Tensor, 'float16'),
        (x, t) => toHalf(pixels(x, t) as Tensor, 'float16'),
      ],
      ['the very sample', (x) => x, same],
      [
        'the same memory every time',
        (x, t) => {
          kept.set(pixels(x, t).data as Float32Array);
          return { data: kept, dims: x.dims };
        },
        pixels,
      ],
    ];
    test.each(forms)('%s', async (_, given, expected) => {
      const means = byHand({ generator: new Generator(5), score: expected }).map(({ mean }) => floats(mean));
      const options = () => ({ batchSize: 2, numInferenceSteps: 5, generator: new Generator(5) });
      const steps = await collect(pipelineOf(given), options());
      for (const [i, { mean }] of steps.entries()) bitEqual(await elementsOf(mean), means[i]!);
      bitEqual(await elementsOf((await pipelineOf(given).run(options())).images), clamp(means.at(-1)!));
    });

    test('a score that is not a promise', async () => {
      const { pipeline } = watched((sample, sigma) => pixels(sample, floats(sigma)[0]!));
      const { images } = await pipeline.run({ numInferenceSteps: 5, generator: new Generator(5) });
      await isClamped(images, byHand({ batchSize: 1, generator: new Generator(5) }).at(-1)!.mean);
    });

    const gone = Tensor.zeros([2, ...shape]);
    gone.dispose();
    const results: [string, unknown, RegExp][] = [
      ['undefined', undefined, /got undefined/],
      ['null', null, /got null/],
      ['a number', 5, /got 5/],
      ['a bare array', new Float32Array(18), /got a Float32Array of 18/],
      ['a list', [gone], /array of 1/],
      ['an object of outputs', { out_sample: gone }, /data and dims/],
      ['another batch', Tensor.zeros([1, ...shape]), /\[2, 1, 3, 3\].*\[1, 1, 3, 3\]/],
      ['other sizes', Tensor.zeros([2, 1, 3, 4]), /\[2, 1, 3, 3\].*\[2, 1, 3, 4\]/],
      ['another rank', Tensor.zeros([2, 9]), /\[2, 1, 3, 3\].*\[2, 9\]/],
      ['too few data', { data: new Float32Array(17), dims: [2, ...shape] }, /18 elements, and 17/],
      ['doubles', { data: new Float64Array(18), dims: [2, ...shape] }, /float64/],
      ['a disposed tensor', gone, /disposed/],
    ];
    test.each(results)('%s is refused: ERR_MODEL', async (_, result, says) => {
      const { pipeline, model } = watched(() => result as Tensor);
      const error = await rejection(() => pipeline.run({ batchSize: 2, numInferenceSteps: 5 }));
      sentence(error, 'ERR_MODEL', /score/, says);
      expect(error.cause).toBeInstanceOf(ScoreSdeError);
      expect(model).toHaveBeenCalledTimes(1);
    });

    const reasons: [string, unknown][] = [
      ['an Error', new RangeError('out of credit')],
      ['a text', 'out of credit'],
      ['undefined', undefined],
      ['an error of this package', new ScoreSdeError('ERR_BUSY', 'the device is in use')],
      ['an AbortError of its own', new DOMException('stopped', 'AbortError')],
    ];
    test.each(
      reasons.flatMap(([what, reason]) => [
        { what, how: 'throws', fail: () => raise(reason), reason },
        { what, how: 'rejects with', fail: async () => raise(reason), reason },
      ]),
    )('a model that $how $what: it passes through', async ({ fail, reason }) => {
      const { pipeline, model } = watched(fail);
      expect(await pipeline.run({ seed: 1 }).then(String, (error: unknown) => [error])).toEqual([reason]);
      const error: unknown = await ended(pipeline, { seed: 1 }).catch((error: unknown) => error);
      expect(error).toBe(reason);
      expect(model).toHaveBeenCalledTimes(2);
    });
  });

  function raise(reason: unknown): never {
    throw reason;
  }

  describe('values that are not finite: ERR_NON_FINITE with the step', () => {
    const filled =
      (value: number): Score =>
      (sample) =>
        new Tensor('float32', new Float32Array(sample.size).fill(value), sample.dims);
    /** A model that fails at a step of its own, in one element. */
    const from = (call: number, value: number): Score => {
      let calls = 0;
      return (sample, sigma) => {
        const score = pixels(sample, sigma);
        if (calls++ >= call) (score.data as Float32Array)[score.dims.reduce((a, b) => a * b) - 1] = value;
        return score;
      };
    };
    const big = [3, 128, 128];
    const rows: [string, () => Score, Partial<SchedulerConfig>, number, number[]][] = [
      ['zeros, which have no norm', () => filled(0), {}, 0, shape],
      ['NaN', () => filled(NaN), {}, 0, shape],
      ['NaN without a corrector', () => filled(NaN), { correctSteps: 0 }, 0, shape],
      ['infinity', () => filled(Infinity), {}, 0, shape],
      ['one NaN in the corrector of step 2', () => from(4, NaN), {}, 2, shape],
      ['one NaN in the predictor of step 2', () => from(5, NaN), {}, 2, shape],
      ['one infinity in the last step', () => from(9, -Infinity), {}, 4, shape],
      ['one NaN among many', () => from(2, NaN), {}, 1, big],
    ];
    test.each(rows)('%s', async (_, score, config, step, sampleShape) => {
      for (const onStep of [undefined, () => {}]) {
        const own = score();
        const model = jest.fn(modelOf(own));
        const scheduler = new ScoreSdeVeScheduler({ ...schedule, ...config });
        const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape });
        const error = await rejection(() => pipeline.run({ seed: 1, numInferenceSteps: 5, onStep }));
        sentence(error, 'ERR_NON_FINITE', new RegExp(`\\bstep ${step} of 5\\b`), /model/);
        const { length } = model.mock.calls;
        await new Promise((resolve) => setTimeout(resolve, 5));
        expect(model).toHaveBeenCalledTimes(length);
      }
    });

    test('one sample of zeros fails only where it is measured by itself', async () => {
      const half: Score = (sample, sigma) => {
        const score = pixels(sample, sigma);
        (score.data as Float32Array).fill(0, 0, 9);
        return score;
      };
      const options = { batchSize: 2, numInferenceSteps: 5, seed: 1 };
      sentence(await rejection(() => pipelineOf(half).run(options)), 'ERR_NON_FINITE', /step 0 of 5/);
      const { images } = await pipelineOf(half).run({ ...options, stepSize: 'batch' });
      expect((await elementsOf(images)).every(Number.isFinite)).toBe(true);
    });

    test.each<[string, Partial<SchedulerConfig>, StepSize]>([
      ['there is no corrector', { correctSteps: 0 }, 'sample'],
      ['the corrector measures nothing', {}, 'ald'],
    ])('zeros do no harm where %s', async (_, config, stepSize) => {
      const { images } = await pipelineOf(filled(0), config).run({ seed: 1, numInferenceSteps: 5, stepSize });
      expect((await elementsOf(images)).every(Number.isFinite)).toBe(true);
    });
  });

  describe('the steps of a run', () => {
    const options = { batchSize: 2, numInferenceSteps: 5, seed: 3 };

    test('say where they are', async () => {
      const { pipeline, scheduler } = watched(undefined, { correctSteps: 2 });
      const steps = await collect(pipeline, options);
      scheduler.setTimesteps(5);
      scheduler.setSigmas(5);
      expect(steps.map(({ sample, mean, ...rest }) => ({ ...rest, dims: [sample.dims, mean.dims] }))).toEqual(
        Array.from({ length: 5 }, (_, index) => ({
          index,
          total: 5,
          timestep: scheduler.timesteps![index],
          sigma: scheduler.sigmas[index],
          calls: 3 * (index + 1),
          dims: [
            [2, ...shape],
            [2, ...shape],
          ],
        })),
      );
    });

    test('and those of onStep are the same, and give the same images as none', async () => {
      const steps = await collect(pipelineOf(), options);
      const seen: SamplingStep[] = [];
      const { images } = await pipelineOf().run({ ...options, onStep: (step) => seen.push(step) });
      expect(seen).toHaveLength(5);
      for (const [i, { sample, mean, ...rest }] of seen.entries()) {
        const { sample: expectedSample, mean: expectedMean, ...expected } = steps[i]!;
        expect(rest).toEqual(expected);
        bitEqual(await elementsOf(sample), await elementsOf(expectedSample));
        bitEqual(await elementsOf(mean), await elementsOf(expectedMean));
      }
      bitEqual(await elementsOf(images), await elementsOf((await pipelineOf().run(options)).images));
      await isClamped(images, steps.at(-1)!.mean);
    });

    test.each([
      ['on the thread', shape],
      ['off the thread', [3, 128, 128]],
    ])('keep their tensors as they were: %s', async (_, sampleShape) => {
      const copies: [Float32Array, Float32Array][] = [];
      const steps: SamplingStep[] = [];
      for await (const step of pipelineOf(pixels, {}, sampleShape).steps(options)) {
        steps.push(step);
        copies.push([(await elementsOf(step.sample)).slice(), (await elementsOf(step.mean)).slice()]);
      }
      for (const [i, { sample, mean }] of steps.entries()) {
        bitEqual(await elementsOf(sample), copies[i]![0]);
        bitEqual(await elementsOf(mean), copies[i]![1]);
      }
      expect(copies[0]![0]).not.toEqual(copies[1]![0]);
    });

    test('may be disposed', async () => {
      const expected = byHand({ generator: [new Generator(3), new Generator(4)], stepSize: 'sample' });
      for await (const { index, sample, mean } of pipelineOf().steps(options)) {
        bitEqual(await elementsOf(sample), floats(expected[index]!.sample));
        bitEqual(await elementsOf(mean), floats(expected[index]!.mean));
        sample.dispose();
        mean.dispose();
      }
      const { images } = await pipelineOf().run({
        ...options,
        onStep: ({ sample, mean }) => {
          sample.dispose();
          mean.dispose();
        },
      });
      await isClamped(images, expected.at(-1)!.mean);
    });

    if (device === 'cpu')
      test('may be written to: the run goes on with what stands there', async () => {
        const edit = (index: number, values: Float32Array) => {
          if (index === 2) values.set([5, -5, 0.25], 4);
        };
        const generator = () => [new Generator(3), new Generator(4)];
        const expected = byHand({ generator: generator(), stepSize: 'sample', edit });
        const plain = byHand({ generator: generator(), stepSize: 'sample' });
        expect(floats(expected[4]!.mean)).not.toEqual(floats(plain[4]!.mean));
        for await (const { index, sample, mean } of pipelineOf().steps(options)) {
          edit(index, floats(sample));
          bitEqual(floats(mean), floats(expected[index]!.mean));
        }
        const { images } = await pipelineOf().run({
          ...options,
          onStep: ({ index, sample }) => edit(index, floats(sample)),
        });
        await isClamped(images, expected[4]!.mean);
      });

    if (device === 'cpu')
      test('leave the event loop a turn after each kernel', async () => {
        let turns = 0;
        let ended = false;
        const count = () => setImmediate(() => (turns++, ended || count()));
        count();
        await pipelineOf(pixels, { correctSteps: 30 }).run({ numInferenceSteps: 2, seed: 1 });
        ended = true;
        expect(turns).toBeGreaterThanOrEqual(2 * 31);
      });

    test('take no harm from a model that disposes what it was given', async () => {
      const score: Score = (sample, sigma) => {
        const result = pixels(sample, sigma);
        sample.dispose();
        return new Tensor('float32', floats(result), [2, ...shape]);
      };
      const { images } = await pipelineOf(score).run(options);
      bitEqual(await elementsOf(images), await elementsOf((await pipelineOf().run(options)).images));
    });

    test('end the run where the loop is left', async () => {
      const { pipeline, model } = watched();
      for await (const { index } of pipeline.steps(options)) if (index === 1) break;
      await new Promise((resolve) => setTimeout(resolve, 5));
      expect(model).toHaveBeenCalledTimes(4);
    });

    test('wait for onStep, and fail with what it throws', async () => {
      const reason = new Error('the disk is full');
      const { pipeline, model } = watched();
      const calls: number[] = [];
      const onStep = async ({ index }: SamplingStep) => {
        await new Promise((resolve) => setTimeout(resolve, 5));
        calls.push(model.mock.calls.length);
        if (index === 2) throw reason;
      };
      const error: unknown = await pipeline.run({ ...options, onStep }).catch((error: unknown) => error);
      expect(error).toBe(reason);
      expect(calls).toEqual([2, 4, 6]);
      expect(model).toHaveBeenCalledTimes(6);
    });
  });

  describe('a signal', () => {
    const options = { batchSize: 2, numInferenceSteps: 5, seed: 3 };
    type Act = (controller: AbortController, at: 'start' | 'model' | 'step', count: number) => void;
    const reason = new Error('nobody waits for it');
    const rows: [string, Act, number][] = [
      ['already aborted', (c, at) => at === 'start' && c.abort(reason), 0],
      ['aborted in the first call of the model', (c, at, n) => at === 'model' && n === 1 && c.abort(reason), 1],
      ['aborted in a corrector', (c, at, n) => at === 'model' && n === 5 && c.abort(reason), 5],
      ['aborted in a predictor', (c, at, n) => at === 'model' && n === 6 && c.abort(reason), 6],
      ['aborted in the last call of the model', (c, at, n) => at === 'model' && n === 10 && c.abort(reason), 10],
      ['aborted after a step', (c, at, n) => at === 'step' && n === 1 && c.abort(reason), 4],
      ['aborted without a reason', (c, at, n) => at === 'step' && n === 0 && c.abort(), 2],
      ['aborted for what is no error', (c, at, n) => at === 'step' && n === 0 && c.abort('enough'), 2],
    ];
    const ways: [
      string,
      (pipeline: ScoreSdeVePipeline, signal: AbortSignal, act: (n: number) => void) => Promise<unknown>,
    ][] = [
      ['run', (pipeline, signal, act) => pipeline.run({ ...options, signal, onStep: ({ index }) => act(index) })],
      [
        'steps',
        async (pipeline, signal, act) => {
          for await (const { index } of pipeline.steps({ ...options, signal })) act(index);
        },
      ],
    ];
    test.each(rows.flatMap(([what, act, calls]) => ways.map(([way, start]) => ({ what, act, calls, way, start }))))(
      '$what ends $way',
      async ({ act, calls, start }) => {
        const controller = new AbortController();
        const { pipeline, model } = watched(async (sample, sigma) => {
          await new Promise(setImmediate);
          act(controller, 'model', model.mock.calls.length);
          return pixels(sample, floats(sigma)[0]!);
        });
        act(controller, 'start', 0);
        const error = await rejection(() =>
          start(pipeline, controller.signal, (index) => act(controller, 'step', index)),
        );
        sentence(error, 'ERR_ABORTED');
        expect(error).toBeInstanceOf(AbortError);
        expect(error.name).toBe('AbortError');
        expect(error.cause).toBe(controller.signal.reason);
        await new Promise((resolve) => setTimeout(resolve, 5));
        expect(model).toHaveBeenCalledTimes(calls);
      },
    );

    test('aborted after the last step ends run', async () => {
      const controller = new AbortController();
      const onStep = ({ index }: SamplingStep) => index === 4 && controller.abort(reason);
      const error = await rejection(() => pipelineOf().run({ ...options, signal: controller.signal, onStep }));
      sentence(error, 'ERR_ABORTED');
    });

    test('never aborted changes nothing, and is left without a listener', async () => {
      const { signal } = new AbortController();
      const listen = jest.spyOn(signal, 'addEventListener');
      const forget = jest.spyOn(signal, 'removeEventListener');
      const { images } = await pipelineOf().run({ ...options, signal });
      bitEqual(await elementsOf(images), await elementsOf((await pipelineOf().run(options)).images));
      expect(listen.mock.calls.length).toBe(forget.mock.calls.length);
    });
  });

  describe('a run', () => {
    test('tells what it made', async () => {
      const result = await pipelineOf().run({ batchSize: 2, seed: 3 });
      const { images, samples: _, seconds, ...rest } = result;
      expect(rest).toEqual({ solver: 'pc', calls: 12, steps: 6, seed: 3n, device });
      expect({ type: images.type, dims: images.dims }).toEqual({ type: 'float32', dims: [2, ...shape] });
      expect((await elementsOf(images)).every((v) => v >= 0 && v <= 1)).toBe(true);
      expect(seconds).toBeGreaterThan(0);
      expect(await result.toPng({ columns: 1 })).toEqual(await toPng(images, { columns: 1 }));
    });

    test('leaves the scheduler as it was', async () => {
      const { pipeline, scheduler } = watched();
      scheduler.setTimesteps(9);
      scheduler.setSigmas(9, { sigmaMax: 3 });
      const state = () => [scheduler.timesteps, scheduler.sigmas, scheduler.discreteSigmas, scheduler.config];
      const before = state();
      const copies = before.slice(0, 3).map((table) => (table as Float32Array).slice());
      await pipeline.run({ numInferenceSteps: 5 });
      state().forEach((value, i) => expect(value).toBe(before[i]));
      copies.forEach((copy, i) => bitEqual(before[i] as Float32Array, copy));
    });

    test('goes on with the schedule that it started with', async () => {
      const { pipeline, scheduler } = watched();
      const options = { numInferenceSteps: 5, seed: 3 };
      const { images } = await pipeline.run(options);
      const onStep = ({ index }: SamplingStep) => {
        scheduler.setTimesteps(index + 1);
        scheduler.setSigmas(index + 1, { sigmaMax: 2 });
        scheduler.timesteps = null;
      };
      bitEqual(await elementsOf((await pipeline.run({ ...options, onStep })).images), await elementsOf(images));
    });

    test('is not disturbed by others over the same pipeline', async () => {
      const { pipeline } = watched(async (sample, sigma) => {
        const score = pixels(sample, floats(sigma)[0]!);
        await new Promise(setImmediate);
        return score;
      });
      const runs: RunOptions[] = [
        { seed: 1, numInferenceSteps: 5, batchSize: 2 },
        { seed: 2, numInferenceSteps: 8 },
        { seed: 1, numInferenceSteps: 13, batchSize: 3, stepSize: 'batch' },
        { seed: 4, numInferenceSteps: 8, batchSize: 2, onStep: () => new Promise(setImmediate) },
      ];
      const alone: Tensor[] = [];
      for (const options of runs) alone.push((await pipeline.run(options)).images);
      const together = await Promise.all(runs.map((options) => pipeline.run(options)));
      for (const [i, { images }] of together.entries()) bitEqual(await elementsOf(images), await elementsOf(alone[i]!));
    });

    if (device === 'cpu')
      test('leaves the event loop alive, however quick the model', async () => {
        let ticks = 0;
        const timer = setInterval(() => ticks++, 1);
        const { pipeline } = watched((sample, sigma) => pixels(sample, floats(sigma)[0]!));
        await pipeline.run({ numInferenceSteps: 2000, seed: 1 });
        clearInterval(timer);
        // It takes some 100 ms; a run that let nobody in would see none.
        expect(ticks).toBeGreaterThan(4);
      });
  });
});

describe('options that are refused before the model is called', () => {
  const generator = () => new Generator(1);
  const rows: [string, unknown, ErrorCode, RegExp][] = [
    ...[0, -1, 1.5, NaN, Infinity, '2', null, 2n].map((batchSize): (typeof rows)[number] => [
      `batchSize ${String(batchSize)}`,
      { batchSize },
      'ERR_RANGE',
      /batchSize must be an integer >= 1, got /,
    ]),
    [
      'a batch of more seeds than it takes',
      { batchSize: 2 ** 16 + 1 },
      'ERR_RANGE',
      /at most 65536, .*got 65537: pass/,
    ],
    ['a batch beyond all memory', { batchSize: 2 ** 50 }, 'ERR_SHAPE', /batch.* more elements than memory could hold/],
    ...[0, -1, 1.5, NaN, 2 ** 24 + 1, '10', null].map((numInferenceSteps): (typeof rows)[number] => [
      `numInferenceSteps ${String(numInferenceSteps)}`,
      { numInferenceSteps },
      'ERR_RANGE',
      /(numInferenceSteps|inference steps) must be an integer from [01] to 2\^24, got /,
    ]),
    ...[1.5, NaN, Infinity, 2 ** 53, 2n ** 64n, -(2n ** 63n) - 1n, '7', {}, null].map((seed): (typeof rows)[number] => [
      `seed ${String(seed)}`,
      { seed },
      'ERR_RANGE',
      /seed must be an integer from -2\^63 to 2\^64 - 1.*, got /,
    ]),
    ['a generator that is none', { generator: 5 }, 'ERR_CONFIG', /generator must be a Generator .*, got 5$/],
    ['a list with another thing', { generator: [generator(), 'torch'] }, 'ERR_CONFIG', /generator .*got "torch"$/],
    ['an empty list', { generator: [] }, 'ERR_SHAPE', /2 samples, got an array of 0$/],
    ['too many generators', { generator: [1, 2, 3].map(generator) }, 'ERR_SHAPE', /2 samples, got an array of 3$/],
    [
      'generators of two engines',
      { generator: [generator(), new Generator(1, { engine: 'torch' })] },
      'ERR_CONFIG',
      /one engine/,
    ],
    ['a seed and a generator', { seed: 1, generator: generator() }, 'ERR_CONFIG', /seed and generator were both given/],
    [
      'an option of another solver',
      { numInferenceSteps: 5, eta: 0 },
      'ERR_CONFIG',
      /is "pc", which has no option "eta"; these .*: er_sde, /,
    ],
    ...['Batch', '', 'toString', 1, ['batch']].map((stepSize): (typeof rows)[number] => [
      `stepSize ${JSON.stringify(stepSize)}`,
      { stepSize },
      'ERR_CONFIG',
      /stepSize must be 'batch', 'sample', 'dim' or 'ald', got /,
    ]),
    ...[{}, 5, null, new AbortController()].map((signal): (typeof rows)[number] => [
      `a signal of ${typeof signal}`,
      { signal },
      'ERR_CONFIG',
      /signal must be an AbortSignal, got /,
    ]),
    [
      'calls of a solver that decides on them',
      { solver: 'dpm_adaptive', calls: 9, numInferenceSteps: undefined },
      'ERR_CONFIG',
      /dpm_adaptive decides on its calls/,
    ],
    ['an option that is none', { batch: 4 }, 'ERR_CONFIG', /unknown option "batch"; expected batchSize, /],
    ...[null, 5, 'label', [1, 2]].map((modelInputs): (typeof rows)[number] => [
      `modelInputs ${JSON.stringify(modelInputs)}`,
      { modelInputs },
      'ERR_CONFIG',
      /modelInputs must be an object of inputs by name, got /,
    ]),
  ];
  test('steps has no onStep', () => {
    sentence(
      failure(() => watchedOn('cpu').pipeline.steps({ onStep: () => {} } as RunOptions)),
      'ERR_CONFIG',
      /unknown option "onStep"/,
    );
  });

  test.each(rows)('%s', async (_, options, code, says) => {
    const { pipeline, model } = watchedOn('cpu');
    const given = { batchSize: 2, numInferenceSteps: 5, ...(options as object) } as RunOptions;
    sentence(await rejection(() => pipeline.run(given)), code, says);
    sentence(
      failure(() => pipeline.steps(given)),
      code,
      says,
    );
    expect(model).not.toHaveBeenCalled();
  });

  test.each([5, null, 'log', {}])('onStep %p', async (onStep) => {
    const { pipeline, model } = watchedOn('cpu');
    const given = { onStep } as unknown as RunOptions;
    sentence(await rejection(() => pipeline.run(given)), 'ERR_CONFIG', /onStep must be a function, got /);
    expect(model).not.toHaveBeenCalled();
  });

  test.each([null, 5, 'fast'])('%p for the options', async (options) => {
    const { pipeline } = watchedOn('cpu');
    const says = new RegExp(`\\boptions\\b.*got (${String(options)}|"fast")$`);
    sentence(await rejection(() => pipeline.run(options as never)), 'ERR_CONFIG', says);
    sentence(
      failure(() => pipeline.steps(options as never)),
      'ERR_CONFIG',
      says,
    );
  });

  test('a draw is not taken by a run that is refused', async () => {
    const own = generator();
    await rejection(() => watchedOn('cpu').pipeline.run({ generator: own, numInferenceSteps: 0 }));
    expect(position(own)).toBe(position(generator()));
  });
});

describe('what a pipeline cannot be made of', () => {
  const good = { scheduler: new ScoreSdeVeScheduler(), model: modelOf(pixels), sampleShape: shape };
  const rows: [string, unknown, ErrorCode, RegExp][] = [
    ['no scheduler', { scheduler: undefined }, 'ERR_CONFIG', /scheduler must be a ScoreSdeVeScheduler, got undefined$/],
    ['a config for a scheduler', { scheduler: {} }, 'ERR_CONFIG', /scheduler must be .*, got an object$/],
    ['no model', { model: undefined }, 'ERR_CONFIG', /model must be a function .*, got undefined$/],
    [
      'a session for a model',
      { model: { run: () => {} } },
      'ERR_CONFIG',
      /model must be a function .*, got an object$/,
    ],
    ['no sampleShape', { sampleShape: undefined }, 'ERR_SHAPE', /sampleShape must be .*, got undefined$/],
    ['a number for sampleShape', { sampleShape: 28 }, 'ERR_SHAPE', /sampleShape must be .*, got 28$/],
    ['no axis', { sampleShape: [] }, 'ERR_SHAPE', /sampleShape must hold positive sizes, got /],
    ['a size of 0', { sampleShape: [3, 0, 8] }, 'ERR_SHAPE', /sampleShape must hold positive sizes, got \[3, 0, 8\]$/],
    ['a size of -1', { sampleShape: [3, -1] }, 'ERR_SHAPE', /sampleShape must hold .*, got -1$/],
    ['a size of 1.5', { sampleShape: [1.5] }, 'ERR_SHAPE', /sampleShape must hold .*, got 1.5$/],
    ['an unknown device', { device: 'gpu' }, 'ERR_CONFIG', /device must be .*, got "gpu"$/],
    ['a device that is not there', { device: 'cuda:9' }, 'ERR_CUDA_UNAVAILABLE', /device 'cuda:9' cannot be used: \S/],
  ];
  test.each(rows)('%s', (_, options, code, says) => {
    const given = { ...good, ...(options as object) } as never;
    sentence(
      failure(() => new ScoreSdeVePipeline(given)),
      code,
      says,
    );
  });

  test.each([undefined, null, 5])('%p for the options', (options) => {
    sentence(
      failure(() => new ScoreSdeVePipeline(options as never)),
      'ERR_CONFIG',
      /options/,
    );
  });
});
