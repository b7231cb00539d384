import type { Levels, Update } from './solver';

/** The names of the paper's predictors. */
export const predictorNames = [
  'reverse_diffusion',
  'euler_maruyama',
  'ancestral_sampling',
  'probability_flow',
  'none',
] as const;
export type PredictorName = (typeof predictorNames)[number];

/** An update and the draws that it takes. */
export interface Part {
  readonly update: Update;
  readonly draws: 0 | 1;
}

/**
 * The update of step i. sigma and sigma' are the table's levels, G^2 = sigma^2 - sigma'^2; the score is that at the level
 * that the network is told. `compat`: as yang-song/score_sde does it, draws included.
 */
export type Predictor = (levels: Levels, i: number, compat: boolean) => Part;

/** x' = x + k score + e z, with D in place of the score: score = (D - x) / label^2. */
function alongScore(label: number, k: number, e: number): Update {
  const w = k / label ** 2;
  return { kind: 'linear', a: 1 - w, b: [w], e };
}

/** Discretises the reverse SDE as the forward one: x' = x + G^2 score + G z (eq. 46), in the reference's bits. */
const reverseDiffusion: Predictor = ({ sigma, next }, i) => ({
  update: { kind: 'reverseDiffusion', sigma: sigma[i]!, next: next[i]! },
  draws: 1,
});

/**
 * x' = x + g^2 score h + g sqrt(h) z with g^2 = 2 sigma(t)^2 ln(sigmaMax / sigmaMin), h = t_i - t_i+1. The last step is
 * Tweedie's formula: x' = x + sigma(t)^2 score = D. score_sde takes h = 1 / N in all steps, and does not denoise.
 */
const eulerMaruyama: Predictor = ({ label, time, sigmaMin, sigmaMax, total }, i, compat) => {
  const s = label[i]!;
  if (!compat && i === label.length - 1) return { update: { kind: 'linear', a: 0, b: [1], e: 0 }, draws: 0 };
  const h = compat ? 1 / total : time[i]! - time[i + 1]!;
  const k = 2 * s ** 2 * Math.log(sigmaMax / sigmaMin) * h;
  return { update: alongScore(s, k, Math.sqrt(k)), draws: 1 };
};

/** Ancestral sampling of the SMLD chain (eq. 47): x' = x + G^2 score + sqrt(sigma'^2 G^2 / sigma^2) z. */
const ancestralSampling: Predictor = ({ sigma, next, label }, i, compat) => {
  const s = sigma[i]!;
  const to = next[i]!;
  const G2 = s ** 2 - to ** 2;
  const e = (to / s) * Math.sqrt(G2);
  return { update: alongScore(label[i]!, G2, e), draws: e > 0 || compat ? 1 : 0 };
};

/** Reverse diffusion of the probability flow ODE (eq. 13): x' = x + G^2 score / 2. score_sde draws noise and does not use it. */
const probabilityFlow: Predictor = ({ sigma, next, label }, i, compat) => ({
  update: alongScore(label[i]!, (sigma[i]! ** 2 - next[i]! ** 2) / 2, 0),
  draws: compat ? 1 : 0,
});

/** The paper's predictors by name; 'none' has no update. */
export const predictors: Readonly<Record<Exclude<PredictorName, 'none'>, Predictor>> = {
  reverse_diffusion: reverseDiffusion,
  euler_maruyama: eulerMaruyama,
  ancestral_sampling: ancestralSampling,
  probability_flow: probabilityFlow,
};

/** The denoising step after a corrector: x' = x + sigma^2 score with the table's lowest sigma. */
export function denoise({ sigma, label }: Levels, i: number): Part {
  return { update: alongScore(label[i]!, sigma[i]! ** 2, 0), draws: 0 };
}
