import {
  Generator,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  type RunOptions,
  type SamplingProgress,
  type SamplingStep,
  type ScoreModel,
  type StepsOptions,
} from '../lib';
import { solverOf } from '../lib/solvers';
import { devices, elementsOf, isEmulated } from './support/devices';
import { bitEqual, golden, maxAbs, within } from './support/golden';
import { failure, rejection, sentence } from './support/refusals';
import { config, isAdaptive, mixture, pipelineOn, sampleShape, samplesOf, solverCases } from './support/requests';
import { lin, mixtureScore, thresholded, toy } from './support/stages';

const options: StepsOptions = { solver: 'er_sde', numInferenceSteps: 5, seed: 1, batchSize: 2 };
const copyOf = async (tensor: Tensor) => (await elementsOf(tensor)).slice();

/** A model that waits a turn of the event loop. */
const slowly: ScoreModel = async (...args) => {
  await new Promise(setImmediate);
  return mixture(...args);
};

describe.each(devices)('on %s', (device) => {
  const pipeline = pipelineOn(device);

  describe('a run that is an object', () => {
    test('is awaited', async () => {
      const { samples, images, calls, steps } = await pipeline.start(options).result;
      expect([samples.dims, images.dims, calls, steps]).toEqual([[2, 6], [2, 6], 5, 5]);
      bitEqual(await elementsOf(samples), await samplesOf(pipeline, options));
    });

    test('is iterated over, and has a result, too', async () => {
      const run = pipeline.start(options);
      const seen: SamplingStep[] = [];
      for await (const step of run) seen.push(step);
      expect(seen.map(({ index, total, calls }) => [index, total, calls])).toEqual(
        [0, 1, 2, 3, 4].map((i) => [i, 5, i + 1]),
      );
      const { samples } = await run.result;
      bitEqual(await elementsOf(samples), await elementsOf(seen.at(-1)!.mean));
      bitEqual(await elementsOf(samples), await samplesOf(pipeline, options));
    });

    test('is read late: from where it is', async () => {
      const run = pipelineOn(device, slowly).start({ ...options, numInferenceSteps: 30 });
      await new Promise((resolve) => setTimeout(resolve, 10));
      const seen: number[] = [];
      for await (const { index } of run) seen.push(index);
      expect(seen).toEqual(Array.from({ length: seen.length }, (_, i) => 30 - seen.length + i));
      bitEqual(
        await elementsOf((await run.result).samples),
        await samplesOf(pipeline, { ...options, numInferenceSteps: 30 }),
      );
    });

    test('is read after its end: there is nothing, or its error', async () => {
      const run = pipeline.start(options);
      await run.result;
      for await (const _ of run) throw new Error('a step');
      const aborted = pipeline.start(options);
      aborted.abort('enough');
      const error = await rejection(async () => {
        for await (const _ of aborted);
      });
      sentence(error, 'ERR_ABORTED');
      expect(error.cause).toBe('enough');
    });

    test('has one reader', async () => {
      const run = pipeline.start(options);
      for await (const { index } of run)
        if (index === 1)
          sentence(
            await rejection(async () => {
              for await (const _ of run);
            }),
            'ERR_STATE',
            /another reads them/,
          );
      await run.result;
    });

    test('ends where its loop is left', async () => {
      const run = pipeline.start(options);
      for await (const { index } of run) if (index === 1) break;
      sentence(await rejection(() => run.result), 'ERR_ABORTED');
    });

    test('ends where its loop throws', async () => {
      const run = pipeline.start(options);
      const reason = new Error('the disk is full');
      const read = async () => {
        for await (const { index } of run) if (index === 1) throw reason;
      };
      expect(await read().catch((error: unknown) => error)).toBe(reason);
      sentence(await rejection(() => run.result), 'ERR_ABORTED');
    });

    test('is aborted: its result and its steps reject, and only once', async () => {
      const run = pipeline.start(options);
      const read = async () => {
        for await (const { index } of run) if (index === 1) run.abort('first');
      };
      const [result, steps] = await Promise.all([rejection(() => run.result), rejection(read)]);
      expect(result).toBe(steps);
      expect(result.cause).toBe('first');
      run.abort('second');
      expect(await rejection(() => run.result)).toBe(result);
    });

    test('is aborted before it began: the model is not called', async () => {
      const model = jest.fn(mixture);
      const run = pipelineOn(device, model).start(options);
      run.abort();
      sentence(await rejection(() => run.result), 'ERR_ABORTED');
      await new Promise(setImmediate);
      expect(model).not.toHaveBeenCalled();
      await run[Symbol.asyncDispose]();
    });

    test('is disposed of where its block ends', async () => {
      const run = pipelineOn(device, slowly).start(options);
      {
        await using own = run;
        await new Promise(setImmediate);
        expect(own).toBe(run);
      }
      sentence(await rejection(() => run.result), 'ERR_ABORTED');
      // The end of a run that has ended already waits for nothing.
      const ended = pipeline.start(options);
      await ended.result;
      await ended[Symbol.asyncDispose]();
      expect((await ended.result).calls).toBe(5);
    });

    test('does not wait for a model that never returns', async () => {
      const run = pipelineOn(device, () => new Promise(() => {})).start(options);
      await new Promise((resolve) => setTimeout(resolve, 5));
      await run[Symbol.asyncDispose]();
      sentence(await rejection(() => run.result), 'ERR_ABORTED');
    });
  });

  describe('onProgress', () => {
    const progressOf = async (given: RunOptions) => {
      const seen: SamplingProgress[] = [];
      const result = await pipeline.run({ ...given, onProgress: (progress) => seen.push(progress) });
      return { seen, result };
    };

    test.each(solverCases.filter(({ options }) => !isAdaptive(options)))(
      'once a step, in order: $name',
      async ({ options: own }) => {
        const steps: unknown[] = [];
        const given = { ...own, seed: 1 };
        for await (const { index, total, calls, sigma } of pipeline.steps(given))
          steps.push({ step: index + 1, total, calls, sigma });
        const { seen, result } = await progressOf(given);
        expect(seen).toEqual(steps);
        expect(seen.at(-1)).toMatchObject({ step: result.steps, total: result.steps, calls: result.calls });
        seen.forEach((each, i) => expect(each.sigma).toBeLessThan(seen[i - 1]?.sigma ?? Infinity));
      },
    );

    test('of an adaptive solver: each step that a sample is the first to take', async () => {
      const { seen, result } = await progressOf({ solver: 'dpm_adaptive', seed: 1, batchSize: 3 });
      expect(seen.map(({ step }) => step)).toEqual(Array.from({ length: result.steps }, (_, i) => i + 1));
      expect(seen.every(({ total }) => Number.isNaN(total))).toBe(true);
      expect(seen.at(-1)!.calls).toBe(result.calls);
      seen.forEach(({ sigma }) => expect(sigma).toBeLessThanOrEqual(config.sigmaMax));
    });

    test('comes before the step is shown, and before the result', async () => {
      const order: string[] = [];
      await pipeline
        .run({
          ...options,
          numInferenceSteps: 2,
          onProgress: ({ step }) => order.push(`progress ${step}`),
          onStep: ({ index }) => order.push(`step ${index + 1}`),
        })
        .then(() => order.push('result'));
      expect(order).toEqual(['progress 1', 'step 1', 'progress 2', 'step 2', 'result']);
    });

    test('what it throws ends the run', async () => {
      const reason = new Error('the pipe is broken');
      let count = 0;
      const onProgress = ({ step }: SamplingProgress) => {
        count++;
        if (step === 2) throw reason;
      };
      const model = jest.fn(slowly);
      const run = pipelineOn(device, model).run({ ...options, numInferenceSteps: 20, onProgress });
      expect(await run.catch((error: unknown) => error)).toBe(reason);
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(count).toBe(2);
      expect(model.mock.calls.length).toBeLessThan(5);
    });

    test('changes no bit', async () => {
      const { result } = await progressOf(options);
      bitEqual(await elementsOf(result.samples), await samplesOf(pipeline, options));
    });
  });

  describe('step.denoised', () => {
    /** The states that the model was called with, and what it gave. */
    const watched = () => {
      const calls: { x: Float32Array; score: Float32Array; sigma: number }[] = [];
      const model: ScoreModel = (sample, sigma, inputs) => {
        const score = mixture(sample, sigma, inputs) as Tensor<'float32'>;
        calls.push({ x: sample.data.slice(), score: score.data.slice(), sigma: sigma.data[0]! });
        return score;
      };
      return { calls, pipeline: pipelineOn(device, model) };
    };

    test.each(solverCases)('is x + sigma^2 score of the last call: $name', async ({ options: own }) => {
      const { calls, pipeline } = watched();
      const rows = isAdaptive(own) ? 1 : 2;
      for await (const { denoised } of pipeline.steps({ ...own, seed: 1, batchSize: rows })) {
        const { x, score, sigma } = calls.at(-1)!;
        const square = Math.fround(sigma * sigma);
        const expected = x.map((value, i) => Math.fround(value + Math.fround(square * score[i]!)));
        within(await elementsOf(denoised), expected, 2e-6 * maxAbs(x));
      }
    });

    test('is made once, when it is read, and keeps', async () => {
      const kept: [Tensor, Float32Array][] = [];
      const empty = jest.spyOn(Tensor, 'empty');
      for await (const step of pipeline.steps(options)) {
        const before = empty.mock.calls.length;
        const { denoised } = step;
        expect(empty.mock.calls.length).toBe(before + 1);
        expect(step.denoised).toBe(denoised);
        kept.push([denoised, await copyOf(denoised)]);
      }
      empty.mockRestore();
      for (const [tensor, values] of kept) bitEqual(await elementsOf(tensor), values);
    });

    test('read late: ERR_STATE, unless it was read in time', async () => {
      const steps: SamplingStep[] = [];
      for await (const step of pipeline.steps(options)) {
        steps.push(step);
        if (step.index === 0) void step.denoised;
      }
      expect(steps[0]!.denoised.dims).toEqual([2, 6]);
      for (const step of steps.slice(1))
        sentence(
          failure(() => step.denoised),
          'ERR_STATE',
          /before the run goes on/,
        );
    });

    test('is what a corrector saw, too', async () => {
      const seen: Float32Array[] = [];
      const onStep = async (step: SamplingStep) => void seen.push(await copyOf(step.denoised));
      await pipeline.run({ solver: 'langevin', compat: 'score_sde', numInferenceSteps: 3, seed: 1, onStep });
      expect(seen).toHaveLength(3);
    });
  });

  test('the last update of a corrector keeps its noise, whether its steps are read or not', async () => {
    const given = { solver: 'langevin', compat: 'score_sde', numInferenceSteps: 4, seed: 1 } as const;
    let last: SamplingStep | undefined;
    const read = await pipeline.run({ ...given, onStep: (step) => void (last = step) });
    bitEqual(await elementsOf(read.samples), await samplesOf(pipeline, given));
    bitEqual(await elementsOf(read.samples), await elementsOf(last!.sample));
    expect(await elementsOf(last!.mean)).not.toEqual(await elementsOf(last!.sample));
  });

  test('an adaptive run is read step by step where it is of one sample', async () => {
    const given = { solver: 'dpm_adaptive', hInit: 2.5, rtol: 0.01, seed: 2 };
    const steps: { step: SamplingStep; copies: Float32Array[] }[] = [];
    for await (const step of pipeline.steps(given))
      steps.push({ step, copies: [await copyOf(step.sample), await copyOf(step.mean)] });
    const result = await pipeline.run(given);
    expect(steps.map(({ step }) => step.index)).toEqual(Array.from({ length: result.steps }, (_, i) => i));
    for (const { step, copies } of steps) {
      bitEqual(await elementsOf(step.sample), copies[0]!);
      bitEqual(await elementsOf(step.mean), copies[1]!);
      expect(step.timestep).toBeCloseTo(Math.log(step.sigma / 0.01) / Math.log(800), 5);
    }
    bitEqual(await elementsOf(result.samples), steps.at(-1)!.copies[1]!);
    const error = await rejection(() => pipeline.run({ ...given, batchSize: 2, onStep: () => {} }));
    sentence(error, 'ERR_CONFIG', /no steps that the samples of a batch have in common/);
  });

  describe('what a run gives', () => {
    const wide: ScoreModel = (sample, sigma) => {
      const score = sample.data.map((x, i) => (i % 6 === 0 ? -3 : i % 6 === 1 ? 4 : 0.25) - x);
      return new Tensor(
        'float32',
        score.map((v, i) => v / (0.01 + sigma.data[Math.floor(i / 6)]! ** 2)),
        sample.dims,
      );
    };
    test.each([undefined, [0, 1], [-1, 1], [-3, 4]] as const)(
      'samples as they are, images by dataRange %p',
      async (dataRange) => {
        const given = { ...options, numInferenceSteps: 12, ...(dataRange && { dataRange }) };
        const { samples, images } = await pipelineOn(device, wide).run(given);
        const values = await elementsOf(samples);
        expect(Math.min(...values)).toBeLessThan(-2.5);
        expect(Math.max(...values)).toBeGreaterThan(3.5);
        const [low, high] = dataRange ?? [0, 1];
        const expected = values.map((value) => Math.min(1, Math.max(0, (value - low) / (high - low))));
        within(await elementsOf(images), expected, 1e-6);
        if (low === 0) bitEqual(await elementsOf(images), expected);
      },
    );

    test.each([[[16000]], [[2]], [[1, 1, 1, 2]]])('samples of %p', async (shape) => {
      const own = pipelineOn(device, mixture, shape);
      for (const solver of ['pc', 'er_sde', 'heun']) {
        const { samples, images } = await own.run({ solver, numInferenceSteps: 3, seed: 1, batchSize: 2 });
        expect([samples.dims, images.dims]).toEqual([
          [2, ...shape],
          [2, ...shape],
        ]);
        const one = await own.run({ solver, numInferenceSteps: 3, seed: 2 });
        const size = samples.size / 2;
        bitEqual((await elementsOf(samples)).slice(size), await elementsOf(one.samples));
      }
    });
  });

  describe('a run that begins elsewhere', () => {
    const oneCall = solverCases.filter(({ name }) => /^(pc|reverse|euler|ancestral|prob)/.test(name));

    test.each(oneCall)('is the tail of the whole run: $name', async ({ options: own }) => {
      const given = () => ({
        ...own,
        batchSize: 2,
        start: undefined,
        ...(own.solver === 'euler' && { start: 'zero' as const }),
      });
      const generator = new Generator(3);
      const cuts: { sample: Float32Array; state: ReturnType<Generator['getState']>; sigma: number }[] = [];
      const steps: number[] = [];
      let final: Float32Array | undefined;
      for await (const { sample, mean, sigma } of pipeline.steps({ ...given(), generator })) {
        cuts.push({ sample: await copyOf(sample), state: generator.getState(), sigma });
        steps.push(sigma);
        final = await copyOf(mean);
      }
      for (const [k, { sample, state }] of cuts.slice(0, -1).entries()) {
        const x = new Tensor('float32', sample, [2, ...sampleShape]);
        const before = sample.slice();
        const seen: number[] = [];
        const rest = await pipeline.run({
          ...given(),
          sample: x,
          startStep: k + 1,
          generator: new Generator(0).setState(state),
          onProgress: ({ sigma }) => seen.push(sigma),
        });
        expect(seen).toEqual(steps.slice(k + 1));
        bitEqual(await elementsOf(rest.samples), final!);
        bitEqual(sample, before);
      }
    });

    test('with the start of its seed it is the whole run, also where noise opens it', async () => {
      for (const own of [{ solver: 'pc' }, { solver: 'dpmpp_2m_sde' }, { solver: 'heun', churn: { amount: 3 } }]) {
        const z = new Generator(6).randn(sampleShape).data.map((value) => value * config.sigmaMax);
        const given = { ...own, numInferenceSteps: 4, seed: 6, start: 'zero' as const };
        if (own.solver === 'pc') delete (given as { start?: unknown }).start;
        const sample = new Tensor('float32', z, [1, ...sampleShape]);
        bitEqual(await samplesOf(pipeline, { ...given, sample }), await samplesOf(pipeline, given));
      }
    });

    test('sigmaStart is the highest level', async () => {
      const sample = new Generator(1).randn([1, ...sampleShape]);
      for (const solver of ['pc', 'er_sde', 'heun', 'dpm_adaptive']) {
        const sigmas: number[] = [];
        const onProgress = ({ sigma }: SamplingProgress) => sigmas.push(sigma);
        const own = { solver, numInferenceSteps: 4, sample, sigmaStart: 0.7, seed: 1, onProgress };
        await pipeline.run(solver === 'dpm_adaptive' ? { ...own, numInferenceSteps: undefined } : own);
        expect(sigmas[0]).toBeCloseTo(0.7, 5);
      }
    });

    test.each<[string, StepsOptions, RegExp]>([
      ['startStep without sample', { startStep: 1 }, /say where sample stands: give it/],
      ['sigmaStart without sample', { sigmaStart: 1 }, /say where sample stands: give it/],
      ['both', { sample: Tensor.zeros([1, 6]), startStep: 1, sigmaStart: 1 }, /both given/],
      ['a noiseSampler without sample', { noiseSampler: () => Tensor.zeros([1, 6]) }, /noiseSampler needs sample/],
    ])('%s is refused', (_, given, says) => {
      sentence(
        failure(() => pipeline.start(given)),
        'ERR_CONFIG',
        says,
      );
    });

    test.each<[StepsOptions, RegExp]>([
      [{ sigmaMin: 100, sigmaMax: 1 }, /^sigmaMin must be below sigmaMax, 1, got 100$/],
      [
        { sample: Tensor.zeros([1, 6]), sigmaStart: 0.001, sigmaMin: 0.01 },
        /^sigmaMin must be below sigmaStart, 0.001, got 0.01$/,
      ],
    ])('levels that do not decrease are refused: %j', (given, says) => {
      sentence(
        failure(() => pipeline.start({ calls: 5, ...given })),
        'ERR_RANGE',
        says,
      );
    });

    test('a sample of another shape is refused', () => {
      for (const dims of [[6], [1, 7], [1, 6, 1]])
        sentence(
          failure(() => pipeline.start({ sample: Tensor.zeros(dims) })),
          'ERR_SHAPE',
          /sample/,
        );
      sentence(
        failure(() => pipeline.start({ sample: Tensor.zeros([2, 6]), batchSize: 3 })),
        'ERR_SHAPE',
        /batchSize is 3/,
      );
      expect(pipeline.start({ sample: Tensor.zeros([2, 6]), numInferenceSteps: 1 })).toBeDefined();
    });
  });

  describe('the published code, from its start and its noise to its end', () => {
    interface Case {
      key: string;
      arguments: Record<string, any>;
      shape: number[];
      model: 'lin' | 'toy' | 'gmm';
      sigmas: number[];
      t_steps?: number[];
      calls: number;
    }
    const files: [string, string, (given: Record<string, any>) => StepsOptions][] = [
      ['euler', 'euler', () => ({})],
      ['euler_ancestral', 'euler_ancestral', ({ eta }) => ({ eta })],
      ['heun', 'heun', () => ({})],
      ['lms', 'lms', () => ({})],
      ['dpmpp_2m', 'dpmpp_2m', () => ({})],
      [
        'dpmpp_2m_sde',
        'dpmpp_2m_sde',
        ({ eta, s_noise, solver_type }) => ({ eta, sNoise: s_noise, solverType: solver_type }),
      ],
      ['dpmpp_3m_sde', 'dpmpp_3m_sde', ({ eta }) => ({ eta })],
      [
        'er_sde',
        'er_sde',
        ({ order, phi }) => ({ order, eta: phi === 'default' ? 'authors' : Number(String(phi).slice(4)) }),
      ],
      ['ipndm', 'ipndm', () => ({})],
      ['unipc', 'unipc', () => ({})],
      [
        'edm_sampler',
        'heun',
        ({ S_churn, S_min, S_max, S_noise }) => ({
          churn: { amount: S_churn ?? 0, min: S_min, max: S_max, noise: S_noise },
        }),
      ],
    ];
    test.each(files)('%s', async (name, solver, optionsOf) => {
      const file = golden<{ models: { gmm: { weights: number[]; stds: number[] } }; cases: Case[] }>(`solvers/${name}`);
      const { cases } = file.json;
      // An emulated device takes its time.
      const some = [0, 0.25, 0.5, 0.75, 1].map((part) => cases[Math.floor(part * (cases.length - 1))]!);
      for (const each of new Set(isEmulated && device !== 'cpu' ? some : cases)) {
        const { key, shape, model } = each;
        const means = model === 'gmm' ? file.tensor<Float64Array>(`${key}.model.means`).data : [];
        const exact = model === 'lin' ? lin : model === 'toy' ? toy : mixtureScore({ ...file.json.models.gmm, means });
        const score = name === 'unipc' ? thresholded(exact, each.calls) : exact;
        const seen: number[] = [];
        const network: ScoreModel = (sample, sigma) => {
          seen.push(...sample.data);
          return {
            data: Float32Array.from(score(Float64Array.from(sample.data), Array.from(sigma.data))),
            dims: sample.dims,
          };
        };
        const grid = each.t_steps ?? each.sigmas;
        const x0 = file.tensor<Float64Array>(`${key}.x0`).data;
        const noiseSampler = (sigma: number): Tensor => {
          const i = grid.indexOf(sigma);
          const { data } = file.tensor<Float64Array>(`${key}.noise`);
          return new Tensor('float32', Float32Array.from(data.subarray(i * x0.length, (i + 1) * x0.length)), shape);
        };
        const own = pipelineOn(device, network, shape.slice(1));
        const sample = new Tensor('float32', Float32Array.from(x0), shape);
        const given = optionsOf(each.arguments);
        const { samples, calls } = await own.run({ solver, ...given, grid, sample, noiseSampler, start: 'zero' });
        const { data: final } = file.tensor<Float64Array>(`${key}.final`);
        expect(calls).toBe(each.calls);
        within(await elementsOf(samples), final, 4e-6 * maxAbs(final) + 3e-7 * grid[0]!);
        const { data: called } = file.tensor<Float64Array>(`${key}.x`);
        within(seen, called, 4e-6 * maxAbs(called) + 3e-7 * grid[0]!);
      }
    });
  });

  describe('a noiseSampler', () => {
    test('is told the levels, once for each update that adds noise', async () => {
      const seen: number[][] = [];
      const z = new Generator(2);
      const sample = new Generator(1).randn([2, ...sampleShape]);
      const noiseSampler = (...levels: number[]) => {
        seen.push(levels);
        return z.randn([2, ...sampleShape]);
      };
      await pipeline.run({ solver: 'euler_ancestral', grid: [4, 2, 1], sample, noiseSampler });
      expect(seen).toEqual([
        [4, 2],
        [2, 1],
      ]);
    });

    test.each<[string, () => unknown, RegExp]>([
      ['another shape', () => Tensor.zeros([1, 6]), /noiseSampler/],
      ['nothing', () => undefined, /noiseSampler/],
      ['doubles', () => ({ data: new Float64Array(12), dims: [2, 6] }), /noiseSampler/],
    ])('that gives %s is refused', async (_, noiseSampler, says) => {
      const sample = Tensor.zeros([2, 6]);
      const run = pipeline.run({
        solver: 'euler_ancestral',
        grid: [4, 2, 1],
        sample,
        noiseSampler: noiseSampler as never,
      });
      sentence(await rejection(() => run), ['ERR_SHAPE', 'ERR_DTYPE'] as never, says);
    });

    test('that throws ends the run', async () => {
      const reason = new Error('no noise');
      const noiseSampler = () => {
        throw reason;
      };
      const run = pipeline.run({ solver: 'euler_ancestral', grid: [4, 2], sample: Tensor.zeros([1, 6]), noiseSampler });
      expect(await run.catch((error: unknown) => error)).toBe(reason);
    });
  });
});

