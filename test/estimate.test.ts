import {
  Generator,
  OnnxModel,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  type ScoreModel,
  type StepsOptions,
} from '../lib';
import { devices, elementsOf } from './support/devices';
import { bitEqual } from './support/golden';
import { slowGraph } from './support/onnx';
import { rejection, sentence } from './support/refusals';
import { mixture, pipelineOn, samplesOf, streams } from './support/requests';

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A network that takes so long for each sample, or for each call, and notes how many it is given. */
function slowly(milliseconds: number, each: 'sample' | 'call' = 'sample') {
  const seen: number[] = [];
  const model: ScoreModel = async (...args) => {
    const rows = args[0].dims[0]!;
    seen.push(rows);
    await sleep(each === 'sample' ? milliseconds * rows : milliseconds);
    return mixture(...args);
  };
  return { model, seen };
}

describe.each(devices)('on %s', (device) => {
  test('the time of a run is that of its calls', async () => {
    const { model, seen } = slowly(15);
    const pipeline = pipelineOn(device, model);
    const options: StepsOptions = { calls: 20, batchSize: 4, seed: 1 };
    const { calls, seconds } = await pipeline.estimate(options);
    expect(calls).toBe(20);
    // 20 calls of 60 ms; a timer may be late, never early.
    expect(seconds).toBeGreaterThan(1.1);
    expect(seen.length).toBeLessThan(10);
    expect((await pipeline.run(options)).calls).toBe(20);
  });

  test('a slow network is called with one sample and with a few', async () => {
    const { model, seen } = slowly(600);
    const { calls, seconds } = await pipelineOn(device, model).estimate({ solver: 'pc', batchSize: 64, seed: 1 });
    expect(calls).toBe(12);
    expect(seconds).toBeGreaterThan(0.6 * 12 * 64 * 0.9);
    expect(seconds).toBeLessThan(0.6 * 12 * 64 * 1.5);
    expect(seen.length).toBe(2);
    expect(seen[0]).toBe(1);
    expect(seen[1]).toBeLessThan(6);
  });

  test('one whose calls take as long whatever the batch is not taken to be slower with more', async () => {
    const { model } = slowly(600, 'call');
    const { seconds } = await pipelineOn(device, model).estimate({ calls: 20, batchSize: 16, seed: 1 });
    expect(seconds).toBeGreaterThan(0.6 * 20 * 0.99);
    expect(seconds).toBeLessThan(0.6 * 20 * 4);
  });

  test('a very slow one is called once', async () => {
    const { model, seen } = slowly(3100);
    const { seconds } = await pipelineOn(device, model).estimate({ calls: 20, batchSize: 16, seed: 1 });
    expect(seconds).toBeGreaterThan(3.1 * 20 * 16 * 0.99);
    expect(seen).toEqual([1]);
  });

  test('maxRows counts', async () => {
    const { model, seen } = slowly(5);
    const { seconds } = await pipelineOn(device, model).estimate({ calls: 3, batchSize: 10, seed: 1, maxRows: 2 });
    expect(Math.max(...seen)).toBe(2);
    expect(seconds).toBeGreaterThan(0.005 * 3 * 10 * 0.9);
  });

  test('nothing is drawn, and nothing told', async () => {
    const pipeline = pipelineOn(device);
    const generator = new Generator(5, { engine: 'torch' });
    const before = generator.getState();
    const onProgress = jest.fn();
    await pipeline.estimate({ calls: 3, batchSize: 2, generator, onProgress });
    expect(generator.getState()).toEqual(before);
    expect(onProgress).not.toHaveBeenCalled();
    const sample = new Generator(1).randn([2, ...pipeline.sampleShape]);
    expect((await pipeline.estimate({ calls: 3, sample, sigmaStart: 2 })).calls).toBe(3);
    bitEqual(
      await samplesOf(pipeline, { calls: 3, ...streams('seed', 1, 1) }),
      await elementsOf((await pipeline.run({ calls: 3, seed: 1 })).samples),
    );
  });
});

test('a slow network for batches of one size takes a call for each of them', async () => {
  // About a second a call with four samples, whose bits are not probed.
  const network = slowGraph(1024, 8, 4);
  const model = await OnnxModel.load(network, { device: 'cpu', check: false });
  const pipeline = new ScoreSdeVePipeline({
    scheduler: new ScoreSdeVeScheduler(),
    model,
    sampleShape: [1, 1024, 1024],
    device: 'cpu',
  });
  const seconds = async (batchSize: number) => (await pipeline.estimate({ calls: 2, batchSize, seed: 1 })).seconds;
  expect(model.exact.width).toBe(4);
  const [one, five] = [await seconds(1), await seconds(5)];
  await pipeline.dispose();
  // Two calls in place of one, and not five.
  expect(five / one).toBeGreaterThan(0.8);
  expect(five / one).toBeLessThan(4.5);
}, 60_000);

test('a run whose values are not finite is refused as a run, and its other options are taken', async () => {
  const wrong = pipelineOn('cpu', ({ dims, data }) => ({ dims, data: data.map(() => NaN) }));
  sentence(await rejection(() => wrong.estimate({ calls: 3 })), 'ERR_NON_FINITE');
  expect(await pipelineOn('cpu').estimate({ calls: 3, onStep: () => {} })).toMatchObject({ calls: 3 });
});

test('an adaptive solver tells neither', async () => {
  expect(await pipelineOn('cpu').estimate({ solver: 'dpm_adaptive' })).toEqual({ calls: NaN, seconds: NaN });
});

test('what a run refuses is refused, and an abort ends it', async () => {
  const pipeline = pipelineOn('cpu');
  sentence(await rejection(() => pipeline.estimate({ calls: 0 })), 'ERR_RANGE', /calls must be/);
  const never = new ScoreSdeVePipeline({
    scheduler: new ScoreSdeVeScheduler(),
    model: () => new Promise(() => {}),
    sampleShape: [2],
    device: 'cpu',
  });
  const controller = new AbortController();
  const estimate = never.estimate({ calls: 2, signal: controller.signal });
  controller.abort();
  sentence(await rejection(() => estimate), 'ERR_ABORTED');
});
