import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Generator, OnnxModel, ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor, type ScoreModel } from '../lib';
import { devices, elementsOf, isEmulated, on } from './support/devices';
import {
  bitEqual,
  golden,
  goldens,
  maxAbs,
  maxAbsDiff,
  readJson,
  schedulerOf,
  steps,
  sum,
  within,
  type SnakeConfig,
} from './support/golden';
import { channelsFirst, fromGrid, sameBytes, toBytes } from './support/images';
import { formula, modelOf, type ModelSpec } from './support/models';
import { formulaGraph } from './support/onnx';

interface LoopCase {
  config: SnakeConfig;
  num_inference_steps: number;
  order: string;
  shape: number[];
  generator_seed: number;
  init: string;
  model: ModelSpec;
  per_step: Record<'timestep' | 'sigma' | 'abs_sum_after_pred', number[]>;
}

interface PipelineCase {
  config: SnakeConfig;
  num_inference_steps: number;
  batch_size: number;
  sample_size: number;
  channels: number;
  generator_seed: number;
  generator_list_seeds: number[];
  model: ModelSpec;
}

/** The formula as a callback, and as a network. */
const models: [string, (spec: ModelSpec, shape: readonly number[]) => Promise<ScoreModel>][] = [
  ['a callback', async (spec) => modelOf(spec)],
  ['a network', (spec, shape) => OnnxModel.load(formulaGraph(spec, shape))],
];

const torch = (seed: number) => new Generator(seed, { engine: 'torch' });
const floats = (tensor: Tensor) => tensor.data as Float32Array;

/** What a full loop may be off by: the reference sums its norms in float32. */
const LOOP = 3e-5;
const near = (actual: Float32Array, expected: Float32Array) => within(actual, expected, LOOP * maxAbs(expected));

