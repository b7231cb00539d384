import { runInNewContext } from 'node:vm';
import { run } from './support/child';
import { pipelineFolder, removeFolders } from './support/folders';

// Test runners replace timers by fakes that stand still, and their environments (jsdom) have other globals than Node.js.

type Package = typeof import('../lib');

afterAll(removeFolders);

/** What a run, its steps, its file and its picture take, with a fresh copy of the package. */
async function workOf(load: () => Package, folder: string): Promise<number[]> {
  const { ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor } = load();
  const scheduler = await ScoreSdeVeScheduler.fromPretrained(folder, { subfolder: 'scheduler' });
  const pipeline = new ScoreSdeVePipeline({
    scheduler,
    model: (x) =>
      new Tensor(
        'float32',
        (x.data as Float32Array).map((v) => -v / 26),
        x.dims,
      ),
    sampleShape: [1, 4, 4],
    device: 'cpu',
  });
  const settings = { calls: 6, seed: 5 };
  const result = await pipeline.run(settings);
  const png = await result.toPng();
  const bytes = await pipeline.start(settings).save({ stop: true });
  const resumed = await pipeline.resume(bytes).result;
  let steps = 0;
  for await (const step of pipeline.steps(settings)) steps += Number(step.sigma > 0);
  expect(Array.from(resumed.samples.data)).toEqual(Array.from(result.samples.data));
  expect(result.seconds).toBeGreaterThan(0);
  return [steps, png[1]!, ...result.samples.data];
}

const fresh = () => {
  let copy: Package | undefined;
  jest.isolateModules(() => (copy = jest.requireActual<Package>('../lib')));
  return copy!;
};

describe('a run', () => {
  let folder: string;
  let expected: number[];
  beforeAll(async () => {
    folder = await pipelineFolder({});
    expected = await workOf(fresh, folder);
    expect(expected[1]).toBe('P'.charCodeAt(0));
  });

  afterEach(() => jest.useRealTimers());

  test('goes on under fake timers', async () => {
    const copy = fresh();
    jest.useFakeTimers();
    expect(await workOf(() => copy, folder)).toEqual(expected);
  });

  test('goes on where the package is loaded under fake timers', async () => {
    jest.useFakeTimers();
    expect(await workOf(fresh, folder)).toEqual(expected);
  });

  test('needs no globals but those of JavaScript, process and AbortController', async () => {
    const ofLanguage = runInNewContext('Object.getOwnPropertyNames(globalThis)') as string[];
    const kept = [...ofLanguage, 'process', 'AbortController', 'AbortSignal', 'Event', 'EventTarget'];
    const removed = Object.entries(Object.getOwnPropertyDescriptors(globalThis)).filter(
      ([name, { configurable }]) => configurable && !kept.includes(name) && !/jest|^(expect|test|it)$|^_/i.test(name),
    );
    expect(removed.map(([name]) => name)).toEqual(expect.arrayContaining(['setImmediate', 'TextDecoder', 'Buffer']));
    let got: number[];
    try {
      for (const [name] of removed) Reflect.deleteProperty(globalThis, name);
      got = await workOf(fresh, folder);
    } finally {
      for (const [name, descriptor] of removed) Object.defineProperty(globalThis, name, descriptor);
    }
    expect(got).toEqual(expected);
  });
});

test('what another copy of the package made is told as that, or works', async () => {
  const [one, other] = [fresh(), fresh()];
  const scheduler = new one.ScoreSdeVeScheduler();
  const [score, x] = [other.Tensor.zeros([1, 2]), other.Tensor.zeros([1, 2])];
  expect(scheduler.stepPred(score, 0.5, x, { generator: new one.Generator(1) }).prevSample.size).toBe(2);
  const says = /got a Generator of another copy of score-sde \(npm ls score-sde lists them\)$/;
  expect(() => scheduler.stepPred(score, 0.5, x, { generator: new other.Generator(1) })).toThrow(says);
  const options = { scheduler: new other.ScoreSdeVeScheduler(), model: () => x, sampleShape: [2] };
  expect(() => new one.ScoreSdeVePipeline(options)).toThrow(/ScoreSdeVeScheduler of another copy of score-sde/);
});

test("a run goes on under node:test's fake timers, which replace the functions of node:timers", async () => {
  const said = await run(`
    const { mock } = require('node:test');
    const pipeline = new sde.ScoreSdeVePipeline({
      scheduler: new sde.ScoreSdeVeScheduler(), model: (x) => sde.Tensor.zeros(x.dims), sampleShape: [2], device: 'cpu',
    });
    mock.timers.enable({ apis: ['setImmediate', 'setTimeout', 'setInterval'] });
    const { seconds } = await pipeline.run({ calls: 5, seed: 1 });
    await pipeline.start({ solver: 'dpm_adaptive', seed: 1 }).result;
    console.log(seconds > 0);`);
  expect(said).toBe('true');
});
