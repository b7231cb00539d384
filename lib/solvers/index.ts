import { ScoreSdeError } from '../errors';
import { givenOptions, meant, show } from '../options';
import { dpmAdaptive, type DpmAdaptiveOptions } from './dpm-adaptive';
import { dpmpp2m, dpmpp2mSde, dpmpp3mSde, type Dpmpp2mSdeOptions } from './dpm-solver';
import { erSde, type ErSdeOptions } from './er-sde';
import { euler, eulerAncestral } from './euler';
import { heun, type HeunOptions } from './heun';
import { ipndm, lms } from './multistep';
import { assertKnown, correctorOptions } from './options';
import { predictorCorrector, type PredictorCorrectorOptions } from './predictor-corrector';
import type { Json, Solver } from './solver';
import { unipc, type UnipcOptions } from './unipc';

export { dpmAdaptive, type DpmAdaptiveOptions, type DpmAdaptivePosition } from './dpm-adaptive';
export { dpmpp2m, dpmpp2mSde, dpmpp3mSde, type Dpmpp2mSdeOptions, type Dpmpp3mSdeOptions } from './dpm-solver';
export { erSde, type ErSdeOptions } from './er-sde';
export { euler, eulerAncestral, type EulerAncestralOptions } from './euler';
export { gridNames, levelsFrom, levelsOfGrid, type Grid, type GridOptions } from './grids';
export { heun, type Churn, type HeunOptions } from './heun';
export { ipndm, lms, type MultistepOptions } from './multistep';
export { predictorCorrector, type PredictorCorrectorOptions } from './predictor-corrector';
export type { CorrectorName } from './correctors';
export { correctorOptions } from './options';
export type { PredictorName } from './predictors';
export { preset, usualCalls, type Preset } from './presets';
export type { Json, Levels, LinearUpdate, Solver, Stage, Update } from './solver';
export { levelsOfSchedule } from './tables';
export { unipc, type UnipcOptions } from './unipc';

/** The solvers, in camel case, each made from its options: `run({ solver: solvers.erSde({ eta: 0 }) })`. */
export const solvers = {
  pc: predictorCorrector,
  predictorCorrector,
  erSde,
  dpmpp2m,
  dpmpp2mSde,
  dpmpp3mSde,
  euler,
  eulerAncestral,
  heun,
  lms,
  ipndm,
  unipc,
  dpmAdaptive,
} as const;

/** A solver by its name, as a table shows it. */
export interface SolverEntry {
  /** The name by which `solver` takes it. */
  readonly name: string;
  /** Network calls a step, in words. */
  readonly callsPerStep: string;
  /** Whether it adds noise with its defaults. */
  readonly stochastic: boolean;
  /** The names of its options. */
  readonly options: readonly string[];
  /** Paper and code that its formula comes from. */
  readonly source: string;
}

interface Maker extends SolverEntry {
  make(options: never): Solver;
}

const pair = (fixed: PredictorCorrectorOptions) => (options: PredictorCorrectorOptions) =>
  predictorCorrector({ ...options, ...fixed });
const song = 'Song et al. 2021';