describe.each(devices)('on %s', (device) => {
  describe.each(goldens('loops').filter((name) => !name.endsWith('statistics')))('%s', (name) => {
    const { json, tensor, has } = golden<LoopCase>(name);
    const { shape, per_step } = json;
    if (device !== 'cpu' && isEmulated && (json.num_inference_steps > 10 || shape[0]! > 100)) return;
    const given = json.init.includes('given');
    const setup =
      json.order === 'sigmas,timesteps' ? steps(json.num_inference_steps).reverse() : steps(json.num_inference_steps);

    test.each(has('noise') ? ['drawn', 'injected'] : ['drawn'])('the loop by hand, noise %s', async (how) => {
      const scheduler = schedulerOf(json.config, setup);
      const score = formula(json.model);
      const generator = torch(json.generator_seed);
      const size = shape.reduce((a, b) => a * b);
      let draws = 0;
      const there = (data: Float32Array) => on(device, { data, dims: shape });
      const options = async () => {
        if (how === 'drawn') return { generator };
        return { noise: await there(tensor('noise').data.subarray(draws * size, ++draws * size)) };
      };

      let x = new Float32Array(tensor('init_sample').data);
      if (!given) {
        const start = floats(generator.randn(shape)).map((v) => v * scheduler.initNoiseSigma);
        bitEqual(start, x);
      }
      let mean = x;
      for (const [i, t] of scheduler.timesteps!.entries()) {
        const sigma = scheduler.sigmas[i]!;
        expect([t, sigma]).toEqual([per_step.timestep[i], per_step.sigma[i]]);
        for (let k = 0; k < scheduler.config.correctSteps; k++) {
          const [m, state] = [await there(score(x, sigma)), await there(x)];
          x = (await elementsOf(scheduler.stepCorrect(m, state, await options()).prevSample)).slice();
        }
        const [m, state] = [await there(score(x, sigma)), await there(x)];
        const { prevSample, prevSampleMean } = scheduler.stepPred(m, t, state, await options());
        [x, mean] = [(await elementsOf(prevSample)).slice(), (await elementsOf(prevSampleMean)).slice()];
        if (has(`sample_after_step${i}`)) near(x, tensor(`sample_after_step${i}`).data);
        const total = per_step.abs_sum_after_pred[i]!;
        expect(Math.abs(sum(x, Math.abs) - total)).toBeLessThanOrEqual(LOOP * total);
      }
      near(x, tensor('prev_sample').data);
      near(mean, tensor('prev_sample_mean').data);
      within(
        mean.map((v) => Math.min(Math.max(v, 0), 1)),
        tensor('clamped').data,
        LOOP * maxAbs(mean),
      );
    });

    if (given) return;

    test.each(models)("the same through the pipeline's steps, %s for the model", async (_, model) => {
      const pipeline = new ScoreSdeVePipeline({
        scheduler: schedulerOf(json.config),
        model: await model(json.model, shape.slice(1)),
        sampleShape: shape.slice(1),
        device,
      });
      const options = {
        batchSize: shape[0]!,
        numInferenceSteps: json.num_inference_steps,
        generator: torch(json.generator_seed),
      };
      let count = 0;
      for await (const step of pipeline.steps(options)) {
        const { index, total, timestep, sigma, calls } = step;
        expect({ index, total, timestep, sigma, calls }).toEqual({
          index: count++,
          total: json.num_inference_steps,
          timestep: per_step.timestep[index],
          sigma: per_step.sigma[index],
          calls: count * (json.config.correct_steps + 1),
        });
        if (has(`sample_after_step${index}`))
          near(await elementsOf(step.sample), tensor(`sample_after_step${index}`).data);
        if (count < total) continue;
        near(await elementsOf(step.sample), tensor('prev_sample').data);
        near(await elementsOf(step.mean), tensor('prev_sample_mean').data);
      }
      expect(count).toBe(json.num_inference_steps);
      await pipeline.dispose();
    });
  });

  const pipelines = goldens('pipeline').flatMap((name) => models.map(([what, model]) => ({ name, what, model })));
  describe.each(pipelines)('$name, $what for the model', ({ name, model }) => {
    const { json, tensor } = golden<PipelineCase>(name);
    const shape = [json.channels, json.sample_size, json.sample_size];
    let pipeline: ScoreSdeVePipeline;
    beforeAll(async () => {
      const scheduler = schedulerOf(json.config);
      const network = await model(json.model, shape);
      pipeline = new ScoreSdeVePipeline({ scheduler, model: network, sampleShape: shape, device });
    });
    afterAll(() => pipeline.dispose());
    const run = (generator: Generator | Generator[]) =>
      pipeline.run({ batchSize: json.batch_size, numInferenceSteps: json.num_inference_steps, generator });
    const stored = (key: string) => channelsFirst(tensor(key).data, tensor(key).dims);

    test('one generator: images and their bytes', async () => {
      const { images, calls, toPng } = await run(torch(json.generator_seed)).then((result) => ({
        images: result.images,
        calls: result.calls,
        toPng: () => result.toPng(),
      }));
      expect(images.dims).toEqual([json.batch_size, ...shape]);
      expect(calls).toBe(json.num_inference_steps * (json.config.correct_steps + 1));
      near(await elementsOf(images), stored('images'));
      const pil = tensor<Uint8Array>('pil_uint8');
      bitEqual(toBytes(stored('images')), channelsFirst(pil.data, pil.dims));
      sameBytes(fromGrid(await toPng(), [...images.dims]), stored('images'), LOOP);
    });

    test('one generator per sample', async () => {
      const { images } = await run(json.generator_list_seeds.map(torch));
      near(await elementsOf(images), stored('images_generator_list'));
    });
  });

  describe('the numbers that diffusers asserts', () => {
    const { config, tests } = readJson<{
      config: SnakeConfig;
      tests: {
        name: string;
        params?: { pairs?: [number, number][]; num_train_timesteps?: number[]; time_step?: number[] };
      }[];
    }>('upstream_tests');
    const params = (name: string) => tests.find((entry) => entry.name === name)!.params!;
    const dims = [4, 3, 8, 8];
    const sample = { data: Float32Array.from({ length: 768 }, (_, i) => ((i * 37) % 768) / 768), dims };
    const residual = { data: sample.data.map((v) => 0.1 * v), dims };
    let folder: string;

    beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'score-sde-'))));
    afterAll(() => rmSync(folder, { recursive: true }));

    test('test_full_loop_no_noise: sum and mean', async () => {
      const { json, tensor } = golden<LoopCase>('loops/upstream_full_loop_no_noise');
      const scheduler = new ScoreSdeVeScheduler();
      scheduler.setSigmas(3);
      scheduler.setTimesteps(3);
      const generator = torch(0);
      const score = formula(json.model);
      const deterministic = Float32Array.from({ length: 768 }, (_, i) => ((i % 192) * 4 + Math.floor(i / 192)) / 768);
      bitEqual(deterministic, tensor('init_sample').data);
      let x = deterministic;
      const there = (data: Float32Array) => on(device, { data, dims });
      const states = async (i: number) => [await there(score(x, scheduler.sigmas[i]!)), await there(x)] as const;
      for (const [i, t] of scheduler.timesteps!.entries()) {
        for (let k = 0; k < scheduler.config.correctSteps; k++) {
          const { prevSample } = scheduler.stepCorrect(...(await states(i)), { generator });
          x = (await elementsOf(prevSample)).slice();
        }
        const [m, state] = await states(i);
        x = (await elementsOf(scheduler.stepPred(m, t, state, { generator }).prevSample)).slice();
      }
      const total = sum(x, Math.abs);
      expect(Math.abs(total - 14372758528)).toBeLessThanOrEqual(1e-5 * 14372758528);
      expect(Math.abs(total / 768 - 18714530)).toBeLessThanOrEqual(1e-5 * 18714530);
    });

    test.each([
      ...params('test_timesteps').num_train_timesteps!.map((n) => ({ change: { num_train_timesteps: n }, t: 0 })),
      ...params('test_sigmas').pairs!.map(([lo, hi]) => ({ change: { sigma_min: lo, sigma_max: hi }, t: 0 })),
      ...params('test_time_indices').time_step!.map((t) => ({ change: {}, t })),
      { change: {}, t: 1 },
    ])('a scheduler and its saved copy agree: $change, t = $t', async ({ change, t }) => {
      const original = schedulerOf({ ...config, ...change });
      await original.savePretrained(folder);
      const copy = await ScoreSdeVeScheduler.fromPretrained(folder);
      const [m, x] = [await on(device, residual), await on(device, sample)];
      const outputs = [
        original.stepPred(m, t, x, { generator: torch(0) }),
        copy.stepPred(m, t, x, { generator: torch(0) }),
        original.stepCorrect(m, x, { generator: torch(0) }),
        copy.stepCorrect(m, x, { generator: torch(0) }),
      ];
      expect(outputs[0]!.prevSample.dims).toEqual(dims);
      const [pred, predCopy, correct, correctCopy] = await Promise.all(
        outputs.map(({ prevSample }) => elementsOf(prevSample)),
      );
      expect(maxAbsDiff(pred!, predCopy!) + maxAbsDiff(correct!, correctCopy!)).toBe(0);
    });
  });
});
