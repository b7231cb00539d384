import {
  fromDenoiser,
  fromNetwork,
  fromNoisePrediction,
  fromVPrediction,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  type Conditioning,
  type ErrorCode,
  type NetworkKind,
  type RunOptions,
  type ScoreModel,
} from '../lib';
import { devices, elementsOf } from './support/devices';
import { maxAbs, within } from './support/golden';
import { failure, rejection, sentence } from './support/refusals';

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const shape = [2, 3, 3];
const size = 18;

/** D of data N(mean, 0.3^2), by pixel, in double. */
const mean = (i: number) => 0.5 + 0.4 * Math.sin(i);
const denoised = (x: number, sigma: number, i: number) => {
  const variance = 0.09;
  return (x * variance + mean(i % size) * sigma * sigma) / (variance + sigma * sigma);
};

const sigmaMin = 0.01;
const sigmaMax = 12;

/** A network that computes its output from what the sample is, whatever it sees and is told of it. */
function network(
  output: (x: number, sigma: number, D: number) => number,
  sigmaOf: (told: number) => number = (told) => told,
  xOf: (seen: number, sigma: number) => number = (seen) => seen,
): ScoreModel {
  return (sample, told) => {
    const data = floats(sample).map((seen, i) => {
      const sigma = sigmaOf(floats(told)[Math.floor(i / size)]!);
      const x = xOf(seen, sigma);
      return output(x, sigma, denoised(x, sigma, i));
    });
    return new Tensor('float32', data, sample.dims);
  };
}

const score = network((x, sigma, D) => (D - x) / sigma ** 2);
const alpha = (sigma: number) => 1 / Math.sqrt(1 + sigma ** 2);
const edm = (data: number) => {
  const total = (sigma: number) => Math.sqrt(sigma ** 2 + data ** 2);
  return network(
    (x, sigma, D) => (D - (data ** 2 / total(sigma) ** 2) * x) / ((sigma * data) / total(sigma)),
    (told) => Math.exp(4 * told),
    (seen, sigma) => seen * total(sigma),
  );
};
const alphas = Array.from({ length: 1000 }, (_, t) => 1 / (1 + (0.005 * 4000 ** (t / 999)) ** 2));

/** Each kind of network by a model of its own; what the reference's score gives, each must give. */
const kinds: [string, () => ScoreModel][] = [
  ['denoised', () => fromDenoiser(network((_x, _s, D) => D))],
  ['noise', () => fromNoisePrediction(network((x, sigma, D) => (x - D) / sigma))],
  [
    'v_prediction',
    () =>
      fromVPrediction(
        network(
          (x, sigma, D) => (alpha(sigma) ** 2 * x - D) / (alpha(sigma) * sigma),
          undefined,
          (seen, sigma) => seen / alpha(sigma),
        ),
      ),
  ],
  [
    'log_sigma',
    () =>
      fromNetwork(
        network((x, s, D) => (D - x) / s ** 2, Math.exp),
        { conditioning: 'log_sigma' },
      ),
  ],
  [
    'log_sigma_quarter',
    () =>
      fromDenoiser(
        network(
          (_x, _s, D) => D,
          (told) => Math.exp(4 * told),
        ),
        { conditioning: 'log_sigma_quarter' },
      ),
  ],
  [
    't',
    () =>
      fromNoisePrediction(
        network(
          (x, s, D) => (x - D) / s,
          (t) => sigmaMin * (sigmaMax / sigmaMin) ** t,
        ),
        { conditioning: { t: [sigmaMin, sigmaMax] } },
      ),
  ],
  [
    'tutorial',
    () =>
      fromDenoiser(
        network(
          (_x, _s, D) => D,
          (t) => Math.sqrt((25 ** (2 * t) - 1) / (2 * Math.log(25))),
        ),
        { conditioning: { tutorial: 25 } },
      ),
  ],
  ['preconditioning edm', () => fromNetwork(edm(0.5), { preconditioning: 'edm' })],
  ['preconditioning { sigmaData }', () => fromNetwork(edm(0.3), { preconditioning: { sigmaData: 0.3 } })],
  [
    'preconditioning ve',
    () =>
      fromNetwork(
        network(
          (x, s, D) => (D - x) / s,
          (told) => 2 * Math.exp(told),
        ),
        { preconditioning: 've' },
      ),
  ],
];

const pipelineOf = (model: ScoreModel, device = 'cpu') =>
  new ScoreSdeVePipeline({
    scheduler: new ScoreSdeVeScheduler({ sigmaMin, sigmaMax, numTrainTimesteps: 12 }),
    model,
    sampleShape: shape,
    device,
  });

