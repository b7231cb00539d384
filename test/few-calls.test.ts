import { Generator, solverList, solvers, type ScoreModel, type StepsOptions } from '../lib';
import { solverOf } from '../lib/solvers';
import { bitEqual } from './support/golden';
import { failure, sentence } from './support/refusals';
import { config, mixture, pipelineOn, sampleShape, samplesOf } from './support/requests';

// How a run's options choose its solver, its levels and its start.

const model = jest.fn<ReturnType<ScoreModel>, Parameters<ScoreModel>>(mixture);
const pipeline = pipelineOn('cpu', model);
const sample = new Generator(1).randn([2, ...sampleShape]);
beforeEach(() => model.mockClear());

/** The noise levels of a run's network calls, of its first sample. */
async function toldBy(options: StepsOptions): Promise<number[]> {
  model.mockClear();
  await pipeline.run({ seed: 1, ...options });
  return model.mock.calls.map(([, sigma]) => sigma.data[0]!);
}

const tabled = solverList.filter(({ name }) => solverOf(name).grid === 'reference').map(({ name }) => name);
const few = solverList.filter(({ name }) => !tabled.includes(name)).map(({ name }) => name);

describe('a number of calls', () => {
  test.each([
    [1, 0.5, 5],
    [5, 0.5, 5],
    [6, 0.5, 5],
    [7, 1, 7],
    [10, 1, 7],
    [40, 1, 7],
  ])('%i: er_sde of order 3, eta %d, over a karras grid of rho %d, with a centred start', async (calls, eta, rho) => {
    const written: StepsOptions = { solver: 'er_sde', order: 3, eta, grid: 'karras', rho, start: 'centered' };
    const expected = await samplesOf(pipeline, { ...written, numInferenceSteps: calls, seed: 5 });
    bitEqual(await samplesOf(pipeline, { calls, seed: 5 }), expected);
    for (const same of [{ solver: 'er_sde' }, { grid: 'karras' }, { start: 'centered' }] as StepsOptions[])
      bitEqual(await samplesOf(pipeline, { ...same, calls, seed: 5 }), expected);
  });

  test('what is given beside it goes before the preset', async () => {
    const of = (options: StepsOptions) => samplesOf(pipeline, { ...options, seed: 5 });
    bitEqual(
      await of({ calls: 5, eta: 0, rho: 3 }),
      await of({ solver: solvers.erSde({ eta: 0 }), numInferenceSteps: 5, rho: 3 }),
    );
    bitEqual(
      await of({ calls: 5, grid: 've' }),
      await of({ solver: 'er_sde', eta: 0.5, grid: 've', numInferenceSteps: 5 }),
    );
  });

  test.each(few.filter((name) => name !== 'dpm_adaptive'))('%s: 20 where none is given', async (solver) => {
    expect(await toldBy({ solver })).toHaveLength(20);
  });

  test.each(tabled)('%s: the steps of the scheduler where none is given, over any grid', async (solver) => {
    const { calls } = await pipeline.run({ solver, numInferenceSteps: config.numTrainTimesteps, seed: 1 });
    expect(await toldBy({ solver })).toHaveLength(calls);
    expect(await toldBy({ solver, grid: 'karras' })).toHaveLength(calls);
  });

  test('of a run that begins at a later step it is that of the whole', async () => {
    const whole = await toldBy({ solver: 'heun', calls: 8, sample });
    expect(whole).toHaveLength(8);
    for (const [startStep, made] of [0, 2, 4, 6, 7].entries())
      expect(await toldBy({ solver: 'heun', calls: 8, sample, startStep })).toEqual(whole.slice(made));
    expect(await toldBy({ solver: 'pc', calls: 7, sample, startStep: 0 })).toHaveLength(7);
    expect(await toldBy({ solver: 'heun', grid: [4, 2, 1], calls: 3, sample, startStep: 1 })).toEqual([2, 1]);
  });

  test('of given levels it leaves out corrections', async () => {
    const grid = [4, 2, 1];
    expect(await toldBy({ solver: 'heun', grid, calls: 3 })).toEqual([4, 2, 1]);
    expect(await toldBy({ solver: 'heun', grid, calls: 4 })).toEqual([4, 2, 2, 1]);
    expect(await toldBy({ solver: 'pc', grid, calls: 6 })).toEqual([4, 4, 2, 2, 1, 1]);
    for (const calls of [2, 6])
      sentence(
        failure(() => pipeline.start({ solver: 'heun', grid, calls })),
        'ERR_RANGE',
        new RegExp(`^calls must be 3 to 5 over the 3 levels of the grid, got ${calls}$`),
      );
    sentence(
      failure(() => pipeline.start({ grid, calls: 4 })),
      'ERR_RANGE',
      /^calls must be 3 over the 3 levels of the grid, got 4$/,
    );
  });
});