describe('the number of network calls', () => {
  const counts = [...Array.from({ length: 60 }, (_, i) => i + 1), 500];
  test.each(solverCases.filter(({ options }) => !isAdaptive(options) && options.grid === undefined))(
    'is the one that was asked for: $name',
    async ({ options: { numInferenceSteps: _, start: __, ...own } }) => {
      let made = 0;
      const model: ScoreModel = (sample) => {
        made++;
        return { data: sample.data.map((x) => -x), dims: sample.dims };
      };
      const pipeline = pipelineOn('cpu', model, [2]);
      for (const calls of counts) {
        made = 0;
        const told: number[] = [];
        const result = await pipeline.run({
          ...own,
          calls,
          seed: 1,
          onProgress: (progress) => told.push(progress.calls),
        });
        expect([made, result.calls, told.at(-1)]).toEqual([calls, calls, calls]);
      }
    },
  );

  test('without a solver', async () => {
    let made = 0;
    const pipeline = pipelineOn('cpu', (...args) => (made++, mixture(...args)));
    for (const calls of [1, 2, 5, 6, 7, 20]) {
      made = 0;
      expect((await pipeline.run({ calls, seed: 1 })).calls).toBe(calls);
      expect(made).toBe(calls);
    }
  });

  test('of an adaptive run is the most that a sample took', async () => {
    const rows = new Map<number, number>();
    const pipeline = pipelineOn('cpu', (sample, sigma, inputs) => {
      for (const id of inputs!.id as number[]) rows.set(id, (rows.get(id) ?? 0) + 1);
      return mixture(sample, sigma, {});
    });
    const modelInputs = { id: [0, 1, 2] };
    const { calls } = await pipeline.run({ solver: 'dpm_adaptive', seed: 1, batchSize: 3, modelInputs });
    expect(calls).toBe(Math.max(...rows.values()));
  });
});