const runs: [string, RunOptions][] = [
  ['pc', {}],
  ['er_sde', { calls: 10 }],
  ['lms', { solver: 'lms', calls: 10 }],
  ['heun', { solver: 'heun', calls: 9 }],
];

describe.each(devices)('on %s', (device) => {
  describe.each(kinds)('%s', (_, make) => {
    test.each(runs)('gives the samples of the score: %s', async (solver, options) => {
      const given = { ...options, batchSize: 2, seed: 5 };
      const expected = await elementsOf((await pipelineOf(score, device).run(given)).samples);
      const found = await elementsOf((await pipelineOf(make(), device).run(given)).samples);
      // What the network is told and gives is float32. The corrector of pc divides by the score's norm at the lowest levels.
      within(found, expected, (solver === 'pc' ? 4e-6 : 1e-6) * maxAbs(expected));
    });

    test('is a score model by itself', async () => {
      const x = Tensor.zeros([3, ...shape]);
      floats(x).forEach((_v, i, all) => (all[i] = Math.sin(i) * 2));
      const sigma = Float32Array.from([0.05, 1, 8]);
      const levels = new Tensor('float32', sigma, [3]);
      const expected = floats((await score(x, levels)) as Tensor);
      const found = floats((await make()(x, levels)) as Tensor);
      within(found, expected, 2e-5 * maxAbs(expected));
    });
  });
});

test('the nearest of a table of levels is what a discrete network is told', async () => {
  const told: number[] = [];
  const watched: ScoreModel = (sample, sigma) => {
    told.push(floats(sigma)[0]!);
    return new Tensor('float32', new Float32Array(sample.size), sample.dims);
  };
  const run = async (conditioning: Conditioning, grid: number[]) => {
    told.length = 0;
    await pipelineOf(fromDenoiser(watched, { conditioning })).run({ solver: 'euler', grid, seed: 1 });
    return [...told];
  };
  const geometric = { geometric: [0.01, 10] } as const;
  expect(await run({ index: 4, sigmas: geometric }, [10, 1.1, 0.09, 0.01])).toEqual([0, 1, 2, 3]);
  expect(await run({ index: 4, sigmas: geometric, descending: false }, [10, 1.1, 0.09, 0.01])).toEqual([3, 2, 1, 0]);
  expect(await run({ index: 3, sigmas: [0.1, 5, 2] }, [12, 2.1, 0.2, 0.01])).toEqual([1, 2, 0, 0]);
  const steps = await run({ alphasCumprod: alphas }, [20, 0.005 * 4000 ** (500.25 / 999), 0.005]);
  within(steps, [999, 500.25, 0], 1e-4);
});

test.each<[string, Conditioning, number[]]>([
  ['a table in no order', ...ofTable(Array.from({ length: 997 }, (_, i) => 0.002 * 4e4 ** (((i * 389) % 997) / 996)))],
  ['a table of one', ...ofTable([3])],
  ...[1, 2, 3, 1000].flatMap((count) => [ofGeometric(count, true), ofGeometric(count, false)]),
])('the index that comparing all levels tells is told: %s', async (_, conditioning, sigmas) => {
  const told: number[] = [];
  const watched: ScoreModel = (sample, levels) => {
    told.push(...floats(levels));
    return sample;
  };
  const halves = sigmas.slice(1).map((sigma, i) => Math.sqrt(sigma * sigmas[i]!));
  const levels = Float32Array.from([...sigmas, ...halves, 1e-6, 1e6]);
  const expected = [...levels].map((level) => {
    const away = sigmas.map((sigma) => Math.abs(Math.log(sigma) - Math.log(level)));
    return away.indexOf(Math.min(...away));
  });
  const x = Tensor.zeros([levels.length, 1]);
  await fromDenoiser(watched, { conditioning })(x, new Tensor('float32', levels, [levels.length]));
  expect(told).toEqual(expected);
});

function ofTable(sigmas: number[]): [Conditioning, number[]] {
  return [{ index: sigmas.length, sigmas }, sigmas];
}

function ofGeometric(count: number, descending: boolean): [string, Conditioning, number[]] {
  const levels = Array.from({ length: count }, (_, i) => {
    const u = count === 1 ? 0 : i / (count - 1);
    return 0.01 * 134800 ** (descending ? 1 - u : u);
  });
  const sigmas = { geometric: [0.01, 1348] } as const;
  return [`${count} geometric levels${descending ? '' : ' that ascend'}`, { index: count, sigmas, descending }, levels];
}

