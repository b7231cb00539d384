import { ScoreSdeError } from '../errors';
import { show } from '../options';
import { integer, oneOf, positive } from './options';
import type { Levels } from './solver';

/** The names of {@link Grid}. */
export const gridNames = ['karras', 've', 'exponential', 'polyexponential', 'linear'] as const;

/**
 * How the noise levels of a run lie between sigmaMax and sigmaMin. With u = i / (n - 1) for i = 0 ... n - 1:
 * - 'karras': ((1 - u) sigmaMax^(1/rho) + u sigmaMin^(1/rho))^rho (EDM, eq. 5)
 * - 've', 'exponential': sigmaMin (sigmaMax / sigmaMin)^(1 - u), the paper's geometric sequence
 * - 'polyexponential': sigmaMin (sigmaMax / sigmaMin)^((1 - u)^rho) (k-diffusion)
 * - 'linear': (1 - u) sigmaMax + u sigmaMin
 * - an array: the levels themselves, strictly decreasing finite numbers > 0. A last 0 may be there and means nothing, but for one
 *   level: [sigma, 0] is a step from it, where [sigma] is none in k-diffusion, and refused.
 */
export type Grid = (typeof gridNames)[number] | ArrayLike<number>;

export interface GridOptions {
  /** Noise levels, 1 to 2^24. One level is sigmaMax. Of an array: its own number unless given, and no other. */
  count?: number | undefined;
  /** The lowest level, > 0 and, of two levels or more, below sigmaMax. It defines `Levels.time`, of an array too. */
  sigmaMin?: number | undefined;
  /** The highest level, > 0. */
  sigmaMax?: number | undefined;
  /** Of 'karras' (7 unless given) and 'polyexponential' (1), > 0: more of it, more levels near sigmaMin. */
  rho?: number | undefined;
  /** See `Levels.centred`; false unless given. */
  centred?: boolean | undefined;
  /** See `Levels.calls`. */
  calls?: number | undefined;
}

/** The largest number of steps: the largest of a schedule. */
export const maxSteps = 2 ** 24;

/**
 * The levels of a grid.
 * @throws ScoreSdeError ERR_CONFIG (no such grid, an option that it does not have), ERR_RANGE (a number that is out of
 * range; levels that are not strictly decreasing, finite and above 0)
 */
export function levelsOfGrid(grid: Grid, options: GridOptions): Levels {
  const rho = rhoOf(grid, options.rho);
  // [n + 1], 0 at the end: sigma and next are two views of it.
  const all = typeof grid === 'string' ? named(grid, options, rho) : given(grid, options.count);
  const n = all.length - 1;
  const sigma = all.subarray(0, n);
  // As float32, which networks are told: two levels that are one there are no step.
  for (let i = 0; i < n; i++)
    if (!(Math.fround(sigma[i]!) > 0 && Math.fround(sigma[i]!) < (i === 0 ? Infinity : Math.fround(sigma[i - 1]!))))
      throw new ScoreSdeError(
        'ERR_RANGE',
        `the noise levels of a grid must be finite, above 0 and strictly decreasing in float32, got ${sigma[i]} at ${i}` +
          (i === 0 ? '' : ` after ${sigma[i - 1]}`),
      );
  const sigmaMin = positive(options.sigmaMin, 'sigmaMin', sigma[n - 1]!);
  const sigmaMax = positive(options.sigmaMax, 'sigmaMax', sigma[0]!);
  const range = Math.log(sigmaMax / sigmaMin);
  // A range of one level has no time: it is all at t = 1.
  const time = sigma.map((s) => (range === 0 ? 1 : Math.log(s / sigmaMin) / range));
  const { calls, centred = false } = options;
  const next = all.subarray(1);
  return { sigma, next, label: sigma, start: sigma[0]!, time, sigmaMin, sigmaMax, total: n, centred, calls };
}

/** The levels from a step on, for a run that starts there; the same memory. `calls`, which is of all steps, is left out unless they are all. ERR_RANGE. */
export function levelsFrom(levels: Levels, step: number): Levels {
  const { sigma, next, label, time } = levels;
  integer(step, 'step', 0, Math.max(0, sigma.length - 1), 0);
  if (step === 0) return levels;
  const rest = (values: ArrayLike<number>) =>
    ArrayBuffer.isView(values) ? (values as Float64Array).subarray(step) : Array.prototype.slice.call(values, step);
  const parts = { sigma: rest(sigma), next: rest(next), label: rest(label), time: rest(time) };
  return { ...levels, ...parts, start: sigma[step]!, calls: undefined };
}

function rhoOf(grid: Grid, rho: number | undefined): number {
  if (grid === 'karras') return positive(rho, 'rho', 7);
  if (grid === 'polyexponential') return positive(rho, 'rho', 1);
  if (rho !== undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `rho is an option of the grids "karras" and "polyexponential", not of ${show(grid)}`,
    );
  return 1;
}

function named(grid: string, options: GridOptions, rho: number): Float64Array {
  oneOf(grid, 'grid', gridNames, 'karras');
  const n = integer(required(options.count, 'count'), 'the number of noise levels', 1, maxSteps, 1);
  const max = positive(required(options.sigmaMax, 'sigmaMax'), 'sigmaMax', 1);
  const min = n === 1 ? max : positive(required(options.sigmaMin, 'sigmaMin'), 'sigmaMin', 1);
  const levels: Record<string, (u: number) => number> = {
    karras: (u) => ((1 - u) * max ** (1 / rho) + u * min ** (1 / rho)) ** rho,
    ve: (u) => min * (max / min) ** (1 - u),
    exponential: (u) => min * (max / min) ** (1 - u),
    polyexponential: (u) => min * (max / min) ** ((1 - u) ** rho),
    linear: (u) => (1 - u) * max + u * min,
  };
  const level = levels[grid]!;
  const sigma = new Float64Array(n + 1);
  for (let i = 1; i < n - 1; i++) sigma[i] = level(i / (n - 1));
  // The ends are exact, whatever a power rounds to.
  sigma[n - 1] = min;
  sigma[0] = max;
  return sigma;
}

function required(value: number | undefined, name: string): number {
  if (value === undefined) throw new ScoreSdeError('ERR_CONFIG', `a grid that is given by its name needs ${name}`);
  return value;
}

function given(grid: ArrayLike<number>, count: number | undefined): Float64Array {
  const isNumbers = Array.isArray(grid) || (ArrayBuffer.isView(grid) && !(grid instanceof DataView));
  if (!isNumbers)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `grid must be ${gridNames.map(show).join(', ')} or an array of numbers, got ${show(grid)}`,
    );
  const n = grid.length - (grid[grid.length - 1] === 0 ? 1 : 0);
  if (n < 1 || n > maxSteps) throw new ScoreSdeError('ERR_RANGE', `a grid must have 1 to 2^24 noise levels, got ${n}`);
  if (grid.length === 1)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `a grid of one level has no step: say [${show(grid[0])}, 0] for one from it to 0, got [${show(grid[0])}]`,
    );
  if (count !== undefined && count !== n)
    throw new ScoreSdeError('ERR_RANGE', `count must be the number of the grid's levels, ${n}, got ${show(count)}`);
  const sigma = new Float64Array(n + 1);
  for (let i = 0; i < n; i++) {
    // A Float64Array would turn "3" into 3 and a hole into NaN.
    const level: unknown = grid[i];
    if (typeof level !== 'number')
      throw new ScoreSdeError('ERR_RANGE', `a grid must hold numbers, got ${show(level)} at ${i}`);
    sigma[i] = level;
  }
  return sigma;
}
