import type { Levels, LinearUpdate, Solver, Stage, Update } from '../../lib/solvers/solver';

/** The score of a batch of `rows` samples at one sigma for each. */
export type Score = (x: Float64Array, sigma: readonly number[]) => Float64Array;

/** What plays a solver's stages: plain arrays, every operation rounded by `round`. */
export interface Player {
  rows: number;
  score: Score;
  /** The normals of a stage, or of the opening where there is none. */
  draw: (stage: Stage | undefined) => ArrayLike<number>;
  /** Math.fround for a state in float32. */
  round?: (value: number) => number;
}

export interface Played {
  /** x after the last update, its noise included. */
  x: Float64Array;
  /** x without that noise. */
  sample: Float64Array;
  /** x at the network call before the last update. */
  called: Float64Array;
  /** The sigmas of the network calls. */
  sigmas: number[];
  stages: Stage[];
  /** Of an adaptive solver: the error of each step that was tried. */
  errors: number[];
  draws: number;
}

/** Math.fround for a float32 state, nothing for a float64 one. */
export const exact = (value: number): number => value;

/** What is kept between two updates. */
export interface Kept {
  history: Float64Array[];
  base: Float64Array | undefined;
}

/** x' of an update and its mean. Each row has its own stage; those of a 'langevin' update with stepSize 'batch' share their norms. */
export function applied(
  stages: readonly Stage[],
  x: Float64Array,
  score: Float64Array | undefined,
  z: ArrayLike<number> | undefined,
  kept: Kept,
  round = exact,
): { next: Float64Array; mean: Float64Array; pushed: Float64Array; low?: Float64Array } {
  const rows = stages.length;
  const cols = x.length / rows;
  const next = new Float64Array(x.length);
  const mean = new Float64Array(x.length);
  const pushed = new Float64Array(x.length);
  let low: Float64Array | undefined;
  const norm = (values: ArrayLike<number>, row: number): number =>
    Math.hypot(...Array.prototype.slice.call(values, row * cols, (row + 1) * cols));
  const meanNorm = (values: ArrayLike<number>): number => {
    let sum = 0;
    for (let row = 0; row < rows; row++) sum += norm(values, row);
    return sum / rows;
  };
  stages.forEach(({ update, sigma }, row) => {
    const all = { row, cols, x, score, z, kept, sigma, next, mean, pushed, round };
    if (update.kind === 'linear') {
      combine({ ...all, update });
      if (update.low) {
        low ??= new Float64Array(x.length);
        const { b, base } = update.low;
        const atLow: LinearUpdate = { kind: 'linear', a: 0, b, base, e: 0, of: update.of };
        combine({ ...all, update: atLow, next: low, mean: low, pushed: new Float64Array(x.length) });
      }
      return;
    }
    const [k, e] = coefficients(update, () => ({
      noise: update.kind === 'langevin' && update.stepSize === 'batch' ? meanNorm(z!) : norm(z!, row),
      score: update.kind === 'langevin' && update.stepSize === 'batch' ? meanNorm(score!) : norm(score!, row),
    }));
    for (let i = row * cols; i < (row + 1) * cols; i++) {
      mean[i] = round(x[i]! + round(round(k) * score![i]!));
      next[i] = round(mean[i]! + round(round(e) * z![i]!));
    }
  });
  return { next, mean, pushed, low };
}

/** Of x' = x + k score + e z. */
function coefficients(
  update: Exclude<Update, LinearUpdate>,
  norms: () => { noise: number; score: number },
): [k: number, e: number] {
  if (update.kind === 'reverseDiffusion') {
    const k = update.sigma ** 2 - update.next ** 2;
    return [k, Math.sqrt(k)];
  }
  const { snr, stepSize, sigma } = update;
  const { noise, score } = stepSize === 'ald' ? { noise: sigma, score: 1 } : norms();
  const step = 2 * ((snr * noise) / score) ** 2;
  return [step, Math.sqrt(2 * step)];
}

function combine(of: {
  row: number;
  cols: number;
  x: Float64Array;
  score: Float64Array | undefined;
  z: ArrayLike<number> | undefined;
  kept: Kept;
  sigma: number;
  update: LinearUpdate;
  next: Float64Array;
  mean: Float64Array;
  pushed: Float64Array;
  round: (value: number) => number;
}): void {
  const { row, cols, x, score, z, kept, sigma, update, next, mean, pushed, round } = of;
  const { a, b, base = 0, e } = update;
  const s = round(sigma);
  for (let i = row * cols; i < (row + 1) * cols; i++) {
    // P: eps = -sigma score, or D = x + sigma^2 score.
    if (score)
      pushed[i] = update.of === 'noise' ? round(-s * score[i]!) : round(x[i]! + round(round(s * s) * score[i]!));
    let value = a === 0 ? 0 : round(round(a) * x[i]!);
    b.forEach((bj, j) => {
      if (bj !== 0) value = round(value + round(round(bj) * (j === 0 ? pushed : kept.history[j - 1]!)[i]!));
    });
    if (base !== 0) value = round(value + round(round(base) * kept.base![i]!));
    mean[i] = value;
    next[i] = e === 0 ? value : round(value + round(round(e) * z![i]!));
  }
}

