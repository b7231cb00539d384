import { ScoreSdeError } from '../errors';
import { isPlainObject, show } from '../options';
import { assertKnown, integer, nonNegative, positive } from './options';
import type { Levels, LinearUpdate, Solver, Stage } from './solver';

export interface DpmAdaptiveOptions {
  /** 2 or 3: DPM-Solver-12 or DPM-Solver-23, the error being measured against one order less. Default 3. ERR_RANGE. */
  order?: number;
  /** Error that a step may have, as a part of |x|, >= 0. Default 0.05. ERR_RANGE. */
  rtol?: number;
  /** Error that a step may have in any case, > 0. Default 0.0039, half a grey level of data in [0, 1]; k-diffusion's .0078 is for [-1, 1]. ERR_RANGE. */
  atol?: number;
  /** The first step in -ln sigma, > 0. Default 0.05. ERR_RANGE. */
  hInit?: number;
  /** Coefficients of the PID controller of the step, >= 0. Defaults 0, 1, 0. ERR_RANGE. */
  pcoeff?: number;
  icoeff?: number;
  dcoeff?: number;
  /** A step is accepted where the controller's factor is at least this, > 0. Default 0.81. ERR_RANGE. */
  acceptSafety?: number;
}

/** Where a row stands. Each row has its own. */
export type DpmAdaptivePosition = {
  /** -ln of the sigma that x is at, or was at before the step that is under way. */
  t: number;
  /** The step's size in t that the controller proposes. */
  h: number;
  /** The next stage: call 0, 1 (, 2) of the step; -1: back from a rejected step to its call 1; -2: back to its call 0. */
  call: number;
  /** Rejections since eps was asked for at x. */
  again: number;
  /** 1 / error of the last accepted steps, the controller's memory; empty before the first. */
  errors: number[];
  accepted: number;
  rejected: number;
};

/** Where the run is over: t this close to its end. */
const near = 1e-5;
/** Below this the step is not made smaller: the network gives no smooth function. */
const smallest = 1e-9;

/**
 * DPM-Solver with error control (Lu et al. 2022, arXiv 2206.00927), on t = -ln sigma and eps = (x - D) / sigma, a row with
 * steps of its own. It uses the first and the last of the levels, decides on the steps between, and ends with D, one call
 * more than k-diffusion makes. After a rejection it keeps eps at x, where k-diffusion asks for it again.
 * Source: k-diffusion, sample_dpm_adaptive.
 */