describe('a generator', () => {
  const pipeline = pipelineOn('cpu', slowly);
  const given = (generator: Generator | Generator[]) => ({
    solver: 'pc',
    numInferenceSteps: 3,
    batchSize: 2,
    generator,
  });

  test.each(['philox', 'torch'] as const)('of one run under way is refused to others: %s', async (engine) => {
    const shared = new Generator(1, { engine });
    const first = pipeline.run(given(shared));
    sentence(await rejection(() => pipeline.run(given(shared))), 'ERR_BUSY', /generator is in use by another run/);
    sentence(await rejection(() => pipeline.run(given([new Generator(2, { engine }), shared]))), 'ERR_BUSY');
    // Those that were refused have not made it free.
    sentence(await rejection(() => pipeline.run(given(shared))), 'ERR_BUSY');
    const { samples } = await first;
    bitEqual(await elementsOf(samples), await samplesOf(pipeline, given(new Generator(1, { engine }))));
    await pipeline.run(given(shared));
  });

  test('is free after an abort, and takes no draw of the run that was ended', async () => {
    const shared = new Generator(1);
    for (let i = 0; i < 20; i++) {
      const run = pipeline.start(given(shared));
      for (let turn = 0; turn < i % 7; turn++) await new Promise(setImmediate);
      run.abort();
      const again = new Generator(0).setState(shared.getState());
      bitEqual(await samplesOf(pipeline, given(shared)), await samplesOf(pipeline, given(again)));
      expect(shared.getState()).toEqual(again.getState());
      await rejection(() => run.result);
    }
  });

  test('is free after a failure', async () => {
    const shared = new Generator(1);
    const failing = pipelineOn('cpu', () => Promise.reject(new Error('x')));
    await failing.run(given(shared)).catch(() => {});
    await pipeline.run(given(shared));
  });
});