/** Plays a solver from x to its sample. */
export function play(solver: Solver<any>, levels: Levels, start: ArrayLike<number>, player: Player): Played {
  const { rows, score, draw, round = exact } = player;
  let x: Float64Array = Float64Array.from(start);
  const kept: Kept = { history: [], base: undefined };
  const played: Played = { x, sample: x, called: x, sigmas: [], stages: [], errors: [], draws: 0 };
  let accepted: Float64Array = x;
  const opening = solver.opening?.(levels) ?? 0;
  if (opening > 0) {
    const z = draw(undefined);
    played.draws++;
    x = x.map((value, i) => round(value + round(round(opening) * z[i]!)));
  }
  for (let at: unknown = solver.start(levels); at !== undefined;) {
    const stage = solver.stage(levels, at);
    played.stages.push(stage);
    const isCall = stage.calls !== false;
    if (isCall) {
      played.sigmas.push(stage.sigma);
      played.called = x;
    }
    const told = new Array<number>(rows).fill(round(stage.sigma));
    const given = isCall ? score(x, told).map(round) : undefined;
    const z = stage.draws ? draw(stage) : undefined;
    played.draws += stage.draws;
    const { update } = stage;
    if (update.kind === 'linear' && update.marks) kept.base = x;
    const { next, mean, pushed, low } = applied(new Array<Stage>(rows).fill(stage), x, given, z, kept, round);
    if (isCall) {
      kept.history.unshift(pushed);
      kept.history.length = Math.min(kept.history.length, solver.history);
    }
    let error: number | undefined;
    if (low) {
      const { rtol, atol } = solver.tolerance!;
      let sum = 0;
      for (let i = 0; i < x.length; i++)
        sum += ((low[i]! - next[i]!) / Math.max(atol, rtol * Math.max(Math.abs(low[i]!), Math.abs(accepted[i]!)))) ** 2;
      error = Math.sqrt(sum / x.length);
      played.errors.push(error);
    }
    x = next;
    at = solver.next(levels, at, error);
    // A step that was accepted goes on with the next one.
    if (low && at !== undefined && solver.stage(levels, at).step > stage.step) accepted = low;
    played.x = next;
    played.sample = update.kind === 'langevin' ? next : mean;
  }
  return played;
}

export interface Mixture {
  weights: readonly number[];
  stds: readonly number[];
  means: ArrayLike<number>;
}

/** score of sum_k w_k N(mu_k, (sd_k^2 + sigma^2) I) on each sample. */
export function mixtureScore({ weights, stds, means }: Mixture): Score {
  return (x, sigma) => {
    const d = x.length / sigma.length;
    const out = new Float64Array(x.length);
    sigma.forEach((s, row) => {
      const v = stds.map((sd) => sd ** 2 + s ** 2);
      const logs = weights.map((w, k) => {
        let distance = 0;
        for (let j = 0; j < d; j++) distance += (x[row * d + j]! - means[k * d + j]!) ** 2;
        return Math.log(w) - distance / (2 * v[k]!) - (d / 2) * Math.log(v[k]!);
      });
      const most = Math.max(...logs);
      const r = logs.map((log) => Math.exp(log - most));
      const sum = r.reduce((total, value) => total + value, 0);
      for (let j = 0; j < d; j++)
        for (let k = 0; k < r.length; k++)
          out[row * d + j]! += ((r[k]! / sum) * (means[k * d + j]! - x[row * d + j]!)) / v[k]!;
    });
    return out;
  };
}

/** An elementwise score. */
export function elementwise(score: (x: number, sigma: number, index: number) => number): Score {
  return (x, sigma) => {
    const d = x.length / sigma.length;
    return x.map((value, i) => score(value, sigma[Math.floor(i / d)]!, i % d));
  };
}

/** The scores of data N(0, 1), and of no data at all. */
export const lin: Score = elementwise((x, sigma) => -x / (1 + sigma * sigma));
export const toy: Score = elementwise((x, sigma) => (x * sigma) / (sigma + 1));

/**
 * diff-sampler's UniPC clamps each D but the last to s = max(1, the 99.5th percentile of |D|) and divides it by s. The
 * solver does not, as UniPC's own code: the model does it here.
 */
export function thresholded(score: Score, calls: number): Score {
  let call = 0;
  return (x, sigma) => {
    const given = score(x, sigma);
    if (++call % calls === 0) return given;
    const d = x.length / sigma.length;
    sigma.forEach((level, row) => {
      const D = Array.from({ length: d }, (_, j) => x[row * d + j]! + level ** 2 * given[row * d + j]!);
      const sorted = D.map(Math.abs).sort((a, b) => a - b);
      const at = 0.995 * (d - 1);
      const below = Math.floor(at);
      const s = Math.max(1, sorted[below]! + (at - below) * ((sorted[below + 1] ?? 0) - sorted[below]!));
      D.forEach(
        (value, j) => (given[row * d + j] = (Math.max(-s, Math.min(s, value)) / s - x[row * d + j]!) / level ** 2),
      );
    });
    return given;
  };
}
