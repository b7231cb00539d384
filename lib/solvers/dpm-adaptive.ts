import { ScoreSdeError } from '../errors';
import { isPlainObject, show } from '../options';
import { assertKnown, integer, nonNegative, positive } from './options';
import type { Levels, LinearUpdate, Solver, Stage } from './solver';
import { assertDecreasing } from './staged';

export interface DpmAdaptiveOptions {
  /** 2 or 3: DPM-Solver-12 or DPM-Solver-23, the error being measured against one order less. Default 3. ERR_RANGE. */
  order?: number | undefined;
  /** The error that a step may have, relative to |x|, >= 0. Default 0.05. ERR_RANGE. */
  rtol?: number | undefined;
  /** The error that a step may have whatever x, > 0. Default 0.0039, a grey level of data in [0, 1]; k-diffusion's 0.0078 is for [-1, 1]. ERR_RANGE. */
  atol?: number | undefined;
  /** The first step in -ln sigma, at least 1e-9. Default 0.05. ERR_RANGE. */
  hInit?: number | undefined;
  /** The proportional coefficient of the PID controller of the step, >= 0. Default 0. ERR_RANGE. */
  pcoeff?: number | undefined;
  /** Its integral coefficient, >= 0. Default 1. ERR_RANGE. */
  icoeff?: number | undefined;
  /** Its derivative coefficient, >= 0. Default 0. ERR_RANGE. */
  dcoeff?: number | undefined;
  /** A step is accepted where the controller's factor is at least this, > 0 and at most 1. Default 0.81. ERR_RANGE. */
  acceptSafety?: number | undefined;
}

/** Where a row stands. Each row has its own position. */
export type DpmAdaptivePosition = {
  /** -ln of the sigma from which the present step goes. */
  t: number;
  /** The length of the step in t, as the controller proposes it. */
  h: number;
  /** The next network call of the step: 0, 1 (, 2). After a rejection: -1, back to the x of call 1; -2, back to that of call 0. */
  call: number;
  /** How often the step was rejected since its call 0. */
  again: number;
  /** 1 / error of the last two accepted steps, the controller's memory. Empty before the first error. */
  errors: number[];
  /** Steps accepted and rejected so far. */
  accepted: number;
  rejected: number;
};

/** The run is over where t is this close to its end. */
const near = 1e-5;
/** A shorter step than this is not tried: the network's output is no smooth function. */
const shortest = 1e-9;

/**
 * DPM-Solver with error control (Lu et al. 2022, arXiv 2206.00927), over t = -ln sigma and eps = (x - D) / sigma. Each row has
 * its own steps. The solver uses the first and the last level only, and ends with D, which is one call more than k-diffusion
 * makes. After a rejection it uses eps of the step's start again, for which k-diffusion calls the network again.
 * Source: k-diffusion, sample_dpm_adaptive.
 */
