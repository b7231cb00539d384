import {
  levelsOfGrid,
  levelsOfSchedule,
  solverOf,
  type Grid,
  type Levels,
  type Solver,
  type Stage,
} from '../lib/solvers';
import type { SchedulerConfig } from '../lib/scheduler/config';
import { inferenceSchedule } from '../lib/scheduler/schedule';
import { golden, maxAbs, readJson, within } from './support/golden';
import {
  applied,
  elementwise,
  lin,
  mixtureScore,
  play,
  thresholded,
  toy,
  type Kept,
  type Score,
} from './support/stages';

interface Case {
  key: string;
  arguments: Record<string, any>;
  dtype: 'float64' | 'float32';
  shape: number[];
  model: 'lin' | 'toy' | 'gmm';
  sigmas: number[];
  t_steps?: number[];
  call_sigmas: number[];
  calls: number;
  info?: { steps: number; n_accept: number; n_reject: number };
  steps?: { sigma_after: number; error: number; n_reject: number }[];
}

interface File {
  models: { gmm: { weights: number[]; stds: number[] } };
  cases: Case[];
}

/** The file of vectors, the solver's name, and its options for a case. */
const files: [file: string, solver: string, options: (given: Record<string, any>) => object][] = [
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
  ['er_sde', 'er_sde', ({ order, phi }) => ({ order, eta: phi === 'default' ? 'authors' : Number(phi.slice(4)) })],
  ['ipndm', 'ipndm', () => ({})],
  ['unipc', 'unipc', () => ({})],
  ['edm_sampler', 'heun', churnOf],
  ['ablation_sampler', 'heun', churnOf],
];

function churnOf({ S_churn, S_min, S_max, S_noise }: Record<string, any>): object {
  return S_churn === undefined ? {} : { churn: { amount: S_churn, min: S_min, max: S_max, noise: S_noise } };
}

function scoreOf(file: ReturnType<typeof golden<File>>, { key, model }: Case): Score {
  if (model === 'lin') return lin;
  if (model === 'toy') return toy;
  return mixtureScore({ ...file.json.models.gmm, means: file.tensor<Float64Array>(`${key}.model.means`).data });
}

/** The normals of step i stand at i; those of EDM are added before the step, by the stage before. */
function drawsOf(file: ReturnType<typeof golden<File>>, key: string, size: number, isBefore: boolean) {
  return (stage: Stage | undefined): ArrayLike<number> => {
    const i = stage === undefined ? 0 : stage.step + (isBefore ? 1 : 0);
    return file.tensor<Float64Array>(`${key}.noise`).data.subarray(i * size, (i + 1) * size);
  };
}

describe.each(files)('%s: solver %s', (name, solverName, optionsOf) => {
  const file = golden<File>(`solvers/${name}`);

  it.each(file.json.cases.map((each) => [each.key, each] as const))('%s', (key, each) => {
    const isEuler = each.arguments.solver === 'euler';
    const solver = isEuler ? solverOf('euler') : solverOf(solverName, optionsOf(each.arguments));
    const levels = levelsOfGrid(each.t_steps ?? each.sigmas, {});
    const x0 = file.tensor<Float64Array>(`${key}.x0`).data;
    const final = file.tensor<Float64Array>(`${key}.final`).data;
    const draw = drawsOf(file, key, x0.length, name.endsWith('sampler'));
    const score = name === 'unipc' ? thresholded(scoreOf(file, each), each.calls) : scoreOf(file, each);
    const player = { rows: each.shape[0]!, score, draw };

    const wide = play(solver, levels, x0, player);
    expect(wide.sigmas).toHaveLength(each.calls);
    each.call_sigmas.forEach((sigma, i) => expect(Math.abs(wide.sigmas[i]! / sigma - 1)).toBeLessThan(1e-12));
    if (each.dtype === 'float64') within(wide.sample, final, 1e-12 * maxAbs(final));

    const narrow = play(solver, levels, x0.map(Math.fround), { ...player, round: Math.fround });
    within(narrow.sample, final, 4e-6 * maxAbs(final) + 3e-7 * levels.sigma[0]!);
  });
});

