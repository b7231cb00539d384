import { assertKnown, integer, oneOf } from './options';
import type { Levels, Solver } from './solver';
import { stepwise } from './staged';

export interface UnipcOptions {
  /** 1 to 3. Default 3. ERR_RANGE. */
  order?: number | undefined;
  /** The factor B of the differences of D: 'bh1' is -h, 'bh2' is exp(-h) - 1. Default 'bh2'. ERR_CONFIG. */
  variant?: 'bh1' | 'bh2' | undefined;
  /** Whether the order falls to 1 at the last steps. Default true. ERR_CONFIG. */
  lowerOrderFinal?: boolean | undefined;
}

/**
 * UniPC (Zhao et al. 2023, arXiv 2302.04867), data prediction. The D of a call first corrects the step before it, without a
 * further call, then predicts the next step. The step to the lowest level is not corrected, and the last step gives D.
 * Source: diff-sampler, unipc_sampler with denoise_to_zero, without its clamping of D, which is the model's.
 *
 * The correction starts from the x before the step, which is not kept. Prediction and correction have the same terms in that
 * x, so the corrected x is the present x, which is the prediction, plus the difference of the two sums over D.
 */
export function unipc(options: UnipcOptions = {}): Solver {
  assertKnown('unipc', options, ['order', 'variant', 'lowerOrderFinal']);
  const order = integer(options.order, 'order', 1, 3, 3);
  const variant = oneOf(options.variant, 'variant', ['bh1', 'bh2'] as const, 'bh2');
  const lowerOrderFinal = oneOf(options.lowerOrderFinal, 'lowerOrderFinal', [true, false], true);

  /** Of the step from level i: B, and the place r of each D that it uses, with its weights in prediction and correction. */
  const step = ({ sigma, next }: Levels, i: number) => {
    const h = Math.log(sigma[i]! / next[i]!);
    const B = variant === 'bh1' ? -h : Math.expm1(-h);
    const p = Math.min(order, i + 1, lowerOrderFinal ? sigma.length - 1 - i : Infinity);
    // Places of D1, D2, ... and, last, of the new D, in units of h from level i.
    const r = Array.from({ length: p }, (_, j) => (j === p - 1 ? 1 : Math.log(sigma[i]! / sigma[i - 1 - j]!) / h));
    // Right sides: phi_2, 2 phi_3, 6 phi_4 of -h over B, phi_k+1(x) = (phi_k(x) - 1 / k!) / x.
    const rights: number[] = [];
    let phi = Math.expm1(-h) / -h - 1;
    let factorial = 1;
    for (let k = 1; k <= p; k++) {
      rights.push((phi * factorial) / B);
      factorial *= k + 1;
      phi = phi / -h - 1 / factorial;
    }
    // With one unknown the authors take 1/2 in place of the solution.
    const predict = p === 2 ? [0.5] : vandermonde(r.slice(0, -1), rights.slice(0, -1));
    const correct = p === 1 ? [0.5] : vandermonde(r, rights);
    return { B, r, predict, correct, first: -Math.expm1(-h) };
  };

  return stepwise({
    name: 'unipc',
    options: { order, variant, lowerOrderFinal },
    stochastic: false,
    history: order,
    row(levels, i) {
      const { sigma, next } = levels;
      if (next[i] === 0) return { a: 0, b: [1] };
      const b = new Array<number>(order + 1).fill(0);

      // The step from i - 1: x + sum of weights (D_j - D1) over the D's before D1 (places 2, 3), and the new one (place 0).
      if (i > 0) {
        const { B, r, predict, correct } = step(levels, i - 1);
        r.forEach((rj, j) => {
          const weight = (-B * (correct[j]! - (predict[j] ?? 0))) / rj;
          b[j === r.length - 1 ? 0 : j + 2]! += weight;
          b[1]! -= weight;
        });
      }
      // The step from i: (s' / s) x - expm1(-h) D - B sum of weights (D_j - D).
      const ratio = next[i]! / sigma[i]!;
      const { B, r, predict, first } = step(levels, i);
      b.forEach((bj, j) => (b[j] = ratio * bj));
      b[0]! += first;
      predict.forEach((weight, j) => {
        b[j + 1]! -= (B * weight) / r[j]!;
        b[0]! += (B * weight) / r[j]!;
      });
      return { a: ratio, b: b.slice(0, Math.max(1, Math.min(i + 1, order + 1))) };
    },
  });
}

/** The w of sum_j w_j r_j^k = right_k for k = 0, 1, ...: w_j is the j-th Lagrange polynomial with r^k replaced by right_k. */
function vandermonde(r: readonly number[], right: readonly number[]): number[] {
  return r.map((rj, j) => {
    // Coefficients of the product of (x - r_k) / (r_j - r_k), lowest first.
    let polynomial = [1];
    r.forEach((rk, k) => {
      if (k === j) return;
      const times = (c: number, m: number) => ((polynomial[m - 1] ?? 0) - rk * c) / (rj - rk);
      polynomial = [...polynomial, 0].map(times);
    });
    return polynomial.reduce((sum, c, k) => sum + c * right[k]!, 0);
  });
}