describe('the start', () => {
  const given = (solver: string, start?: 'centered' | 'zero'): StepsOptions => ({
    solver,
    ...(solver === 'dpm_adaptive' ? {} : { numInferenceSteps: 4 }),
    seed: 2,
    start,
  });

  test.each(few)('of %s is centred unless told otherwise', async (solver) => {
    const usual = await samplesOf(pipeline, given(solver));
    bitEqual(await samplesOf(pipeline, given(solver, 'centered')), usual);
    expect(await samplesOf(pipeline, given(solver, 'zero'))).not.toEqual(usual);
  });

  test.each(tabled)('of %s is zero unless told otherwise', async (solver) => {
    bitEqual(await samplesOf(pipeline, given(solver)), await samplesOf(pipeline, given(solver, 'zero')));
  });

  test('a given sample is no start', async () => {
    const of = (start?: 'centered' | 'zero') => samplesOf(pipeline, { calls: 4, sample, seed: 2, start });
    bitEqual(await of(), await of('zero'));
    bitEqual(await of('centered'), await of('zero'));
  });

  // A Gaussian of mean 0.5 under the ODE: without the centred start its mean is off by sigmaMin / sigmaMax less than 0.5 (samplers.md).
  test('of a shifted Gaussian has its mean', async () => {
    const gaussian: ScoreModel = ({ data, dims }, sigma) => ({
      data: data.map((x, i) => (0.5 - x) / (0.01 + sigma.data[Math.floor(i / 6)]! ** 2)),
      dims,
    });
    const mean = async (start: 'centered' | 'zero') => {
      const samples = await samplesOf(pipelineOn('cpu', gaussian), {
        ...{ solver: 'er_sde', eta: 0, numInferenceSteps: 30, sigmaMax: 5, batchSize: 4000, seed: 1, start },
      });
      return samples.reduce((sum, value) => sum + value, 0) / samples.length;
    };
    // The standard deviation of a mean is 0.1 / sqrt(24000) = 0.0006. What the start lacks shrinks as sigma, to 0.1 / 5 of 0.5.
    expect(Math.abs((await mean('centered')) - 0.5)).toBeLessThan(0.003);
    expect((await mean('zero')) - 0.5).toBeCloseTo(-0.01, 2);
    expect(Math.abs((await mean('zero')) - 0.5)).toBeGreaterThan(0.006);
  });
});

test("progress tells a grid's levels as they were given", async () => {
  const grid = [3.3, 1.1, 0.7];
  const seen: number[] = [];
  await pipeline.run({ solver: 'euler', grid, seed: 1, onProgress: ({ sigma }) => void seen.push(sigma) });
  expect(seen).toEqual(grid);
});

test("Heun's churn goes from the level of its step up", async () => {
  const seen: [number, number][] = [];
  const z = new Generator(3);
  await pipeline.run({
    ...{ solver: 'heun', churn: { amount: 100, noise: 1.1 }, grid: [5, 2, 1], sample },
    noiseSampler: (...levels) => (seen.push(levels), z.randn(sample.dims)),
  });
  expect(seen.map(([from]) => from)).toEqual([5, 2, 1]);
  for (const [from, to] of seen) expect(to).toBeCloseTo(from * Math.SQRT2, 12);
});