test('tables may be arrays of floats', async () => {
  const told: number[] = [];
  const watched: ScoreModel = (sample, levels) => {
    told.push(...floats(levels));
    return sample;
  };
  const one = Tensor.zeros([1, 1]);
  const sigma = Float32Array.of(2.1);
  for (const Class of [Float32Array, Float64Array]) {
    for (const conditioning of [
      { index: 3, sigmas: Class.from([0.1, 5, 2]) },
      { alphasCumprod: Class.from([0.9, 0.5, 0.1]) },
    ])
      await fromDenoiser(watched, { conditioning })(one, new Tensor('float32', sigma, [1]));
    expect(told.splice(0)).toEqual([2, expect.closeTo(1.675, 2)]);
  }
});

test('images are mapped from the range of the data', async () => {
  const constant: ScoreModel = (sample) =>
    new Tensor(
      'float32',
      new Float32Array(sample.size).map((_, i) => [-1, 0, 0.5, 2][i % 4]!),
      sample.dims,
    );
  const model = fromDenoiser(constant, { dataRange: [-1, 1] });
  expect(model.dataRange).toEqual([-1, 1]);
  const own = await pipelineOf(model).run({ calls: 5, seed: 1 });
  expect([...floats(own.images).slice(0, 4)]).toEqual([0, 0.5, 0.75, 1]);
  expect([...floats(own.samples).slice(0, 4)]).toEqual([-1, 0, 0.5, 2]);
  const other = await pipelineOf(model).run({ calls: 5, seed: 1, dataRange: [0, 2] });
  expect([...floats(other.images).slice(0, 4)]).toEqual([0, 0, 0.25, 1]);
});

test('what the network has, the model has', async () => {
  const dispose = jest.fn(async () => {});
  const prepare = jest.fn((_dims: readonly number[], inputs: object) => inputs as never);
  const model = fromDenoiser(
    Object.assign(
      network((_x, _s, D) => D),
      { dispose, prepare, devices: ['cpu', 'cuda'] },
    ),
  );
  expect(model.devices).toEqual(['cpu', 'cuda']);
  const pipeline = pipelineOf(model);
  await pipeline.run({ calls: 2, modelInputs: { class_labels: 3 } });
  expect(prepare).toHaveBeenCalledWith([1, ...shape], { class_labels: 3 });
  await pipeline.dispose();
  expect(dispose).toHaveBeenCalledTimes(1);
});

