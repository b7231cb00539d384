import { getEventListeners } from 'node:events';
import { AbortError, Generator, ScoreSdeVePipeline, Tensor, type ScoreModel, type StepsOptions } from '../lib';
import { run as inProcess } from './support/child';
import { devices, elementsOf, isEmulated } from './support/devices';
import { bitEqual } from './support/golden';
import { rejection, sentence } from './support/refusals';
import { mixture, pipelineOn, randomly, samplesOf } from './support/requests';

const unhandled: unknown[] = [];
const note = (reason: unknown) => void unhandled.push(reason);
beforeAll(() => void process.on('unhandledRejection', note));
afterEach(async () => {
  // A rejection is reported once the microtasks of its turn are over.
  await new Promise(setImmediate);
  expect(unhandled).toEqual([]);
});
afterAll(() => void process.off('unhandledRejection', note));

const options: StepsOptions = { solver: 'er_sde', numInferenceSteps: 5, seed: 1, batchSize: 2 };

const hung = () => new Promise<never>(() => {});

/** Milliseconds from an abort to the rejection of a promise; the rejection is an AbortError with the abort's reason. */
async function ending(promise: Promise<unknown>, abort: (reason: unknown) => void): Promise<number> {
  const reason = new Error('nobody waits for it');
  const rejected = rejection(() => promise);
  const since = performance.now();
  abort(reason);
  const error = await rejected;
  const took = performance.now() - since;
  sentence(error, 'ERR_ABORTED');
  expect(error).toBeInstanceOf(AbortError);
  expect(error.cause).toBe(reason);
  return took;
}

/** The least of some times: other processes may take the machine at any of them. */
async function least(count: number, measure: () => Promise<number>): Promise<number> {
  let min = Infinity;
  for (let i = 0; i < count; i++) min = Math.min(min, await measure());
  return min;
}

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
};

describe.each(devices)('on %s', (device) => {
  const pipeline = pipelineOn(device);
  const stuck = pipelineOn(device, hung);

  describe('what never settles is left at once', () => {
    test('a model: run', async () => {
      const took = await least(5, async () => {
        const controller = new AbortController();
        const run = stuck.run({ ...options, signal: controller.signal });
        await turns(10);
        return ending(run, (reason) => controller.abort(reason));
      });
      expect(took).toBeLessThan(5);
    });

    test('a model: steps().next()', async () => {
      const took = await least(5, async () => {
        const controller = new AbortController();
        const next = stuck.steps({ ...options, signal: controller.signal }).next();
        await turns(10);
        return ending(next, (reason) => controller.abort(reason));
      });
      expect(took).toBeLessThan(5);
    });

    test('a model: result', async () => {
      const took = await least(5, async () => {
        const run = stuck.start(options);
        await turns(10);
        return ending(run.result, (reason) => run.abort(reason));
      });
      expect(took).toBeLessThan(5);
    });

    test('an onStep', async () => {
      const took = await least(5, async () => {
        const controller = new AbortController();
        let isReached = false;
        const onStep = () => {
          isReached = true;
          return hung();
        };
        const run = pipeline.run({ ...options, signal: controller.signal, onStep });
        while (!isReached) await turns(1);
        return ending(run, (reason) => controller.abort(reason));
      });
      expect(took).toBeLessThan(5);
    });

    test('an abort in the model itself, and in the turn of the start', async () => {
      const controller = new AbortController();
      const model: ScoreModel = () => {
        controller.abort();
        return hung();
      };
      sentence(
        await rejection(() => pipelineOn(device, model).run({ ...options, signal: controller.signal })),
        'ERR_ABORTED',
      );
      const now = new AbortController();
      const run = stuck.run({ ...options, signal: now.signal });
      now.abort();
      sentence(await rejection(() => run), 'ERR_ABORTED');
    });
  });

  test('what a model and a reader give later is dropped', async () => {
    const late: (() => void)[] = [];
    const outcomes = [
      () => Promise.reject(new Error('late')),
      () => Tensor.zeros([2, 6]),
      () => undefined,
      () => 5,
    ] as (() => Tensor)[];
    for (const outcome of outcomes) {
      const model: ScoreModel = async () => {
        await new Promise<void>((resolve) => late.push(resolve));
        return outcome();
      };
      const run = pipelineOn(device, model).start(options);
      while (late.length === 0) await turns(1);
      run.abort();
      sentence(await rejection(() => run.result), 'ERR_ABORTED');
      late.pop()!();
      await turns(3);
    }
    const controller = new AbortController();
    const onStep = async () => {
      await new Promise<void>((resolve) => late.push(resolve));
      throw new Error('late');
    };
    const run = pipeline.run({ ...options, signal: controller.signal, onStep });
    while (late.length === 0) await turns(1);
    controller.abort();
    sentence(await rejection(() => run), 'ERR_ABORTED');
    late.pop()!();
    await turns(3);
  });

  if (device === 'cpu')
    test('a model that goes on keeps the memory it was given, and writes to no one else', async () => {
      const kept: { sample: Tensor<'float32'>; out: Tensor<'float32'>; x: Float32Array }[] = [];
      const controller = new AbortController();
      const model: ScoreModel = (sample, _sigma, _inputs, context) => {
        kept.push({ sample, out: context!.out!, x: sample.data.slice() });
        setImmediate(() => controller.abort());
        return hung();
      };
      const ended = pipelineOn(device, model).start({ ...options, signal: controller.signal });
      await rejection(() => ended.result);
      await ended[Symbol.asyncDispose]();
      const [{ sample, out, x }] = kept as [(typeof kept)[0]];
      // The next runs have memory of their own, whatever is written now.
      const expected = await samplesOf(pipeline, options);
      const others = pipeline.run({ ...options, onStep: () => void out.data.fill(NaN) });
      bitEqual(sample.data, x);
      bitEqual(await elementsOf((await others).samples), expected);
      expect(sample.disposed || out.disposed).toBe(false);
    });

  test('1,000 aborts at random moments: the next run is right, and no listener is left', async () => {
    const random = randomly(1);
    const sync = pipeline;
    const async = pipelineOn(device, async (...args) => {
      await turns(random(3));
      return mixture(...args);
    });
    const expected = await samplesOf(pipeline, options);
    const shared = new AbortController();
    const count = isEmulated ? 200 : 1000;
    const ends = Array.from({ length: count }, async (_, i) => {
      await turns(Math.floor(i / 25));
      const own = new AbortController();
      const signal = i % 3 === 0 ? AbortSignal.any([own.signal, shared.signal]) : own.signal;
      const place = [sync, async, stuck][i % 3 === 2 ? random(3) : i % 2]!;
      const solver = ['pc', 'er_sde', 'heun', 'dpm_adaptive'][random(4)]!;
      const steps = solver === 'dpm_adaptive' ? { numInferenceSteps: undefined } : {};
      const given = { ...options, ...steps, seed: i, signal, solver };
      const reads = random(3) === 0 && given.solver !== 'dpm_adaptive';
      const run = place.run(reads ? { ...given, onStep: () => turns(1) } : given);
      const outcome = run.then(
        ({ samples }) => samples.dims[0],
        (error: AbortError) => error.code,
      );
      for (let turn = random(20); turn > 0; turn--) await new Promise(setImmediate);
      own.abort();
      expect(['ERR_ABORTED', 2]).toContain(await outcome);
      expect(getEventListeners(signal, 'abort')).toHaveLength(0);
    });
    await Promise.all(ends);
    bitEqual(await samplesOf(pipeline, options), expected);
  });
});

