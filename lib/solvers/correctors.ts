import type { StepSize } from '../native/abi';
import type { Part } from './predictors';
import type { Levels } from './solver';

/** The names of the paper's correctors. */
export const correctorNames = ['langevin', 'ald', 'none'] as const;
export type CorrectorName = (typeof correctorNames)[number];

/** The rules of the corrector's step. */
export const stepSizes = ['batch', 'sample', 'dim', 'ald'] as const satisfies readonly StepSize[];

/**
 * Langevin dynamics (Algorithm 4): x' = x + step score + sqrt(2 step) z. step = 2 (snr |z| / |score|)^2 with the norms as
 * `stepSize` says; 'ald', annealed Langevin dynamics: step = 2 (snr sigma(t))^2.
 */
export function langevin({ label }: Levels, i: number, snr: number, stepSize: StepSize): Part {
  return { update: { kind: 'langevin', snr, stepSize, sigma: label[i]! }, draws: 1 };
}