const wrong: [string, NetworkKind, ErrorCode, RegExp][] = [
  ['no prediction', { prediction: 'epsilon' as never }, 'ERR_CONFIG', /prediction must be .*, got "epsilon"/],
  ['no conditioning', { conditioning: 'lambda' as never }, 'ERR_CONFIG', /conditioning must be .*, got "lambda"/],
  ['t without a range', { conditioning: 't' }, 'ERR_CONFIG', /needs a range/],
  ['a range upside down', { conditioning: { t: [5, 1] } }, 'ERR_RANGE', /0 < sigmaMin < sigmaMax/],
  ['geometric without a range', { conditioning: { index: 4, sigmas: 'geometric' } }, 'ERR_CONFIG', /geometric: \[/],
  ['another number of levels', { conditioning: { index: 4, sigmas: [1, 2] } }, 'ERR_RANGE', /must be 4 numbers/],
  ...[3e7, 2 ** 16 + 1, 2 ** 32, 0, 1.5, '4' as never].map((index): [string, NetworkKind, ErrorCode, RegExp] => [
    `${typeof index} ${index} of levels`,
    { conditioning: { index, sigmas: { geometric: [1, 2] } } },
    'ERR_RANGE',
    /conditioning\.index must be an integer from 1 to 65536, got/,
  ]),
  ...(
    [
      ['texts', ['2', '1']],
      ['bigints', [2n, 1n]],
      ['a hole', [, 1]],
      ['the same twice', [1, 1]],
      ['0', [1, 0]],
      ['Infinity', [Infinity, 1]],
      ['integers of 32 bits', Int32Array.of(2, 1)],
    ] as [string, never][]
  ).map(([what, sigmas]): [string, NetworkKind, ErrorCode, RegExp] => [
    `a table with ${what}`,
    { conditioning: { index: 2, sigmas } },
    'ERR_RANGE',
    /conditioning\.sigmas must be 2 numbers above 0, no two the same, got /,
  ]),
  ['levels of text', { conditioning: { index: 2, sigmas: 'table' as never } }, 'ERR_CONFIG', /must be 'geometric'/],
  ['a range of texts', { conditioning: { t: ['1', '2'] as never } }, 'ERR_RANGE', /conditioning\.t must be/],
  ['a range of three', { conditioning: { t: [1, 2, 3] as never } }, 'ERR_RANGE', /must be \[sigmaMin, sigmaMax\]/],
  ['texts as alphas', { conditioning: { alphasCumprod: ['0.9', '0.5'] as never } }, 'ERR_RANGE', /that decrease/],
  ['more steps than 2^16', { conditioning: { alphasCumprod: new Array<number>(2 ** 32 - 1) } }, 'ERR_RANGE', /65536/],
  ['tutorial 1', { conditioning: { tutorial: 1 } }, 'ERR_RANGE', /conditioning\.tutorial must be a number above 1/],
  [
    'two at once',
    { conditioning: { t: [1, 2], tutorial: 25 } },
    'ERR_CONFIG',
    /conditioning \{ t \} takes no "tutorial"/,
  ],
  [
    'a misspelt part',
    { conditioning: { index: 2, sigmas: [2, 1], decending: true } as never },
    'ERR_CONFIG',
    /conditioning \{ index, sigmas, descending \} takes no "decending"/,
  ],
  [
    'a range beside a range',
    { conditioning: { index: 2, sigmas: { geometric: [1, 2], low: 1 } as never } },
    'ERR_CONFIG',
    /conditioning\.sigmas \{ geometric \} takes no "low"/,
  ],
  [
    'a word for an order',
    { conditioning: { index: 2, sigmas: { geometric: [1, 2] }, descending: 'no' as never } },
    'ERR_CONFIG',
    /conditioning\.descending must be a boolean/,
  ],
  [
    'an order of a table',
    { conditioning: { index: 2, sigmas: [2, 1], descending: false } },
    'ERR_CONFIG',
    /descending is of geometric levels/,
  ],
  [
    'a scale of x beside another',
    { preconditioning: 'edm', conditioning: { alphasCumprod: [0.9, 0.5] } },
    'ERR_CONFIG',
    /preconditioning goes with no conditioning \{ alphasCumprod \}/,
  ],
  [
    'another part of a preconditioning',
    { preconditioning: { sigmaData: 1, sigmaMin: 0 } as never },
    'ERR_CONFIG',
    /preconditioning \{ sigmaData \} takes no "sigmaMin"/,
  ],
  ['alphas that grow', { conditioning: { alphasCumprod: [0.1, 0.5] } }, 'ERR_RANGE', /that decrease/],
  ['no preconditioning', { preconditioning: 'vp' as never }, 'ERR_CONFIG', /preconditioning must be .*, got "vp"/],
  ['sigmaData 0', { preconditioning: { sigmaData: 0 } }, 'ERR_CONFIG', /sigmaData/],
  ['two of them', { preconditioning: 'edm', prediction: 'noise' }, 'ERR_CONFIG', /both given/],
  ['a range of nothing', { dataRange: [1, 1] }, 'ERR_RANGE', /dataRange must be/],
  ['an unknown option', { predict: 'noise' } as NetworkKind, 'ERR_CONFIG', /unknown option "predict"/],
];
test.each(wrong)('%s is refused', (_, kind, code, says) => {
  sentence(
    failure(() => fromNetwork(score, kind)),
    code,
    says,
  );
});

test('the options of a combinator are those of its kind', () => {
  const options = (given: unknown) => failure(() => fromDenoiser(score, given as never));
  sentence(
    options({ prediction: 'noise' }),
    'ERR_CONFIG',
    /unknown option "prediction"; expected conditioning, dataRange/,
  );
  sentence(options(null), 'ERR_CONFIG', /options must be an object of named values, got null/);
  sentence(options(3), 'ERR_CONFIG', /options must be an object of named values, got 3/);
});

describe('called outside of a run', () => {
  const x = () => Tensor.zeros([2, 3]);
  const sigma = new Tensor('float32', [1, 2], [2]);
  const echo: ScoreModel = (sample) => sample;
  type Call = (...args: unknown[]) => Promise<unknown>;
  const of = (network: unknown): Call => fromVPrediction(network as ScoreModel) as never;

  test.each<[string, unknown[], ErrorCode, RegExp]>([
    ['context null', [sigma, {}, null], 'ERR_CONFIG', /context must be an object with out and signal, got null/],
    ['context 3', [sigma, {}, 3], 'ERR_CONFIG', /context must be an object with out and signal, got 3/],
    ['inputs null', [sigma, null], 'ERR_CONFIG', /inputs must be an object of inputs by name, got null/],
    ['no signal', [sigma, {}, { signal: {} }], 'ERR_CONFIG', /signal must be an AbortSignal/],
    ['an aborted signal', [sigma, {}, { signal: AbortSignal.abort() }], 'ERR_ABORTED', /aborted/],
    ['sigma 0', [0], 'ERR_RANGE', /sigma must be finite and above 0, got 0/],
    ['sigma -1', [[1, -1]], 'ERR_RANGE', /sigma must be finite and above 0, got -1/],
    ['sigma Infinity', [Infinity], 'ERR_RANGE', /sigma must be finite and above 0, got Infinity/],
    ['out of other dims', [sigma, {}, { out: Tensor.zeros([2, 4]) }], 'ERR_SHAPE', /out must have the dims of sample/],
  ])('%s is refused', async (_, args, code, says) => {
    const network = jest.fn(echo);
    sentence(await rejection(() => of(network)(x(), ...args)), code, says);
    expect(network).not.toHaveBeenCalled();
  });

  test('out that is the sample, or a part of it, is refused', async () => {
    const sample = x();
    const part = new Tensor('float32', new Float32Array(floats(sample).buffer, 0, 6), [2, 3]);
    for (const out of [sample, part])
      sentence(await rejection(() => of(echo)(sample, sigma, {}, { out })), 'ERR_ALIAS', /out and sample overlap/);
  });

  test.each<[string, unknown, RegExp]>([
    ['fewer elements', Tensor.zeros([2, 2]), /must have the dims of the sample, \[2, 3\], got \[2, 2\]/],
    ['more elements', Tensor.zeros([4, 3]), /must have the dims of the sample, \[2, 3\], got \[4, 3\]/],
    ['other dims', Tensor.zeros([3, 2]), /must have the dims of the sample, \[2, 3\], got \[3, 2\]/],
    ['nothing', undefined, /must be a Tensor/],
  ])('a network that gives %s is refused', async (_, result, says) => {
    sentence(await rejection(() => of(() => result)(x(), sigma)), 'ERR_MODEL', /the model's result does not fit/, says);
  });

  test('what a network saw scaled is freed, also where it throws or is aborted', async () => {
    const seen: Tensor[] = [];
    const control = new AbortController();
    const watched = (end: () => void) => of((sample: Tensor) => (seen.push(sample), end(), sample));
    await watched(() => {})(x(), sigma);
    const thrown = new Error('of the network');
    const throws = watched(() => {
      throw thrown;
    });
    await expect(throws(x(), sigma)).rejects.toBe(thrown);
    const aborts = watched(() => control.abort());
    sentence(await rejection(() => aborts(x(), sigma, {}, { signal: control.signal })), 'ERR_ABORTED');
    expect(seen.map(({ disposed }) => disposed)).toEqual([true, true, true]);
  });
});

test('ends with its network', async () => {
  const dispose = jest.fn(async () => {});
  {
    await using model = fromDenoiser(
      Object.assign(
        network((_x, _s, D) => D),
        { dispose },
      ),
    );
    expect(typeof model).toBe('function');
  }
  expect(dispose).toHaveBeenCalledTimes(1);
  await using model = fromNetwork(score);
  await model.dispose(); // of a network that holds nothing
});

test('a range can be said of a model of any kind', async () => {
  const kind = fromDenoiser(network((_x, _s, D) => D));
  const ranged = fromNetwork(kind, { dataRange: [-1, 1] });
  const samples = async (model: ScoreModel) => floats((await pipelineOf(model).run({ calls: 5, seed: 1 })).samples);
  expect(ranged.dataRange).toEqual([-1, 1]);
  expect(await samples(ranged)).toEqual(await samples(kind));
  const x = Tensor.zeros([1, ...shape]);
  const level = new Tensor('float32', [2], [1]);
  expect((await ranged(x, level)).data).toEqual((await kind(x, level)).data);
});

test('a model of a network is not one of another kind, too', async () => {
  sentence(
    failure(() => fromDenoiser(fromDenoiser(score))),
    'ERR_CONFIG',
    /score model already/,
  );
  sentence(await rejection(async () => fromDenoiser({} as never)), 'ERR_CONFIG', /model must be a function/);
});
