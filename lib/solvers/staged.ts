import { ScoreSdeError } from '../errors';
import { show } from '../options';
import type { Json, Levels, LinearUpdate, Solver, Stage } from './solver';

/** A solver whose stages follow from the levels alone. Its position is the number of the next stage. */
export interface StagedSolver {
  name: string;
  options: { readonly [key: string]: Json };
  /** 'karras' unless given. */
  grid?: 'karras' | 'reference' | undefined;
  /** true unless given. */
  centred?: boolean | undefined;
  stochastic: boolean;
  history: number;
  /** One a network call unless given. */
  steps?: ((calls: number) => number) | undefined;
  /** Network calls, which are its stages; one a step unless given. */
  calls?: ((levels: Levels) => number) | undefined;
  opening?: ((levels: Levels) => number) | undefined;
  /** false: the solver also takes levels that repeat or do not end at 0, as the reference's tables may. true unless given. */
  decreasing?: boolean | undefined;
  stage: (levels: Levels, index: number) => Stage;
}

/** The Solver of such a description. A stage is computed when it is asked for, and not kept. */
export function staged(spec: StagedSolver): Solver<number> {
  const { grid = 'karras', centred = true, decreasing = true, ...rest } = spec;
  const calls = spec.calls ?? ((levels: Levels) => levels.sigma.length);
  const stage = (levels: Levels, at: number): Stage => {
    const stage = spec.stage(levels, at);
    return levels.centred ? { ...stage, update: centre(stage, levels, at, spec.name) } : stage;
  };
  return {
    ...rest,
    options: Object.freeze(rest.options),
    grid,
    centred,
    steps: spec.steps ?? ((count) => count),
    calls,
    stage,
    start(levels) {
      if (decreasing) assertDecreasing(levels, spec.name);
      if (levels.centred && levels.sigma.length > 0) stage(levels, 0);
      return 0;
    },
    restore(levels, saved) {
      if (!Number.isInteger(saved) || (saved as number) < 0 || (saved as number) >= calls(levels))
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `a position of solver ${show(spec.name)} must be an integer below its ${calls(levels)} stages, got ${show(saved)}`,
        );
      return saved as number;
    },
    next: (levels, at) => (at + 1 < calls(levels) ? at + 1 : undefined),
  };
}

/** x' = a x + b[0] D + b[1] D1 + ... + e z, in a solver of one call a step. */
export interface Row {
  readonly a: number;
  readonly b: readonly number[];
  readonly e?: number | undefined;
}

/** A solver of one network call and one linear update a step: `row` is that of step i. */
export function stepwise(
  spec: Omit<StagedSolver, 'stage'> & { of?: 'noise' | undefined; row: (levels: Levels, i: number) => Row },
): Solver<number> {
  const { row, of, ...rest } = spec;
  return staged({
    ...rest,
    stage: (levels, i) => linearStage(i, levels.label[i]!, { ...row(levels, i), of }, true),
  });
}

/** A stage with a linear update, which takes a draw where it adds noise. */
export function linearStage(
  step: number,
  sigma: number,
  { a, b, e = 0, of }: Row & Pick<LinearUpdate, 'of'>,
  endsStep: boolean,
): Stage {
  return { step, sigma, update: { kind: 'linear', a, b, e, of }, draws: e > 0 ? 1 : 0, endsStep };
}

/**
 * The centred start. The start sigma_0 z has mean 0, but x at sigma_0 has the mean of the data, of which the first D is the
 * estimate. So x + D takes the place of x, and keeps D as its denoised estimate: in the first update b[0] becomes a + b[0].
 *
 * Where the history holds eps = (x - D) / sigma_0, the point x + D has eps' = x / sigma_0 = X0 / sigma_0. The first update,
 * a (x + D) + b[0] eps' with D = x - sigma_0 eps, keeps X0, and the later ones read it in place of the first eps.
 */
function centre(stage: Stage, levels: Levels, index: number, name: string): Stage['update'] {
  const { update, sigma } = stage;
  if (update.kind !== 'linear') {
    if (index > 0) return update;
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `start: 'centered' needs a solver whose first update is a linear one, and that of ${show(name)} is not`,
    );
  }
  const { a, b } = update;
  if (update.of === 'noise') {
    if (index === 0) return { ...update, a: 2 * a + b[0]! / sigma, b: [-a * sigma], marks: true };
    return index < b.length ? { ...update, b: b.slice(0, index), base: b[index]! / levels.label[0]! } : update;
  }
  return index === 0 ? { ...update, b: [a + b[0]!, ...b.slice(1)] } : update;
}

/** ERR_CONFIG unless each step begins where the one before ended, and the last one ends at 0. */
export function assertDecreasing({ sigma, next }: Levels, name: string): void {
  for (let i = 0; i < sigma.length; i++)
    if (!(sigma[i]! > next[i]! && next[i] === (sigma[i + 1] ?? 0)))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `solver ${show(name)} needs noise levels that decrease strictly, step by step to 0, got ${sigma[i]} to ${next[i]} at step ${i}`,
      );
}
