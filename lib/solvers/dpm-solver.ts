import { assertKnown, nonNegative, oneOf } from './options';
import type { Solver } from './solver';
import { stepwise, type Row } from './staged';

export interface Dpmpp3mSdeOptions {
  /** How much noise a step adds, >= 0: 1 is the reverse SDE, 0 the ODE. Default 1. ERR_RANGE. */
  eta?: number | undefined;
  /** Factor of the noise, >= 0. Default 1. ERR_RANGE. */
  sNoise?: number | undefined;
}

export interface Dpmpp2mSdeOptions extends Dpmpp3mSdeOptions {
  /** The form of the second-order term. Default 'midpoint'. ERR_CONFIG. */
  solverType?: 'midpoint' | 'heun' | undefined;
}

/** What the solvers of this file share, over h = ln(s / s') and H = h (1 + eta). */
function step(s: number, to: number, eta: number, sNoise: number) {
  const h = Math.log(s / to);
  const H = h * (1 + eta);
  const m = -Math.expm1(-H);
  return { h, H, m, a: Math.exp(-H), e: to * Math.sqrt(-Math.expm1(-2 * h * eta)) * sNoise };
}

/** The step to 0 gives D. */
const last: Row = { a: 0, b: [1] };

/** DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095): D as a line in ln sigma, no noise. Source: k-diffusion, sample_dpmpp_2m. */
export function dpmpp2m(options: Record<string, never> = {}): Solver {
  assertKnown('dpmpp_2m', options, []);
  return secondOrder('dpmpp_2m', {}, 0, 0, 'midpoint');
}

/** DPM-Solver++(2M) SDE, in the forms 'midpoint' and 'heun' (diffusers: `algorithm_type` sde-dpmsolver++). Source: k-diffusion, sample_dpmpp_2m_sde. */
export function dpmpp2mSde(options: Dpmpp2mSdeOptions = {}): Solver {
  assertKnown('dpmpp_2m_sde', options, ['eta', 'sNoise', 'solverType']);
  const eta = nonNegative(options.eta, 'eta', 1);
  const sNoise = nonNegative(options.sNoise, 'sNoise', 1);
  const solverType = oneOf(options.solverType, 'solverType', ['midpoint', 'heun'] as const, 'midpoint');
  return secondOrder('dpmpp_2m_sde', { eta, sNoise, solverType }, eta, sNoise, solverType);
}

function secondOrder(
  name: string,
  options: Solver['options'],
  eta: number,
  sNoise: number,
  solverType: 'midpoint' | 'heun',
): Solver {
  return stepwise({
    name,
    options,
    stochastic: eta > 0 && sNoise > 0,
    history: 1,
    row({ sigma, next }, i) {
      const s = sigma[i]!;
      if (next[i] === 0) return last;
      const { h, H, m, a, e } = step(s, next[i]!, eta, sNoise);
      if (i === 0) return { a, b: [m], e };
      const r0 = Math.log(sigma[i - 1]! / s) / h;
      const k = (solverType === 'heun' ? 1 - m / H : m / 2) / r0;
      return { a, b: [m + k, -k], e };
    },
  });
}

/**
 * DPM-Solver++(3M) SDE. The published second difference lacks the factor 2 of a second derivative, so the order of its ODE
 * is 2; kept, so that the numbers are the published ones. Source: k-diffusion, sample_dpmpp_3m_sde.
 */
export function dpmpp3mSde(options: Dpmpp3mSdeOptions = {}): Solver {
  assertKnown('dpmpp_3m_sde', options, ['eta', 'sNoise']);
  const eta = nonNegative(options.eta, 'eta', 1);
  const sNoise = nonNegative(options.sNoise, 'sNoise', 1);
  return stepwise({
    name: 'dpmpp_3m_sde',
    options: { eta, sNoise },
    stochastic: eta > 0 && sNoise > 0,
    history: 2,
    row({ sigma, next }, i) {
      const s = sigma[i]!;
      if (next[i] === 0) return last;
      const { h, H, m, a, e } = step(s, next[i]!, eta, sNoise);
      if (i === 0) return { a, b: [m], e };
      const r0 = Math.log(sigma[i - 1]! / s) / h;
      const f2 = 1 - m / H;
      if (i === 1) return { a, b: [m + f2 / r0, -f2 / r0], e };
      // x' = a x + m D + f2 d1 - f3 d2, over d1_0 = (D - D1) / r0 and d1_1 = (D1 - D2) / r1:
      // d1 = d1_0 + (d1_0 - d1_1) q and d2 = (d1_0 - d1_1) / (r0 + r1)
      const r1 = Math.log(sigma[i - 2]! / sigma[i - 1]!) / h;
      const f3 = f2 / H - 0.5;
      const q = r0 / (r0 + r1);
      const k0 = (f2 * (1 + q) - f3 / (r0 + r1)) / r0;
      const k1 = (f2 * q - f3 / (r0 + r1)) / r1;
      return { a, b: [m + k0, -k0 - k1, k1], e };
    },
  });
}
