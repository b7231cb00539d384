import { assertKnown, integer } from './options';
import type { Solver } from './solver';
import { stepwise } from './staged';

export interface MultistepOptions {
  /** 1 to 4: how many of the last eps the steps use. Default 4. ERR_RANGE. */
  order?: number | undefined;
}

/**
 * Linear multistep: eps = (x - D) / sigma as a polynomial in sigma, integrated exactly (variable-step Adams-Bashforth; DEIS
 * rhoAB). Source: k-diffusion, sample_lms.
 */
export function lms(options: MultistepOptions = {}): Solver {
  assertKnown('lms', options, ['order']);
  const order = integer(options.order, 'order', 1, 4, 4);
  return stepwise({
    name: 'lms',
    options: { order },
    stochastic: false,
    history: order - 1,
    of: 'noise',
    row({ sigma, next }, i) {
      const s = Array.from({ length: Math.min(i + 1, order) }, (_, j) => sigma[i - j]!);
      // Gauss's rule of two nodes is exact for the polynomials, whose degree is 3 at most.
      const middle = (next[i]! + s[0]!) / 2;
      const half = (next[i]! - s[0]!) / 2;
      const lagrange = (u: number, j: number) =>
        s.reduce((product, sk, k) => (k === j ? product : (product * (u - sk)) / (s[j]! - sk)), 1);
      const integral = (j: number) =>
        half * (lagrange(middle - half / Math.sqrt(3), j) + lagrange(middle + half / Math.sqrt(3), j));
      return { a: 1, b: s.map((_, j) => integral(j)) };
    },
  });
}

/** Adams-Bashforth's weights of equal steps, by order. */
const adamsBashforth = [[1], [3, -1], [23, -16, 5], [55, -59, 37, -9]].map((weights) => {
  const sum = weights.reduce((total, weight) => total + weight);
  return weights.map((weight) => weight / sum);
});

/**
 * iPNDM: Adams-Bashforth of eps = (x - D) / sigma with the weights of equal steps, whatever the steps (Zhang and Chen 2022,
 * arXiv 2204.13902). The last step gives D. Source: diff-sampler, ipndm_sampler with denoise_to_zero.
 */
export function ipndm(options: MultistepOptions = {}): Solver {
  assertKnown('ipndm', options, ['order']);
  const order = integer(options.order, 'order', 1, 4, 4);
  return stepwise({
    name: 'ipndm',
    options: { order },
    stochastic: false,
    history: order - 1,
    of: 'noise',
    row({ sigma, next, label }, i) {
      if (next[i] === 0) return { a: 1, b: [-label[i]!] };
      return { a: 1, b: adamsBashforth[Math.min(i + 1, order) - 1]!.map((weight) => weight * (next[i]! - sigma[i]!)) };
    },
  });
}
