import { ScoreSdeError } from '../errors';
import { show } from '../options';
import { assertKnown, nonNegative } from './options';
import type { Levels, Solver } from './solver';
import { linearStage, staged } from './staged';

/** EDM's churn: before a step, noise takes x from sigma up to sigma (1 + gamma), gamma = min(amount / N, sqrt(2) - 1). */
export interface Churn {
  /** S_churn, >= 0; 0 is none. ERR_RANGE. */
  amount: number;
  /** S_min and S_max, >= 0: only steps from a sigma between them churn. Default 0 and no bound. ERR_RANGE. */
  min?: number | undefined;
  /** S_max, at least `min`. ERR_RANGE. */
  max?: number | undefined;
  /** S_noise, the factor of the noise, >= 0. Default 1. ERR_RANGE. */
  noise?: number | undefined;
}

export interface HeunOptions {
  /** Default none. */
  churn?: Churn | undefined;
}

/**
 * Heun's method, two calls a step but for the last (Karras et al. 2022, arXiv 2206.00364, Algorithm 2). The correction needs
 * no second state: from the Euler point it is x' = x + q (D - D1), q = (sigma^ - sigma') / (2 sigma'). N steps take 2 N - 1
 * calls. With fewer (`Levels.calls`) the last corrections are left out.
 */
export function heun(options: HeunOptions = {}): Solver {
  assertKnown('heun', options, ['churn']);
  const churn = options.churn === undefined ? undefined : churnOf(options.churn);
  /** 1 + gamma of step i. */
  const growth = ({ sigma, total }: Levels, i: number): number => {
    if (churn === undefined || sigma[i]! < churn.min || sigma[i]! > (churn.max ?? Infinity)) return 1;
    return 1 + Math.min(churn.amount / total, Math.SQRT2 - 1);
  };
  /** The noise of step i's churn: S_noise sqrt(sigma^^2 - sigma^2). The stage before adds it. */
  const churned = (levels: Levels, i: number): number => {
    if (churn === undefined || i === levels.sigma.length) return 0;
    return churn.noise * levels.sigma[i]! * Math.sqrt(growth(levels, i) ** 2 - 1);
  };
  const steps = (levels: Levels) => levels.sigma.length;
  /** How many steps, the first ones, are corrected. */
  const corrected = (levels: Levels): number =>
    Math.max(0, Math.min(steps(levels) - 1, (levels.calls ?? Infinity) - steps(levels)));

  return staged({
    name: 'heun',
    options: churn === undefined ? {} : { churn: Object.freeze(churn) },
    stochastic: churn !== undefined && churn.amount > 0 && churn.noise > 0,
    history: 1,
    steps: (calls) => Math.floor(calls / 2) + 1,
    calls: (levels) => steps(levels) + corrected(levels),
    opening: (levels) => churned(levels, 0),
    stage(levels, at) {
      const { sigma, next, label } = levels;
      const m = corrected(levels);
      const i = at < 2 * m ? Math.floor(at / 2) : at - m;
      const hat = sigma[i]! * growth(levels, i);
      const to = next[i]!;
      const e = churned(levels, i + 1);
      const noiseLevels = e > 0 ? ([to, to * growth(levels, i + 1)] as const) : undefined;
      if (at < 2 * m && at % 2 === 1) {
        const q = (hat - to) / (2 * to);
        return { ...linearStage(i, label[i + 1]!, { a: 1, b: [q, -q], e }, true), noiseLevels };
      }
      const euler = { a: to / hat, b: [1 - to / hat] };
      if (i < m) return linearStage(i, label[i]! * growth(levels, i), euler, false);
      return { ...linearStage(i, label[i]! * growth(levels, i), { ...euler, e }, true), noiseLevels };
    },
  });
}

function churnOf(churn: Churn): { amount: number; min: number; max?: number | undefined; noise: number } {
  assertKnown('heun', churn, ['amount', 'min', 'max', 'noise'], 'churn');
  if (churn.amount === undefined)
    throw new ScoreSdeError('ERR_CONFIG', `churn must have an amount, got ${show(churn)}`);
  const min = nonNegative(churn.min, 'churn.min', 0);
  // Infinity is the default, and JSON has no word for it.
  const max = churn.max === undefined || churn.max === Infinity ? undefined : nonNegative(churn.max, 'churn.max', 0);
  if (max !== undefined && max < min)
    throw new ScoreSdeError('ERR_RANGE', `churn.max must be at least churn.min, ${min}, got ${max}`);
  return {
    amount: nonNegative(churn.amount, 'churn.amount', 0),
    min,
    ...(max === undefined ? {} : { max }),
    noise: nonNegative(churn.noise, 'churn.noise', 1),
  };
}