test('digits: aborts at random moments', async () => {
  const digits = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu' });
  const random = randomly(2);
  const given: StepsOptions = { numInferenceSteps: 4, seed: 1 };
  const expected = await samplesOf(digits, given);
  for (let i = 0; i < 60; i++) {
    const generator = new Generator(1);
    const controller = new AbortController();
    const run = digits.run({ numInferenceSteps: 30, batchSize: 1 + random(3), generator, signal: controller.signal });
    const rejected = rejection(() => run);
    if (i % 2 === 0) await turns(random(10));
    else await new Promise((resolve) => setTimeout(resolve, random(6)));
    const since = performance.now();
    controller.abort();
    sentence(await rejected, 'ERR_ABORTED');
    expect(performance.now() - since).toBeLessThan(100);
    if (i % 10 === 0) bitEqual(await samplesOf(digits, given), expected);
  }
  bitEqual(await samplesOf(digits, given), expected);
  await digits.dispose();
});

test('aborted runs leave no memory behind', async () => {
  const grown = await inProcess(
    `
    const scheduler = new sde.ScoreSdeVeScheduler({ numTrainTimesteps: 5, sigmaMax: 8 });
    const of = (model) => new sde.ScoreSdeVePipeline({ scheduler, model, sampleShape: [3, 16, 16], device: 'cpu' });
    const score = (sample) => ({ dims: sample.dims, data: sample.data.map((x) => -x) });
    const pipelines = [of(score), of(async (sample) => { await new Promise(setImmediate); return score(sample); }), of(() => new Promise(() => {}))];
    const signal = new AbortController().signal;
    const round = async () => {
      for (let i = 0; i < 120; i++) {
        const own = new AbortController();
        const run = pipelines[i % 3].start({ solver: 'er_sde', numInferenceSteps: 8, seed: i, signal: i % 2 ? own.signal : signal });
        const ended = run.result.catch(() => {});
        if (i % 5 === 0) void run.save().catch(() => {});
        for (let turn = i % 7; turn > 0; turn--) await new Promise(setImmediate);
        run.abort();
        await ended;
      }
      for (let i = 0; i < 6; i++) { gc(); await new Promise(setImmediate); }
      const { heapUsed, external, arrayBuffers } = process.memoryUsage();
      return heapUsed + external + arrayBuffers;
    };
    const grown = [];
    let before = await round();
    for (let i = 0; i < 8; i++) { const now = await round(); grown.push(now - before); before = now; }
    console.log(Math.min(...grown.slice(2)) / 120, require('node:events').getEventListeners(signal, 'abort').length);`,
    { NODE_OPTIONS: '--expose-gc' },
  );
  const [bytes, listeners] = grown.split(' ').map(Number);
  expect(bytes).toBeLessThan(200);
  expect(listeners).toBe(0);
});
