import { maxSteps } from './grids';
import { integer } from './options';

/** The calls of a run that names a solver of few calls, and no number. */
export const usualCalls = 20;

/** The solver and the grid that `calls: n` stands for. */
export interface Preset {
  /** The solver's name. */
  readonly solver: 'er_sde';
  /** Its options. */
  readonly options: { readonly order: 3; readonly eta: number };
  /** How the noise levels lie. */
  readonly grid: 'karras';
  /** The exponent of the grid. */
  readonly rho: number;
  /** Whether the start is centred. */
  readonly centred: true;
}

/**
 * What makes the best sample of n network calls, n from 1 to 2^24 (rough below 5). ERR_RANGE.
 *
 * er_sde, because its extrapolation in sigma had the least error on exact scores at 8 to 20 calls, and on the built-in
 * network the least Frechet distance. Noise (eta 1) corrects a network's errors: at 10 calls of the built-in network the
 * distance is 7.6 with eta 1, 8.6 with 0.5, 9.4 with 0. Below 7 calls noise and the large steps do not go together, and more
 * levels at high sigma (rho 5) help: at 5 calls 11.7, against 16.4 with eta 1 and rho 7. On exact scores eta 0 is better below
 * some 20 calls: a network that is known to be good may take eta 0. The rule was chosen on one small network, with distances by
 * another classifier than that of docs/quality.md.
 */
export function preset(calls: number): Preset {
  const few = integer(calls, 'calls', 1, maxSteps) < 7;
  return {
    solver: 'er_sde',
    options: { order: 3, eta: few ? 0.5 : 1 },
    grid: 'karras',
    rho: few ? 5 : 7,
    centred: true,
  };
}