describe('dpm_adaptive', () => {
  const file = golden<File>('solvers/dpm_adaptive');

  it.each(file.json.cases.map((each) => [each.key, each] as const))('%s', (key, each) => {
    const { order, rtol, atol = 0.0078, pcoeff, icoeff, dcoeff, sigma_min, sigma_max } = each.arguments;
    const solver = solverOf('dpm_adaptive', { order, rtol, atol, pcoeff, icoeff, dcoeff });
    const levels = levelsOfGrid([sigma_max, sigma_min], {});
    const x0 = file.tensor<Float64Array>(`${key}.x0`).data;
    const final = file.tensor<Float64Array>(`${key}.final`).data;
    const player = { rows: each.shape[0]!, score: scoreOf(file, each), draw: () => [] };
    const wide = play(solver, levels, x0, player);

    // The published code asks for eps again after a rejection, and does not denoise.
    const perStep = order ?? 3;
    const expected = each.call_sigmas.filter(
      (_, i) =>
        i % perStep !== 0 ||
        i === 0 ||
        each.steps![i / perStep - 1]!.n_reject === (each.steps![i / perStep - 2]?.n_reject ?? 0),
    );
    expected.push(each.steps!.at(-1)!.sigma_after);
    expect(wide.sigmas).toHaveLength(expected.length);
    within(wide.sigmas, expected, 1e-8 * sigma_max);
    expect(wide.errors).toHaveLength(each.info!.steps);
    each.steps!.forEach(({ error }, i) => expect(Math.abs(wide.errors[i]! - error)).toBeLessThan(1e-6 * error + 1e-12));
    within(wide.called, final, 1e-8 * maxAbs(final));

    const narrow = play(solver, levels, x0.map(Math.fround), { ...player, round: Math.fround });
    // Rounding changes the errors of the first steps, which are near 0, and so the length of the steps.
    within(narrow.called, final, 1e-3 * maxAbs(final));
    expect(narrow.errors).toHaveLength(each.info!.steps);
  });
});

describe('grids', () => {
  const file = golden<{ grids: { key: string; function: string; arguments: Record<string, number>; dtype: string }[] }>(
    'solvers/grids',
  );

  it.each(file.json.grids.map((each) => [each.key, each] as const))('%s', (key, each) => {
    const { n, num_steps, sigma_min, sigma_max, rho } = each.arguments;
    const grids: [RegExp, Grid][] = [
      [/polyexponential/, 'polyexponential'],
      [/exponential/, 'exponential'],
      [/karras|=edm/, 'karras'],
      [/=ve/, 've'],
    ];
    const grid = grids.find(([pattern]) => pattern.test(each.function))![1];
    const levels = levelsOfGrid(grid, { count: n ?? num_steps, sigmaMin: sigma_min, sigmaMax: sigma_max, rho });
    const expected = Array.from(file.tensor<Float64Array>(key).data).filter((sigma) => sigma > 0);
    expect(levels.sigma).toHaveLength(expected.length);
    const tolerance = each.dtype === 'float64' ? 1e-12 : 5e-6;
    expected.forEach((sigma, i) => expect(Math.abs(levels.sigma[i]! / sigma - 1)).toBeLessThan(tolerance));
  });
});

interface PaperFile {
  configs: Record<string, { sigma_min: number; sigma_max: number; snr: number; eps: number }>;
  models: { gmm_weights: number[]; gmm_stds: number[] };
}

type PaperCall = {
  key: string;
  kind: 'predictor' | 'corrector';
  name: string;
  probability_flow: boolean;
  n_steps: number;
  config: string;
  N: number;
  shape: string;
  model: string;
  t: number[];
  sigma: number[];
  index: number[];
  table_sigma: number[];
};

function paperScore(file: ReturnType<typeof golden<any>>, model: string, prefix = ''): Score {
  if (model === 'lin') return lin;
  if (model === 'toy') return toy;
  if (model === 'gmm') {
    const { gmm_weights, gmm_stds } = (file.json as PaperFile).models;
    return mixtureScore({ weights: gmm_weights, stds: gmm_stds, means: file.tensor(`${prefix}gmm_means`).data });
  }
  const mean = file.tensor(`${prefix}gauss_mean`).data;
  const std = file.tensor(`${prefix}gauss_std`).data;
  return elementwise((x, sigma, j) => (mean[j]! - x) / (std[j]! ** 2 + sigma ** 2));
}

function configOf({ sigma_min, sigma_max, snr, eps }: PaperFile['configs'][string]): SchedulerConfig {
  return { numTrainTimesteps: 1, snr, sigmaMin: sigma_min, sigmaMax: sigma_max, samplingEps: eps, correctSteps: 1 };
}

