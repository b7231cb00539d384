import { assertKnown, integer, nonNegative } from './options';
import type { Solver } from './solver';
import { stepwise } from './staged';

export interface ErSdeOptions {
  /** 1, 2 or 3: the degree of D as a polynomial in sigma, plus 1. Default 3. ERR_RANGE. */
  order?: number | undefined;
  /**
   * The noise scale phi. A number >= 0: phi(sigma) = sigma^(1 + eta), where 0 gives the ODE and 1 the reverse SDE of the
   * paper. 'authors': phi(sigma) = sigma (exp(sigma^0.3) + 10), the default of the method's authors, which depends on the
   * unit of the data. Default 1. ERR_RANGE.
   */
  eta?: number | 'authors' | undefined;
  /** Factor of the noise, >= 0. Default 1. ERR_RANGE. */
  sNoise?: number | undefined;
}

/** Points of the integrals over phi, as in the authors' code. */
const points = 100;

/**
 * Extended reverse-time SDE solver (Cui et al. 2023, arXiv 2309.06169), VE form, by the authors' code. D is extrapolated as
 * a polynomial in sigma, not in ln sigma.
 */
export function erSde(options: ErSdeOptions = {}): Solver {
  assertKnown('er_sde', options, ['order', 'eta', 'sNoise']);
  const order = integer(options.order, 'order', 1, 3, 3);
  const eta = options.eta === 'authors' ? options.eta : nonNegative(options.eta, 'eta', 1);
  const sNoise = nonNegative(options.sNoise, 'sNoise', 1);
  const phi = (sigma: number) => sigma * (Math.exp(sigma ** 0.3) + 10);
  /** phi(to) / phi(from) */
  const ratio = (to: number, from: number) => (eta === 'authors' ? phi(to) / phi(from) : (to / from) ** (1 + eta));
  /** next^2 - sigma^2 ratio^2, which is >= 0; for a number eta in the form that does not cancel. */
  const variance = (to: number, s: number) =>
    eta === 'authors'
      ? Math.max(0, to ** 2 - (s * ratio(to, s)) ** 2)
      : -(to ** 2) * Math.expm1(2 * eta * Math.log(to / s));

  return stepwise({
    name: 'er_sde',
    options: { order, eta, sNoise },
    stochastic: eta !== 0 && sNoise > 0,
    history: order - 1,
    row({ sigma, next }, i) {
      const s = sigma[i]!;
      const to = next[i]!;
      if (to === 0) return { a: 0, b: [1] };
      const r = ratio(to, s);
      const e = Math.sqrt(variance(to, s)) * sNoise;
      const s1 = sigma[i - 1];
      const s2 = sigma[i - 2];
      if (order === 1 || s1 === undefined) return { a: r, b: [1 - r], e };

      // The integrals of phi(to) / phi(u) and of phi(to) (u - s) / phi(u) over u from `to` to s.
      const w = (s - to) / points;
      let integral = 0;
      let moment = 0;
      for (let k = 0; k < points; k++) {
        const u = to + k * w;
        const value = w * ratio(to, u);
        integral += value;
        moment += value * (u - s);
      }
      // + A d1, d1 = (D - D1) / (s - s1)
      const c = (to - s + integral) / (s - s1);
      if (order === 2 || s2 === undefined) return { a: r, b: [1 - r + c, -c], e };
      // + B d2, d2 = 2 (d1 - (D1 - D2) / (s1 - s2)) / (s - s2)
      const k = (2 * ((to - s) ** 2 / 2 + moment)) / (s - s2);
      return {
        a: r,
        b: [1 - r + c + k / (s - s1), -c - k / (s - s1) - k / (s1 - s2), k / (s1 - s2)],
        e,
      };
    },
  });
}