describe('dispose', () => {
  const disposable = () => {
    const ended: string[] = [];
    const model = Object.assign((...args: Parameters<ScoreModel>) => slowly(...args), {
      dispose: async () => void ended.push('model'),
    }) as ScoreModel;
    const scheduler = new ScoreSdeVeScheduler(config);
    return { ended, pipeline: new ScoreSdeVePipeline({ scheduler, model, sampleShape, device: 'cpu' }) };
  };

  test('waits for the runs under way, those of the same turn, too', async () => {
    const { ended, pipeline } = disposable();
    const runs = [pipeline.run(options), pipeline.start(options).result];
    const iterator = pipeline.steps(options);
    await iterator.next();
    for (const run of runs) void run.then(() => ended.push('run'));
    const disposed = pipeline.dispose().then(() => ended.push('disposed'));
    await Promise.all(runs);
    expect(ended).toEqual(['run', 'run']);
    await iterator.return();
    await disposed;
    expect(ended).toEqual(['run', 'run', 'model', 'disposed']);
  });

  test('refuses runs from then on', async () => {
    const { pipeline } = disposable();
    const bytes = await pipeline.start(options).save();
    const steps = pipeline.steps(options);
    const disposed = pipeline.dispose();
    sentence(await rejection(() => pipeline.run(options)), 'ERR_DISPOSED', /the model is disposed, and its pipeline/);
    for (const call of [() => pipeline.start(options), () => pipeline.steps(options), () => pipeline.resume(bytes)])
      sentence(failure(call), 'ERR_DISPOSED');
    sentence(await rejection(() => steps.next()), 'ERR_DISPOSED');
    await disposed;
  });

  test('does not wait for a model that never returns, once its run is aborted', async () => {
    const pipeline = pipelineOn('cpu', () => new Promise(() => {}));
    const run = pipeline.start(options);
    await new Promise((resolve) => setTimeout(resolve, 5));
    const disposed = pipeline.dispose();
    run.abort();
    await disposed;
  });
});

test('a solver that was made is used as it is', async () => {
  const pipeline = pipelineOn('cpu');
  const solver = solverOf('heun', {});
  bitEqual(
    await samplesOf(pipeline, { ...options, solver }),
    await samplesOf(pipeline, { ...options, solver: 'heun' }),
  );
});