describe('one update of the paper', () => {
  const file = golden<PaperFile & { calls: PaperCall[]; shapes: Record<string, number[]> }>('paper/updates');

  it.each(file.json.calls.filter(({ name }) => name !== 'none').map((each) => [each.key, each] as const))(
    '%s',
    (key, each) => {
      const { config, N, shape, t, sigma, index, kind, probability_flow, n_steps } = each;
      const { snr, sigma_min: sigmaMin, sigma_max: sigmaMax, eps } = file.json.configs[config]!;
      const name = probability_flow ? 'probability_flow' : each.name;
      const options = kind === 'predictor' ? {} : { snr, correctSteps: n_steps };
      const solver = solverOf(name, { compat: 'score_sde', ...options });
      const { discreteSigmas } = inferenceSchedule(N, configOf({ sigma_min: sigmaMin, sigma_max: sigmaMax, snr, eps }));
      // Each sample has a time of its own, and so levels of one step.
      const levels = t.map((time, row): Levels => {
        const k = index[row]!;
        const [level] = [discreteSigmas[k]!];
        const next = k === 0 ? 0 : discreteSigmas[k - 1]!;
        return {
          sigma: [level],
          next: [next],
          label: [sigma[row]!],
          time: [time],
          start: level,
          sigmaMin,
          sigmaMax,
          total: N,
          centred: false,
        };
      });
      const time = key.split('.')[2]!;
      let x: Float64Array = Float64Array.from(file.tensor(`${shape}.${config}.${time}.input`).data);
      let mean: Float64Array = x;
      const score = paperScore(file, each.model, `${shape}.`);
      const kept: Kept = { history: [], base: undefined };
      for (let call = 0; call < solver.calls(levels[0]!)!; call++) {
        const stages = levels.map((each) => solver.stage(each, call));
        const given = score(
          x,
          stages.map((stage) => stage.sigma),
        ).map(Math.fround);
        ({ next: x, mean } = applied(stages, x, given, file.tensor(`${shape}.noise${call}`).data, kept, Math.fround));
      }
      for (const [got, part] of [
        [x, 'x'],
        [mean, 'x_mean'],
      ] as const) {
        const expected = file.tensor(`${key}.${part}`).data;
        within(got, expected, 3e-6 * Math.max(1, maxAbs(expected)));
      }
    },
  );
});

describe('loops of the paper', () => {
  interface Loop {
    key: string;
    predictor: string;
    corrector: string;
    probability_flow: boolean;
    n_steps: number;
    N: number;
    config: string;
    model: string;
    continuous: boolean;
    draws: number;
    model_calls: number;
    call_labels: number[];
    right?: string;
  }
  const file = golden<PaperFile & { cases: Loop[]; shape: number[] }>('paper/loops');
  const noise = file.tensor('noise').data;
  const rows = file.json.shape[0]!;
  const size = file.json.shape.reduce((product, dim) => product * dim);

  const run = (each: Loop, compat: 'score_sde' | undefined) => {
    const config = configOf(file.json.configs[each.config]!);
    const schedule = inferenceSchedule(each.N, config);
    const levels = levelsOfSchedule(schedule, config);
    const hasCorrector = each.corrector !== 'none';
    const solver: Solver = solverOf('pc', {
      predictor: each.probability_flow ? 'probability_flow' : each.predictor,
      corrector: each.corrector,
      compat,
      ...(hasCorrector ? { snr: config.snr, correctSteps: each.n_steps } : {}),
    });
    const score = paperScore(file, each.model);
    let draws = 1;
    const played = play(
      solver,
      levels,
      noise.subarray(0, size).map((z) => Math.fround(z * config.sigmaMax)),
      {
        rows,
        // Discrete labels stand for the table's level of their index.
        score: (x, sigma) =>
          score(
            x,
            each.continuous
              ? sigma
              : sigma.map(
                  (s) => levels.sigma[(levels.label as any) === null ? 0 : Array.from(levels.label).indexOf(s)]!,
                ),
          ),
        draw: () => noise.subarray(draws * size, ++draws * size),
        round: Math.fround,
      },
    );
    return { ...played, draws };
  };

  const loops = file.json.cases.filter(({ predictor, corrector }) => predictor !== 'none' || corrector !== 'none');

  it.each(loops.map((each) => [each.key, each] as const))('%s as the repository', (key, each) => {
    const { x, sample, sigmas, draws } = run(each, 'score_sde');
    expect(draws).toBe(each.draws);
    expect(sigmas).toHaveLength(each.model_calls);
    if (each.continuous) within(sigmas, each.call_labels, 0);
    for (const [got, part] of [
      [x, 'x'],
      [sample, 'x_mean'],
    ] as const) {
      const expected = file.tensor(`${key}.${part}`).data;
      within(got, expected, 1e-5 * Math.max(1, maxAbs(expected)));
    }
  });

  // Without unused draws and with other steps the rest draws other noise: there is no vector.
  const ours = loops.filter((each) => each.right || (each.predictor !== 'euler_maruyama' && !each.probability_flow));

  it.each(ours.map((each) => [each.key, each] as const))('%s as it should be', (key, each) => {
    const { sample } = run(each, undefined);
    const expected = file.tensor(`${key}.${each.right ? 'right' : 'x_mean'}`).data;
    within(sample, expected, 1e-5 * Math.max(1, maxAbs(expected)));
  });

  it('refuses neither a predictor nor a corrector', () => {
    expect(readJson<{ cases: Loop[] }>('paper/loops').cases.some((each) => each.key.startsWith('none.none'))).toBe(
      true,
    );
    expect(() => solverOf('pc', { predictor: 'none', corrector: 'none' })).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG' }),
    );
  });
});
