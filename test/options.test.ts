import {
  Generator,
  OnnxModel,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  solverList,
  Tensor,
  toPng,
  type StepsOptions,
} from '../lib';
import { solverOf } from '../lib/solvers';
import { loadOptions } from '../lib/models/onnx/options';
import { resumeOptions, stepsOptions } from '../lib/sampling/plan';
import { configNames } from '../lib/scheduler/config';
import { pipelineFolder, removeFolders } from './support/folders';
import { formula, modelOf } from './support/models';
import { scoreGraph } from './support/onnx';
import { rejection } from './support/refusals';

// What options are, for every function that takes them (lib/options.ts).

afterAll(removeFolders);

const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 5, sigmaMax: 5 });
const model = jest.fn(modelOf(formula({ name: 'toy' })));
const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: [1, 2, 2], device: 'cpu' });
const x = new Tensor('float32', [1, 2, 3, 4], [1, 1, 2, 2]);
const saved = pipeline.start({ calls: 3, seed: 1 }).save();
const result = pipeline.run({ calls: 3, seed: 1 });
const steps = ['generator', 'noise', 'out', 'outMean', 'returnDict', 'returnMean'];

/** Every function that takes options, its options, and one that may be left out as it is. */
const takers: [string, readonly string[], (options: never) => unknown][] = [
  ['pipeline.run', [...stepsOptions, 'onStep'], (options) => pipeline.run(options)],
  ['pipeline.start', stepsOptions, async (options) => pipeline.start(options).result],
  ['pipeline.resume', resumeOptions, async (options) => pipeline.resume(await saved, options).result],
  ['SamplingRun.save', ['stop'], (options) => savedBy(options)],
  ['OnnxModel.load', loadOptions, (options) => loaded(options)],
  ['Tensor.empty', ['type', 'device'], (options) => Tensor.empty([2], options)],
  ['Tensor.zeros', ['type', 'device'], (options) => Tensor.zeros([2], options)],
  ['new Generator', ['engine'], (options) => new Generator(1, options)],
  ['generator.randn', ['type', 'device', 'out'], (options) => new Generator(1).randn([2], options)],
  ['new ScoreSdeVeScheduler', configNames, (options) => new ScoreSdeVeScheduler(options)],
  ['scheduler.setTimesteps', ['samplingEps', 'device'], (options) => fresh().setTimesteps(10, options)],
  ['scheduler.setSigmas', ['sigmaMin', 'sigmaMax', 'samplingEps'], (options) => fresh().setSigmas(10, options)],
  ['scheduler.stepPred', steps, (options) => scheduler.stepPred(x, 0.5, x, options)],
  ['scheduler.stepCorrect', [...steps.slice(0, 3), 'stepSize'], (options) => scheduler.stepCorrect(x, x, options)],
  ['scheduler.addNoise', ['generator', 'out'], (options) => scheduler.addNoise(x, undefined, 1, options)],
  ['toPng', ['columns'], (options) => toPng(x, options)],
  ['result.toUint8', ['layout'], async (options) => (await result).toUint8(options)],
  ...solverList.map(
    ({ name, options }) =>
      [`solvers.${name}`, options, (given: never) => solverOf(name, given)] as (typeof takers)[number],
  ),
];
const savedBy = async (options: object) => {
  await using run = pipeline.start({ calls: 3, seed: 1 });
  await run.save(options);
};
const fresh = () => new ScoreSdeVeScheduler();
const loaded = async (options: object) => {
  const network = await OnnxModel.load(scoreGraph(), options);
  await network.dispose();
};

beforeAll(() => Promise.all([saved, result]));

describe.each(takers)('%s', (_, names, take) => {
  if (names.length > 0)
    test.each(names.map((name) => [name]))('refuses null as %s, before any work', async (name) => {
      model.mockClear();
      const error = await rejection(async () => take({ [name]: null } as never));
      expect(error).toMatchObject({ name: 'ScoreSdeError' });
      expect(model).not.toHaveBeenCalled();
    });

  test('takes an undefined option for one that is not given', async () => {
    await take(Object.fromEntries(names.map((name) => [name, undefined])) as never);
  });

  test('refuses what is no object of options', async () => {
    class Other {
      readonly something = 1;
    }
    class Hidden {
      #something = 1;
      get it() {
        return this.#something;
      }
    }
    const wrong = ['text', [1], new Map([['calls', 1]]), new Date(), () => {}, 5, null, new Other(), new Hidden()];
    for (const value of [...wrong, x, new Generator(1), scheduler])
      await expect(async () => take(value as never)).rejects.toMatchObject({
        name: 'ScoreSdeError',
        code: 'ERR_CONFIG',
      });
  });

  test('takes an instance of a class, and what inherits its options', async () => {
    class Validated {}
    if (names.length > 0) {
      Object.defineProperty(Validated.prototype, names[0]!, { get: () => undefined });
      await take(new Validated() as never);
    }
    await take(Object.create({}) as never);
    await take(Object.create(Object.create(null) as object) as never);
    await expect(async () => take(Object.create({ nonsense: 1 }) as never)).rejects.toThrow(/nonsense/);
  });
});

describe('a run by', () => {
  const literal = { calls: 4, seed: 3, eta: 0.5, sigmaMax: 4 };
  class Dto {
    calls = 4;
    seed = 3;
    get eta() {
      return 0.5;
    }
    get sigmaMax() {
      return 4;
    }
    solver = undefined;
  }
  const forms: [string, StepsOptions][] = [
    ['an instance of a class', new Dto()],
    ['an object that inherits its options', Object.create(literal) as object],
    ['an object with some of its own', Object.assign(Object.create({ ...literal, seed: 9 }) as object, { seed: 3 })],
  ];
  test.each(forms)('%s is that by a literal', async (_, options) => {
    const expected = await pipeline.run(literal);
    for (const made of [pipeline.run(options), pipeline.start(options).result]) {
      const { samples, seed, calls } = await made;
      expect([samples.data, seed, calls]).toEqual([expected.samples.data, 3n, 4]);
    }
  });

  test('what a library has added to all objects is no option', async () => {
    Object.defineProperty(Object.prototype, 'addedByOthers', { value: 1, enumerable: true, configurable: true });
    try {
      expect((await pipeline.run({ calls: 3, seed: 1 })).calls).toBe(3);
    } finally {
      Reflect.deleteProperty(Object.prototype, 'addedByOthers');
    }
  });

  test('an object that is no signal is refused before any draw', async () => {
    const generator = new Generator(1);
    model.mockClear();
    const signal = { aborted: false } as AbortSignal;
    await expect(pipeline.run({ generator, signal, calls: 3 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: 'signal must be an AbortSignal, got an object',
    });
    expect(generator.getState()).toEqual(new Generator(1).getState());
    expect(model).not.toHaveBeenCalled();
  });
});

test("an undefined option does not hide what a pipeline's folder says", async () => {
  const folder = await pipelineFolder({
    'unet/model.onnx': scoreGraph(),
    'unet/config.json': { prediction_kind: 'noise', data_range: [-1, 1] },
  });
  const options = Object.fromEntries(loadOptions.map((name) => [name, undefined]));
  await using left = await ScoreSdeVePipeline.fromPretrained(folder, { exact: false });
  await using undefinedOnes = await ScoreSdeVePipeline.fromPretrained(folder, { ...options, exact: false });
  const run = async (p: ScoreSdeVePipeline) => Array.from((await p.run({ calls: 3, seed: 1 })).images.data);
  expect(undefinedOnes.model.dataRange).toEqual([-1, 1]);
  expect(await run(undefinedOnes)).toEqual(await run(left));
});
