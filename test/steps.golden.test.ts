import { Generator, ScoreSdeVeScheduler, Tensor, type NoiseOptions } from '../lib';
import { devices, elementsOf, on } from './support/devices';
import {
  bitEqual,
  copyOf,
  golden,
  goldens,
  maxAbs,
  scaled,
  schedulerOf,
  sum,
  within,
  type SetupCall,
  type SnakeConfig,
} from './support/golden';
import { decode, roundTo, type HalfType } from './support/half';

type Timestep = { timesteps_index?: number; value?: number; python?: number; vector?: number[] };
type Summary = { sum: number; abs_sum: number; l2: number; min: number; max: number; mean: number };

interface Call {
  key: string;
  method: 'step_pred' | 'step_correct' | 'add_noise' | 'get_adjacent_sigma' | 'scale_model_input';
  config: string;
  timestep?: Timestep;
  timesteps?: number[];
  sample_scale?: number;
  model_output_scale?: number;
  generator_seed?: number;
  expect?: number[];
  summary?: Record<'prev_sample' | 'prev_sample_mean' | 'noisy', Summary>;
}

type Pred = { prevSample: Tensor; prevSampleMean: Tensor };

const torch = (seed: number) => new Generator(seed, { engine: 'torch' });
const floats = (tensor: Tensor) => tensor.data as Float32Array;

function timestepOf(scheduler: ScoreSdeVeScheduler, { timesteps_index, value, python, vector }: Timestep) {
  if (vector) return Float32Array.from(vector);
  if (timesteps_index === undefined) return python!;
  expect(scheduler.timesteps![timesteps_index]).toBe(value);
  return value!;
}

/** The ways a step can be asked for; every one must give the same numbers. */
const ways = [
  { way: 'with the noise injected', drawn: false, inPlace: false, twin: false },
  { way: 'with the noise drawn', drawn: true, inPlace: false, twin: false },
  { way: 'in place', drawn: false, inPlace: true, twin: false },
  { way: 'off the event loop', drawn: false, inPlace: false, twin: true },
  { way: 'off the event loop, drawn, in place', drawn: true, inPlace: true, twin: true },
];