describe('is refused, and the network not called:', () => {
  const placed = { sample, seed: 1 };
  test.each<[StepsOptions, string, RegExp]>([
    [{ calls: 0 }, 'ERR_RANGE', /^calls must be an integer from 1 to 2\^24, got 0$/],
    [{ calls: 2.5 }, 'ERR_RANGE', /^calls must be/],
    [{ calls: 5, numInferenceSteps: 5 }, 'ERR_CONFIG', /^calls and numInferenceSteps were both given/],
    [{ numInferenceSteps: -1 }, 'ERR_RANGE', /^numInferenceSteps must be an integer from 1 to 2\^24, got -1$/],
    [{ calls: 5, numInferenceSteps: NaN }, 'ERR_RANGE', /^numInferenceSteps must be/],
    [{ solver: 'euler', grid: [1, 2] }, 'ERR_RANGE', /strictly decreasing/],
    [{ solver: 'euler', grid: [2, 2] }, 'ERR_RANGE', /strictly decreasing/],
    [{ solver: 'euler', grid: [NaN, 1] }, 'ERR_RANGE', /finite/],
    [{ solver: 'euler', grid: [3, 3 - 1e-15, 1] }, 'ERR_RANGE', /strictly decreasing in float32/],
    [{ solver: 'euler', grid: [3] }, 'ERR_RANGE', /^a grid of one level has no step: say \[3, 0\]/],
    [{ solver: 'euler', grid: [] }, 'ERR_RANGE', /1 to 2\^24 noise levels/],
    [{ solver: 'euler', grid: [3, 1], numInferenceSteps: 3 }, 'ERR_RANGE', /^numInferenceSteps must be .*, 2, got 3$/],
    [{ solver: 'euler', grid: 'kerras' as never }, 'ERR_CONFIG', /grid must be/],
    [{ calls: 5, eta: -1 }, 'ERR_RANGE', /^eta must be/],
    [{ calls: 5, order: 4 }, 'ERR_RANGE', /^order must be/],
    [
      { solver: 'ersde' },
      'ERR_CONFIG',
      /there is no solver "ersde" \(did you mean "er_sde"\?\); expected pc, .*dpm_adaptive$/,
    ],
    [
      { calls: 5, stepSize: 'batch' },
      'ERR_CONFIG',
      /^calls takes the solver "er_sde", which has no corrector, and so no option "stepSize"; these .* pc, langevin$/,
    ],
    [{ solver: 'heun', snr: 0.1 }, 'ERR_CONFIG', /has no corrector, and so no option "snr"/],
    [{ eta: 0.5 }, 'ERR_CONFIG', /without solver or calls the solver is "pc"/],
    [{ solver: 'pc', sigmaMin: 9 }, 'ERR_RANGE', /^sigmaMin must be at most sigmaMax, 8, got 9$/],
    [{ solver: 'ald', sigmaMin: 9 }, 'ERR_RANGE', /^sigmaMin must be at most sigmaMax, 8, got 9$/],
    [{ solver: 'er_sde', samplingEps: 1e-3 }, 'ERR_CONFIG', /^samplingEps is of the scheduler's tables/],
    [{ solver: 'pc', start: 'centered' }, 'ERR_CONFIG', /^start: 'centered' needs a solver whose first update is/],
    [{ start: 'middle' as never }, 'ERR_CONFIG', /^start must be/],
    [{ solver: 'dpm_adaptive', calls: 5 }, 'ERR_CONFIG', /decides on its calls by itself: leave out calls$/],
    [{ solver: 'dpm_adaptive', numInferenceSteps: 5 }, 'ERR_CONFIG', /leave out numInferenceSteps$/],
    [{ solver: 'dpm_adaptive', rho: 5 }, 'ERR_CONFIG', /leave out rho$/],
    [{ solver: 'dpm_adaptive', ...placed, startStep: 1 }, 'ERR_CONFIG', /leave out startStep$/],
    [{ solver: 'dpm_adaptive', grid: [5, 0] }, 'ERR_CONFIG', /needs two noise levels, got 5 alone$/],
    [{ solver: 'dpm_adaptive', acceptSafety: 1.5 }, 'ERR_RANGE', /^acceptSafety must be at most 1/],
    [
      { solver: 'euler', ...placed, grid: [3, 1], sigmaStart: 5 },
      'ERR_RANGE',
      /^sigmaStart must be the first level of the grid, 3, got 5$/,
    ],
    [
      { solver: 'euler', ...placed, calls: 4, startStep: 4 },
      'ERR_RANGE',
      /^startStep must be an integer from 0 to 3, got 4$/,
    ],
    [{ solver: { ...solvers.euler(), options: undefined } as never }, 'ERR_CONFIG', /or a Solver/],
  ])('%#', (options, code, says) => {
    sentence(
      failure(() => pipeline.start(options)),
      code as never,
      says,
    );
    expect(model).not.toHaveBeenCalled();
  });
});

test('levels that were given may be named again', async () => {
  const grid = [3, 1];
  expect(await toldBy({ solver: 'euler', grid, numInferenceSteps: 2 })).toEqual(grid);
  expect(await toldBy({ solver: 'euler', grid: [...grid, 0], sample, sigmaStart: 3 })).toEqual(grid);
  expect(await toldBy({ solver: 'euler', grid: [3, 0], calls: 1 })).toEqual([3]);
});

test("a solver's options stay as they were", () => {
  const made = [solvers.erSde(), solvers.dpmAdaptive(), solvers.heun({ churn: { amount: 1 } })];
  for (const { options } of made) expect(Object.isFrozen(options)).toBe(true);
  expect(Object.isFrozen(made[2]!.options.churn)).toBe(true);
});

test('dpm_adaptive: each of many samples is as alone', async () => {
  const generators = () => Array.from({ length: 150 }, (_, i) => new Generator(i));
  const many = await samplesOf(pipeline, { solver: 'dpm_adaptive', batchSize: 150, generator: generators() });
  const size = many.length / 150;
  for (const i of [0, 1, 77, 148, 149])
    bitEqual(
      many.subarray(i * size, (i + 1) * size),
      await samplesOf(pipeline, { solver: 'dpm_adaptive', generator: generators()[i]! }),
    );
});