export function dpmAdaptive(options: DpmAdaptiveOptions = {}): Solver<DpmAdaptivePosition> {
  const keys = ['order', 'rtol', 'atol', 'hInit', 'pcoeff', 'icoeff', 'dcoeff', 'acceptSafety'];
  assertKnown('dpm_adaptive', options, keys);
  const order = integer(options.order, 'order', 2, 3, 3);
  const rtol = nonNegative(options.rtol, 'rtol', 0.05);
  const atol = positive(options.atol, 'atol', 0.0039);
  const hInit = positive(options.hInit, 'hInit', 0.05);
  const pcoeff = nonNegative(options.pcoeff, 'pcoeff', 0);
  const icoeff = nonNegative(options.icoeff, 'icoeff', 1);
  const dcoeff = nonNegative(options.dcoeff, 'dcoeff', 0);
  const acceptSafety = positive(options.acceptSafety, 'acceptSafety', 0.81);

  const end = ({ sigma }: Levels) => -Math.log(sigma[sigma.length - 1]!);
  /** How often a step is made again from the same eps: as long as seven b's reach back to it. */
  const kept = Math.floor(6 / (order - 1)) - 1;

  const controller = {
    exponents: [(pcoeff + icoeff + dcoeff) / order, -(pcoeff + 2 * dcoeff) / order, dcoeff / order],
    /** The factor of the next step and the memory of the errors where the step is accepted. */
    propose(errors: number[], error: number): { factor: number; memory: number[] } {
      const inverse = 1 / (error + 1e-8);
      const [, second = inverse, third = inverse] = errors;
      const memory = [inverse, second, third];
      const product = this.exponents.reduce((value, exponent, k) => value * memory[k]! ** exponent, 1);
      return { factor: 1 + Math.atan(product - 1), memory: [inverse, inverse, second] };
    },
  };

  const stage = (levels: Levels, at: DpmAdaptivePosition): Stage => {
    const { t, call, again, accepted: step } = at;
    const sigma = Math.exp(-t);
    if (call === 0 && t >= end(levels) - near) {
      // D = x - sigma eps. Where this is the first call, the centred start has the same D.
      return {
        step,
        sigma,
        update: { kind: 'linear', a: 1, b: [-sigma], e: 0, of: 'noise' },
        draws: 0,
        endsStep: true,
      };
    }
    const h = Math.min(end(levels), t + at.h) - t;
    const at1 = 1 / (order === 2 ? 2 : 3);
    const at2 = 2 / 3;
    const level = (r: number) => Math.exp(-(t + r * h));
    /** u1 = x + euler(1st place) eps, the step of first order. */
    const euler = (r: number) => -level(r) * Math.expm1(r * h);
    /** (expm1(r h) / (r h) - 1), of the second difference. */
    const curve = (r: number) => Math.expm1(r * h) / (r * h) - 1;

    /** x + w eps + ...: the parts of eps, which is `back` calls old, of x and of other calls. */
    const combine = (w: number, back: number, others: number[] = []): { base: number; b: number[] } => {
      const b = Array.from({ length: Math.max(back + 1, others.length) }, (_, j) => others[j] ?? 0);
      // The centred start: x + D is x, and its eps is X0 / sigma; D = X0 - sigma eps.
      const centred = step === 0 && levels.centred;
      b[back]! += centred ? -sigma : w;
      return { base: centred ? 2 + w / sigma : 1, b };
    };
    const linear = (update: Omit<LinearUpdate, 'kind' | 'a' | 'e' | 'of'>): LinearUpdate => ({
      kind: 'linear',
      a: 0,
      e: 0,
      of: 'noise',
      ...update,
    });
    const made = (sigma: number, update: LinearUpdate): Stage => ({
      step,
      sigma,
      update,
      draws: 0,
      endsStep: call === order - 1,
    });

    if (call === -2) return { ...made(sigma, linear({ base: 1, b: [] })), calls: false };
    if (call === -1) return { ...made(sigma, linear(combine(euler(at1), 1 + (order - 1) * again))), calls: false };
    if (call === 0) {
      const { base: a, b } = combine(euler(at1), 0);
      return made(sigma, { ...linear({ b, marks: true }), a });
    }
    const back = call + (order - 1) * again;
    // The midpoint step: x + euler(1) eps + euler(1) / (2 r1) (eps1 - eps).
    const w = euler(1) / (2 * at1);
    if (order === 2) {
      return made(level(at1), {
        ...linear(combine(euler(1) - w, back, [w])),
        low: combine(euler(1), back),
      });
    }
    if (call === 1) {
      const k = (-level(at2) * at2 * curve(at2)) / at1;
      return made(level(at1), linear(combine(euler(at2) - k, back, [k])));
    }
    const k = (-level(1) * curve(1)) / at2;
    return made(level(at2), {
      ...linear(combine(euler(1) - k, back, [k])),
      low: combine(euler(1) - w, back, [0, w]),
    });
  };

  return {
    name: 'dpm_adaptive',
    options: { order, rtol, atol, hInit, pcoeff, icoeff, dcoeff, acceptSafety },
    grid: 'karras',
    centred: true,
    stochastic: false,
    history: 6,
    tolerance: { rtol, atol },
    calls: () => undefined,
    start: ({ sigma }) => ({
      t: -Math.log(sigma[0]!),
      h: hInit,
      call: 0,
      again: 0,
      errors: [],
      accepted: 0,
      rejected: 0,
    }),
    restore: (_levels, saved) => restored(saved, order),
    stage,
    next(levels, at, error) {
      const { t, h, call, again, accepted, rejected } = at;
      if (call === 0 && t >= end(levels) - near) return undefined;
      if (call < order - 1) return { ...at, call: call === -2 ? 0 : call === -1 ? 1 : call + 1 };
      if (!Number.isFinite(error))
        throw new ScoreSdeError('ERR_NON_FINITE', `the error of an adaptive step is not finite, got ${show(error)}`);
      const { factor, memory } = controller.propose(at.errors, error!);
      if (factor >= acceptSafety)
        return {
          t: Math.min(end(levels), t + h),
          h: h * factor,
          call: 0,
          again: 0,
          errors: memory,
          accepted: accepted + 1,
          rejected,
        };
      if (!(h * factor > smallest))
        throw new ScoreSdeError(
          'ERR_NON_FINITE',
          `the error of an adaptive step stays above its tolerance at sigma ${Math.exp(-t)}, however small the step`,
        );
      const asks = again === kept;
      return {
        t,
        h: h * factor,
        call: asks ? -2 : -1,
        again: asks ? 0 : again + 1,
        // The controller's memory begins with the first error, accepted or not.
        errors: at.errors.length > 0 ? at.errors : [memory[0]!, memory[0]!, memory[0]!],
        accepted,
        rejected: rejected + 1,
      };
    },
  };
}

function restored(saved: unknown, order: number): DpmAdaptivePosition {
  const at = saved as DpmAdaptivePosition;
  const isSound =
    isPlainObject(saved) &&
    [at.t, at.h, at.call, at.again, at.accepted, at.rejected].every(Number.isFinite) &&
    [at.call, at.again, at.accepted, at.rejected].every(Number.isInteger) &&
    at.h > 0 &&
    at.call >= -2 &&
    at.call < order &&
    [at.again, at.accepted, at.rejected].every((count) => count >= 0) &&
    at.again <= 5 &&
    Array.isArray(at.errors) &&
    [0, 3].includes(at.errors.length) &&
    at.errors.every((value) => Number.isFinite(value) && value > 0);
  if (!isSound)
    throw new ScoreSdeError('ERR_CONFIG', `a position of solver "dpm_adaptive" was expected, got ${show(saved)}`);
  return at;
}