describe.each(devices)('on %s', (device) => {
  describe.each(goldens('steps').filter((name) => /x\d+$/.test(name) && !name.includes('big')))('%s', (name) => {
    const { json, tensor, has } = golden<{
      configs: Record<string, SnakeConfig>;
      setup: SetupCall[];
      seeds: Record<string, number>;
      shape: number[];
      calls: Call[];
    }>(name);
    const calls = (method: Call['method']) => json.calls.filter((call) => call.method === method);
    const noise = tensor('noise');

    test('the inputs are the torch stream of their seeds', () => {
      for (const [key, seed] of Object.entries(json.seeds)) {
        bitEqual(floats(torch(seed).randn(json.shape)), tensor(key).data);
      }
    });

    describe.each(ways)('$way', ({ drawn, inPlace, twin }) => {
      async function prepare(call: Call) {
        const before = scaled(tensor('sample'), call.sample_scale);
        const sample = await on(device, copyOf(before));
        const source = drawn ? { generator: torch(call.generator_seed!) } : { noise: await on(device, noise) };
        const options: NoiseOptions = inPlace ? { ...source, out: sample } : source;
        return {
          scheduler: schedulerOf(json.configs[call.config]!, json.setup),
          model: await on(device, scaled(tensor('model_output'), call.model_output_scale)),
          sample,
          before,
          options,
        };
      }

      test.each(calls('step_pred'))('$key is bit-equal', async (call) => {
        const { scheduler, model, sample, before, options } = await prepare(call);
        const t = timestepOf(scheduler, call.timestep!);
        const result = (
          twin
            ? await scheduler.stepPredAsync(model, t, sample, options)
            : scheduler.stepPred(model, t, sample, options)
        ) as Pred;
        const stored = { prev_sample: result.prevSample, prev_sample_mean: result.prevSampleMean };
        for (const [key, got] of Object.entries(stored)) {
          expect(got.dims).toEqual(json.shape);
          if (has(`${call.key}.${key}`)) bitEqual(await elementsOf(got), tensor(`${call.key}.${key}`).data);
        }
        summarised(await elementsOf(result.prevSample), call.summary!.prev_sample);
        bitEqual(await elementsOf(sample), inPlace ? await elementsOf(result.prevSample) : before.data);
      });

      if (calls('step_correct').length === 0) return;
      test.each(calls('step_correct'))('$key is within the tolerance', async (call) => {
        const { scheduler, model, sample, before, options } = await prepare(call);
        const { prevSample } = twin
          ? await scheduler.stepCorrectAsync(model, sample, options)
          : scheduler.stepCorrect(model, sample, options);
        const expected = tensor(`${call.key}.prev_sample`).data;
        within(await elementsOf(prevSample), expected, 5e-6 * maxAbs(expected));
        bitEqual(await elementsOf(sample), inPlace ? await elementsOf(prevSample) : before.data);
      });
    });

    if (calls('add_noise').length === 0) return;
    test.each(calls('add_noise').filter((call) => has(`${call.key}.noisy`)))('$key is bit-equal', async (call) => {
      const scheduler = schedulerOf(json.configs[call.config]!, json.setup);
      const original = await on(device, scaled(tensor('sample'), call.sample_scale));
      const drawn = await on(device, noise);
      const expected = tensor(`${call.key}.noisy`).data;
      const indices = BigInt64Array.from(call.timesteps!, BigInt);
      bitEqual(await elementsOf(scheduler.addNoise(original, drawn, indices)), expected);
      bitEqual(await elementsOf(await scheduler.addNoiseAsync(original, drawn, indices)), expected);
    });

    test.each(calls('get_adjacent_sigma'))('$key is bit-equal', (call) => {
      const scheduler = schedulerOf(json.configs[call.config]!, json.setup);
      bitEqual(scheduler.getAdjacentSigma(Int32Array.from(call.timesteps!), scheduler.timesteps!), call.expect!);
    });

    test.each(calls('scale_model_input'))('$key is the sample itself', (call) => {
      const sample = tensor('sample');
      expect(schedulerOf(json.configs[call.config]!, json.setup).scaleModelInput(sample)).toBe(sample);
    });
  });

  test('one generator per sample', async () => {
    const { json, tensor } = golden<{
      config: SnakeConfig;
      setup: SetupCall[];
      generator_seeds: number[];
      timestep: number;
    }>('steps/generator_list');
    const scheduler = schedulerOf(json.config, json.setup);
    const [model, sample] = [await on(device, tensor('model_output')), await on(device, tensor('sample'))];
    const options = () => ({ generator: json.generator_seeds.map(torch) });
    for (const result of [
      scheduler.stepPred(model, json.timestep, sample, options()),
      await scheduler.stepPredAsync(model, json.timestep, sample, options()),
      scheduler.stepPred(model, json.timestep, sample, { noise: await on(device, tensor('noise')) }),
    ] as Pred[]) {
      bitEqual(await elementsOf(result.prevSample), tensor('pred.prev_sample').data);
      bitEqual(await elementsOf(result.prevSampleMean), tensor('pred.prev_sample_mean').data);
    }
    const expected = tensor('correct.prev_sample').data;
    for (const result of [
      scheduler.stepCorrect(model, sample, options()),
      await scheduler.stepCorrectAsync(model, sample, options()),
    ]) {
      within(await elementsOf(result.prevSample), expected, 5e-6 * maxAbs(expected));
    }
  });

  describe('steps/dtypes', () => {
    const { json, tensor } = golden<{
      config: SnakeConfig;
      setup: SetupCall[];
      timestep: number;
      generator_seed: number;
      add_noise: { timesteps: number[] };
    }>('steps/dtypes');
    const scheduler = schedulerOf(json.config, json.setup);
    const { timestep, generator_seed } = json;

    describe.each(['float16', 'bfloat16'] as const)('%s', (type) => {
      const input = (key: string) => tensor<Uint16Array>(`${type}.${key}`);
      const output = (key: string) => tensor(`${type}.${key}`).data;

      test.each(['injected', 'drawn', 'drawn off the event loop'])('stepPred, noise %s: bit-equal', async (how) => {
        const [model, sample] = [await on(device, input('model_output')), await on(device, input('sample'))];
        const options =
          how === 'injected' ? { noise: await on(device, input('noise_pred')) } : { generator: torch(generator_seed) };
        const result = (
          how.endsWith('loop')
            ? await scheduler.stepPredAsync(model, timestep, sample, options)
            : scheduler.stepPred(model, timestep, sample, options)
        ) as Pred;
        expect([result.prevSample.type, result.prevSampleMean.type]).toEqual(['float32', 'float32']);
        bitEqual(await elementsOf(result.prevSample), output('pred.prev_sample'));
        bitEqual(await elementsOf(result.prevSampleMean), output('pred.prev_sample_mean'));
      });

      test.each(['injected', 'drawn', 'drawn off the event loop'])('stepCorrect, noise %s', async (how) => {
        const [model, sample] = [await on(device, input('model_output')), await on(device, input('sample'))];
        const noise = await on(device, tensor(`${type}.noise_correct`));
        const options = how === 'injected' ? { noise } : { generator: torch(generator_seed) };
        const { prevSample } = how.endsWith('loop')
          ? await scheduler.stepCorrectAsync(model, sample, options)
          : scheduler.stepCorrect(model, sample, options);
        expect(prevSample.type).toBe('float32');
        const expected = output('correct.prev_sample');
        within(await elementsOf(prevSample), expected, 5e-6 * maxAbs(expected));
      });

      test('in place: the float32 result, rounded once', async () => {
        const sample = await on(device, copyOf(input('sample')));
        const [model, noise] = [await on(device, input('model_output')), await on(device, input('noise_pred'))];
        scheduler.stepPred(model, timestep, sample, { noise, out: sample });
        const rounded = Array.from(output('pred.prev_sample'), (v) => roundTo(type as HalfType, v));
        bitEqual(decode(type, await elementsOf(sample)), rounded);
      });

      test('addNoise is bit-equal', async () => {
        const indices = Int32Array.from(json.add_noise.timesteps);
        const [sample, noise] = [await on(device, input('sample')), await on(device, input('model_output'))];
        const noisy = scheduler.addNoise(sample, noise, indices);
        expect(noisy.type).toBe('float32');
        bitEqual(await elementsOf(noisy), output('add_noise.noisy'));
      });
    });

    test('float64 states are refused', async () => {
      const [model, sample] = [tensor('float64.model_output'), tensor('float64.sample')];
      const wrong = expect.objectContaining({ code: 'ERR_DTYPE' });
      expect(() => scheduler.stepPred(model, timestep, sample)).toThrow(wrong);
      expect(() => scheduler.stepCorrect(model, sample)).toThrow(wrong);
      expect(() => scheduler.addNoise(sample, model, [5, 20])).toThrow(wrong);
      await expect((async () => scheduler.stepPredAsync(model, timestep, sample))()).rejects.toThrow(wrong);
      await expect((async () => scheduler.stepCorrectAsync(model, sample))()).rejects.toThrow(wrong);
    });
  });

  describe('steps/big_1x3x256x256', () => {
    const { json, tensor } = golden<{
      config: SnakeConfig;
      setup: SetupCall[];
      shape: number[];
      seeds: Record<'sample' | 'model_output' | 'noise', number>;
      input_summary: Record<'sample' | 'model_output' | 'noise', Summary>;
      calls: Call[];
    }>('steps/big_1x3x256x256');
    const scheduler = schedulerOf(json.config, json.setup);
    const draw = (key: 'sample' | 'model_output' | 'noise') => torch(json.seeds[key]).randn(json.shape);

    /** The three 8x8 windows that are stored. */
    const slices = (data: Float32Array) =>
      [
        [0, 0, 0],
        [1, 100, 57],
        [2, 248, 248],
      ].flatMap(([c, y, x]) =>
        Array.from({ length: 64 }, (_, i) => data[(c! * 256 + y! + (i >> 3)) * 256 + x! + (i & 7)]!),
      );

    test.each(['sample', 'model_output', 'noise'] as const)('the seeds give %s', (key) => {
      const data = floats(draw(key));
      bitEqual(slices(data), tensor(`${key}_slices`).data);
      summarised(data, json.input_summary[key]);
    });

    test.each(json.calls)('$key', async ({ key, method, timestep, timesteps, summary }) => {
      const [sample, model] = [await on(device, draw('sample')), await on(device, draw('model_output'))];
      const noise = await on(device, draw('noise'));
      const generator = torch(json.seeds.noise);
      if (method === 'step_pred') {
        const t = timestepOf(scheduler, timestep!);
        for (const result of [
          scheduler.stepPred(model, t, sample, { generator }),
          await scheduler.stepPredAsync(model, t, sample, { noise }),
        ] as Pred[]) {
          bitEqual(slices(await elementsOf(result.prevSample)), tensor(`${key}.prev_sample_slices`).data);
          bitEqual(slices(await elementsOf(result.prevSampleMean)), tensor(`${key}.prev_sample_mean_slices`).data);
          summarised(await elementsOf(result.prevSample), summary!.prev_sample);
          summarised(await elementsOf(result.prevSampleMean), summary!.prev_sample_mean);
        }
      } else if (method === 'step_correct') {
        const expected = tensor(`${key}.prev_sample_slices`).data;
        for (const { prevSample } of [
          scheduler.stepCorrect(model, sample, { generator }),
          await scheduler.stepCorrectAsync(model, sample, { noise }),
        ]) {
          within(slices(await elementsOf(prevSample)), expected, 5e-6 * summary!.prev_sample.max);
        }
      } else {
        const noisy = scheduler.addNoise(sample, noise, timesteps!);
        bitEqual(slices(await elementsOf(noisy)), tensor(`${key}.noisy_slices`).data);
      }
    });
  });
});

/** The stored float64 facts of a float32 result: exact, but for the order of the summation. */
function summarised(data: Float32Array, { abs_sum, sum: total, min, max }: Summary): void {
  const order = 1e-11 * abs_sum;
  expect(Math.abs(sum(data) - total)).toBeLessThanOrEqual(order);
  expect(Math.abs(sum(data, Math.abs) - abs_sum)).toBeLessThanOrEqual(order);
  expect(data.reduce((a, b) => Math.min(a, b), Infinity)).toBe(min);
  expect(data.reduce((a, b) => Math.max(a, b), -Infinity)).toBe(max);
}
