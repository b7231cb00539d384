import { assertKnown, nonNegative } from './options';
import type { Solver } from './solver';
import { stepwise } from './staged';

/** Euler's method for the ODE dx/dsigma = (x - D) / sigma; also DDIM. Source: k-diffusion, sample_euler; EDM, Algorithm 2 without its correction. */
export function euler(options: Record<string, never> = {}): Solver {
  assertKnown('euler', options, []);
  return stepwise({
    name: 'euler',
    options: {},
    stochastic: false,
    history: 0,
    row({ sigma, next }, i) {
      const ratio = next[i]! / sigma[i]!;
      return { a: ratio, b: [1 - ratio] };
    },
  });
}

export interface EulerAncestralOptions {
  /** How much noise a step adds, >= 0: 1 is the reverse SDE, 0 the ODE. Default 1. ERR_RANGE. */
  eta?: number | undefined;
  /** Factor of the noise, >= 0. Default 1. ERR_RANGE. */
  sNoise?: number | undefined;
}

/**
 * A step of the ODE down to sigma_down, and noise sigma_up back to sigma'. With eta 1 it is the paper's ancestral predictor
 * (eq. 47). Source: k-diffusion, sample_euler_ancestral.
 */
export function eulerAncestral(options: EulerAncestralOptions = {}): Solver {
  assertKnown('euler_ancestral', options, ['eta', 'sNoise']);
  const eta = nonNegative(options.eta, 'eta', 1);
  const sNoise = nonNegative(options.sNoise, 'sNoise', 1);
  return stepwise({
    name: 'euler_ancestral',
    options: { eta, sNoise },
    stochastic: eta > 0 && sNoise > 0,
    history: 0,
    row({ sigma, next }, i) {
      const s = sigma[i]!;
      const to = next[i]!;
      const up = Math.min(to, eta * to * Math.sqrt(1 - (to / s) ** 2));
      const down = Math.sqrt(to ** 2 - up ** 2);
      return { a: down / s, b: [1 - down / s], e: up * sNoise };
    },
  });
}