export function dpmAdaptive(options: DpmAdaptiveOptions = {}): Solver<DpmAdaptivePosition> {
  const keys = ['order', 'rtol', 'atol', 'hInit', 'pcoeff', 'icoeff', 'dcoeff', 'acceptSafety'];
  assertKnown('dpm_adaptive', options, keys);
  const order = integer(options.order, 'order', 2, 3, 3);
  const rtol = nonNegative(options.rtol, 'rtol', 0.05);
  const atol = positive(options.atol, 'atol', 0.0039);
  const hInit = positive(options.hInit, 'hInit', 0.05);
  if (hInit < shortest) throw new ScoreSdeError('ERR_RANGE', `hInit must be at least ${shortest}, got ${hInit}`);
  const pcoeff = nonNegative(options.pcoeff, 'pcoeff', 0);
  const icoeff = nonNegative(options.icoeff, 'icoeff', 1);
  const dcoeff = nonNegative(options.dcoeff, 'dcoeff', 0);
  const acceptSafety = positive(options.acceptSafety, 'acceptSafety', 0.81);
  // The factor of a step whose error is its tolerance is 1: no step would be accepted for long.
  if (acceptSafety > 1) throw new ScoreSdeError('ERR_RANGE', `acceptSafety must be at most 1, got ${acceptSafety}`);

  const end = ({ sigma }: Levels) => -Math.log(sigma[sigma.length - 1]!);
  const isOver = (levels: Levels, { call, t }: DpmAdaptivePosition) => call === 0 && t >= end(levels) - near;
  /** Rejections after which b, of seven at most, no longer reaches back to eps of call 0: that call is then made again. */
  const most = Math.floor(6 / (order - 1)) - 1;

  /** The PID controller: the factor of the next step's length, from 1 / error of this step and of the two accepted before. */
  const factorOf = (inverse: number, [first = inverse, second = inverse]: readonly number[]): number => {
    const p = (pcoeff + icoeff + dcoeff) / order;
    const i = -(pcoeff + 2 * dcoeff) / order;
    const d = dcoeff / order;
    return 1 + Math.atan(inverse ** p * first ** i * second ** d - 1);
  };

  const stage = (levels: Levels, at: DpmAdaptivePosition): Stage => {
    const { t, call, again, accepted: step } = at;
    const sigma = Math.exp(-t);
    const h = Math.min(end(levels), t + at.h) - t;
    const level = (r: number) => Math.exp(-(t + r * h));
    const made = (r: number, update: Omit<LinearUpdate, 'kind' | 'e' | 'of'>): Stage => ({
      step,
      sigma: level(r),
      update: { kind: 'linear', e: 0, of: 'noise', ...update },
      draws: 0,
      endsStep: call === order - 1 || isOver(levels, at),
    });
    // D = x - sigma eps. As the only call of a run it is the same with a centred start.
    if (isOver(levels, at)) return made(0, { a: 1, b: [-sigma] });

    // Each state of the step is x plus weights of eps, eps1, eps2, those of its calls 0, 1, 2.
    const r1 = order === 2 ? 1 / 2 : 1 / 3;
    const r2 = 2 / 3;
    const first = (r: number) => -level(r) * Math.expm1(r * h);
    const curve = (r: number) => -level(r) * (Math.expm1(r * h) / (r * h) - 1);
    const x1 = [first(r1)]; // DPM-Solver-1 to r1
    const k = (r2 / r1) * curve(r2);
    const x2 = [first(r2) - k, k];
    const one = [first(1)]; // DPM-Solver-1
    const w = first(1) / (2 * r1);
    const two = [first(1) - w, w]; // DPM-Solver-2
    const third = curve(1) / r2;
    const three = [first(1) - third, 0, third]; // DPM-Solver-3

    // b[0] is the newest call, and eps the oldest that is read. Rejections lie between.
    const oldest = (call === -1 ? 1 : call) + (order - 1) * again;
    const isCentred = step === 0 && levels.centred;
    const from = ([eps, ...others]: readonly number[]): { b: number[]; base: number } => {
      const b = new Array<number>(oldest + 1).fill(0);
      others.forEach((weight, j) => (b[call - 1 - j] = weight));
      // The centred start puts X0 + D in place of x. Its eps is X0 / sigma, and D = X0 - sigma eps.
      b[oldest]! += isCentred ? -sigma : eps!;
      return { b, base: isCentred ? 2 + eps! / sigma : 1 };
    };

    if (call === -2) return { ...made(0, { a: 0, b: [], base: 1 }), calls: false };
    if (call === -1) return { ...made(0, { a: 0, ...from(x1) }), calls: false };
    if (call === 0) {
      const { b, base } = from(x1);
      return made(0, { a: base, b, marks: true }); // x is X0
    }
    if (order === 2) return made(r1, { a: 0, ...from(two), low: from(one) });
    if (call === 1) return made(r1, { a: 0, ...from(x2) });
    return made(r2, { a: 0, ...from(three), low: from(two) });
  };

  return {
    name: 'dpm_adaptive',
    options: Object.freeze({ order, rtol, atol, hInit, pcoeff, icoeff, dcoeff, acceptSafety }),
    grid: 'karras',
    centred: true,
    stochastic: false,
    history: 6,
    tolerance: { rtol, atol },
    calls: () => undefined,
    start(levels) {
      assertDecreasing(levels, 'dpm_adaptive');
      if (levels.sigma.length < 2)
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `solver 'dpm_adaptive' needs two noise levels, got ${levels.sigma[0]} alone`,
        );
      return { t: -Math.log(levels.sigma[0]!), h: hInit, call: 0, again: 0, errors: [], accepted: 0, rejected: 0 };
    },
    restore(levels, saved) {
      const at = saved as DpmAdaptivePosition;
      const isSound =
        isPlainObject(saved) &&
        [at.t, at.h].every(Number.isFinite) &&
        at.h > 0 &&
        at.t <= end(levels) &&
        [at.call, at.again, at.accepted, at.rejected].every(Number.isInteger) &&
        at.call >= -2 &&
        at.call < order &&
        at.again >= 0 &&
        at.again <= most &&
        at.accepted >= 0 &&
        at.rejected >= 0 &&
        Array.isArray(at.errors) &&
        [0, 2].includes(at.errors.length) &&
        at.errors.every((value) => Number.isFinite(value) && value > 0);
      if (!isSound)
        throw new ScoreSdeError('ERR_CONFIG', `a position of solver 'dpm_adaptive' was expected, got ${show(saved)}`);
      return at;
    },
    stage,
    next(levels, at, error) {
      if (isOver(levels, at)) return undefined;
      const { t, h, call, again, accepted, rejected } = at;
      if (call === -2) return { ...at, call: 0 };
      if (call === -1) return { ...at, call: 1 };
      if (call < order - 1) return { ...at, call: call + 1 };
      if (!Number.isFinite(error))
        throw new ScoreSdeError('ERR_NON_FINITE', `the error of an adaptive step is not finite, got ${show(error)}`);
      const inverse = 1 / (error! + 1e-8);
      const [last = inverse, before = inverse] = at.errors;
      const factor = factorOf(inverse, at.errors);
      if (factor >= acceptSafety) {
        const errors = [inverse, last];
        return {
          t: Math.min(end(levels), t + h),
          h: h * factor,
          call: 0,
          again: 0,
          errors,
          accepted: accepted + 1,
          rejected,
        };
      }
      if (!(h * factor > shortest))
        throw new ScoreSdeError(
          'ERR_NON_FINITE',
          `the error of an adaptive step stays above its tolerance at sigma ${Math.exp(-t)}, however short the step`,
        );
      const back = again < most ? { call: -1, again: again + 1 } : { call: -2, again: 0 };
      return { t, h: h * factor, ...back, errors: [last, before], accepted, rejected: rejected + 1 };
    },
  };
}