const makers = [
  {
    name: 'pc',
    callsPerStep: '1 + correctSteps',
    stochastic: true,
    options: ['predictor', 'corrector', ...correctorOptions, 'compat'],
    source: `${song}, Algorithm 1; diffusers, ScoreSdeVePipeline`,
    make: predictorCorrector,
  },
  {
    name: 'reverse_diffusion',
    callsPerStep: '1',
    stochastic: true,
    options: ['compat'],
    source: `${song}, eq. 46`,
    make: pair({ predictor: 'reverse_diffusion', corrector: 'none' }),
  },
  {
    name: 'euler_maruyama',
    callsPerStep: '1',
    stochastic: true,
    options: ['compat'],
    source: `${song}; score_sde, EulerMaruyamaPredictor`,
    make: pair({ predictor: 'euler_maruyama', corrector: 'none' }),
  },
  {
    name: 'ancestral_sampling',
    callsPerStep: '1',
    stochastic: true,
    options: ['compat'],
    source: `${song}, eq. 47`,
    make: pair({ predictor: 'ancestral_sampling', corrector: 'none' }),
  },
  {
    name: 'probability_flow',
    callsPerStep: '1',
    stochastic: false,
    options: ['compat'],
    source: `${song}, eq. 13; score_sde, ReverseDiffusionPredictor`,
    make: pair({ predictor: 'probability_flow', corrector: 'none' }),
  },
  {
    name: 'langevin',
    callsPerStep: 'correctSteps, 1 more at the end',
    stochastic: true,
    options: [...correctorOptions, 'compat'],
    source: `${song}, Algorithm 4`,
    make: pair({ predictor: 'none', corrector: 'langevin' }),
  },
  {
    name: 'ald',
    callsPerStep: 'correctSteps, 1 more at the end',
    stochastic: true,
    options: ['correctSteps', 'snr', 'compat'],
    source: 'Song and Ermon 2019, Algorithm 1; score_sde, AnnealedLangevinDynamics',
    make: pair({ predictor: 'none', corrector: 'ald' }),
  },
  {
    name: 'er_sde',
    callsPerStep: '1',
    stochastic: true,
    options: ['order', 'eta', 'sNoise'],
    source: 'Cui et al. 2023, arXiv 2309.06169; ER-SDE-Solver',
    make: erSde,
  },
  {
    name: 'dpmpp_2m',
    callsPerStep: '1',
    stochastic: false,
    options: [],
    source: 'Lu et al. 2022, arXiv 2211.01095; k-diffusion, sample_dpmpp_2m',
    make: dpmpp2m,
  },
  {
    name: 'dpmpp_2m_sde',
    callsPerStep: '1',
    stochastic: true,
    options: ['eta', 'sNoise', 'solverType'],
    source: 'Lu et al. 2022, arXiv 2211.01095; k-diffusion, sample_dpmpp_2m_sde',
    make: dpmpp2mSde,
  },
  {
    name: 'dpmpp_3m_sde',
    callsPerStep: '1',
    stochastic: true,
    options: ['eta', 'sNoise'],
    source: 'k-diffusion, sample_dpmpp_3m_sde',
    make: dpmpp3mSde,
  },
  {
    name: 'euler',
    callsPerStep: '1',
    stochastic: false,
    options: [],
    source: 'Karras et al. 2022, arXiv 2206.00364; k-diffusion, sample_euler',
    make: euler,
  },
  {
    name: 'euler_ancestral',
    callsPerStep: '1',
    stochastic: true,
    options: ['eta', 'sNoise'],
    source: 'k-diffusion, sample_euler_ancestral',
    make: eulerAncestral,
  },
  {
    name: 'heun',
    callsPerStep: '2, 1 at the last',
    stochastic: false,
    options: ['churn'],
    source: 'Karras et al. 2022, arXiv 2206.00364, Algorithm 2',
    make: heun,
  },
  {
    name: 'lms',
    callsPerStep: '1',
    stochastic: false,
    options: ['order'],
    source: 'k-diffusion, sample_lms',
    make: lms,
  },
  {
    name: 'ipndm',
    callsPerStep: '1',
    stochastic: false,
    options: ['order'],
    source: 'Zhang and Chen 2022, arXiv 2204.13902; diff-sampler, ipndm_sampler',
    make: ipndm,
  },
  {
    name: 'unipc',
    callsPerStep: '1',
    stochastic: false,
    options: ['order', 'variant', 'lowerOrderFinal'],
    source: 'Zhao et al. 2023, arXiv 2302.04867; diff-sampler, unipc_sampler',
    make: unipc,
  },
  {
    name: 'dpm_adaptive',
    callsPerStep: '2 or 3 (order), 1 more at the end',
    stochastic: false,
    options: ['order', 'rtol', 'atol', 'hInit', 'pcoeff', 'icoeff', 'dcoeff', 'acceptSafety'],
    source: 'Lu et al. 2022, arXiv 2206.00927; k-diffusion, sample_dpm_adaptive',
    make: dpmAdaptive,
  },
] as const satisfies readonly Maker[];

/** The names by which `solver` takes one. */
export type SolverName = (typeof makers)[number]['name'];

/** The options of all solvers. Each solver takes its own and refuses the others. */
export interface SolverOptions
  extends
    PredictorCorrectorOptions,
    ErSdeOptions,
    Omit<Dpmpp2mSdeOptions, 'eta'>,
    HeunOptions,
    UnipcOptions,
    Omit<DpmAdaptiveOptions, 'order'> {}

/** All solvers by name, in the order in which they should be shown. */
export const solverList: readonly SolverEntry[] = makers;

/** The names of {@link SolverOptions}. */
export const solverOptions: readonly string[] = [...new Set(solverList.flatMap(({ options }) => options))];

/** The names of the solvers. */
export const solverNames: readonly SolverName[] = makers.map(({ name }) => name);

/**
 * The solver of a name with its options, or a solver that was made already. `solverOf(solver.name, solver.options)` makes
 * a solver again.
 * @param options As given beside the name: only those that the solver has
 * @param defaults Options for solvers that have them, where `options` does not say: a scheduler's snr and correctSteps
 * @throws ScoreSdeError ERR_CONFIG (no such solver, options that it does not have, options beside a solver), ERR_RANGE
 */
export function solverOf(
  solver: string | Solver,
  options: object = {},
  defaults: { readonly [key: string]: Json | undefined } = {},
): Solver {
  if (typeof solver !== 'string') {
    if (!isSolver(solver))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `solver must be one of ${solverNames.join(', ')}, or a Solver, got ${show(solver)}`,
      );
    for (const [key, value] of Object.entries(options))
      if (value !== undefined)
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `${key} must be given where the solver is made, in its options, and not beside the solver ${show(solver.name)}`,
        );
    return solver;
  }
  const maker: Maker | undefined = makers.find(({ name }) => name === solver);
  if (maker === undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `there is no solver ${show(solver)}${meant(solver.replace(/^sample_/, ''), solverNames)}; expected ${solverNames.join(', ')}`,
    );
  assertKnown(solver, options, maker.options);
  const given = givenOptions(options, maker.options) as { [key: string]: Json | undefined };
  const { corrector } = given;
  const has = (key: string) =>
    !(corrector === 'none' && correctorOptions.some((option) => option === key)) &&
    !(corrector === 'ald' && key === 'stepSize');
  for (const key of maker.options.filter(has)) if (given[key] === undefined) given[key] = defaults[key];
  return maker.make(given as never);
}

function isSolver(value: unknown): boolean {
  const solver = value as Partial<Solver> | null;
  return (
    typeof solver === 'object' &&
    solver !== null &&
    typeof solver.name === 'string' &&
    typeof solver.options === 'object' &&
    solver.options !== null &&
    Number.isInteger(solver.history) &&
    (solver.grid === 'karras' || solver.grid === 'reference') &&
    [solver.centred, solver.stochastic].every((part) => typeof part === 'boolean') &&
    [solver.start, solver.stage, solver.next, solver.calls, solver.restore].every((part) => typeof part === 'function')
  );
}
