import { ScoreSdeError } from '../errors';
import type { StepSize } from '../native/abi';
import { show } from '../options';
import { correctorNames, langevin, stepSizes, type CorrectorName } from './correctors';
import { assertKnown, correctorOptions, integer, nonNegative, oneOf } from './options';
import { denoise, predictorNames, predictors, type PredictorName } from './predictors';
import type { Levels, Solver } from './solver';
import { staged } from './staged';

export interface PredictorCorrectorOptions {
  /** Default 'reverse_diffusion'. ERR_CONFIG. */
  predictor?: PredictorName | undefined;
  /** Default 'langevin'. ERR_CONFIG. */
  corrector?: CorrectorName | undefined;
  /** Corrections before each prediction, an integer >= 0; 0 is no corrector. Default 1. ERR_RANGE. */
  correctSteps?: number | undefined;
  /** Signal-to-noise ratio of the corrector's step, >= 0. Default 0.15. ERR_RANGE. */
  snr?: number | undefined;
  /** How 'langevin' measures its step: see `StepOptions`. Default 'batch'. ERR_CONFIG. */
  stepSize?: StepSize | undefined;
  /**
   * 'score_sde': the numbers and draws of yang-song/score_sde where they differ: 'euler_maruyama' with h = 1 / N and without
   * the last denoising; draws that are taken and not used; a corrector alone without the last denoising. ERR_CONFIG.
   */
  compat?: 'score_sde' | undefined;
}

/**
 * Predictor-corrector sampling (Algorithm 1) with any pair: at each level the corrector `correctSteps` times, then the
 * predictor. A corrector without a predictor ends with one denoising call. With fewer calls than the steps take
 * (`Levels.calls`) the last corrections are left out. ERR_CONFIG where both are 'none'.
 */
export function predictorCorrector(options: PredictorCorrectorOptions = {}): Solver {
  assertKnown('pc', options, ['predictor', 'corrector', 'correctSteps', 'snr', 'stepSize', 'compat']);
  const predictor = oneOf(options.predictor, 'predictor', predictorNames, 'reverse_diffusion');
  const corrector = oneOf(options.corrector, 'corrector', correctorNames, 'langevin');
  if (corrector === 'none')
    for (const key of correctorOptions)
      if (options[key] !== undefined)
        throw new ScoreSdeError('ERR_CONFIG', `${key} is an option of a corrector, and the corrector is "none"`);
  if (corrector === 'ald' && options.stepSize !== undefined && options.stepSize !== 'ald')
    throw new ScoreSdeError('ERR_CONFIG', `the corrector "ald" has its own stepSize, got ${show(options.stepSize)}`);
  const correctSteps = corrector === 'none' ? 0 : integer(options.correctSteps, 'correctSteps', 0, maxCorrectSteps, 1);
  const snr = nonNegative(options.snr, 'snr', 0.15);
  const stepSize = corrector === 'ald' ? 'ald' : oneOf(options.stepSize, 'stepSize', stepSizes, 'batch');
  oneOf(options.compat, 'compat', ['score_sde'] as const, 'score_sde');
  const compat = options.compat !== undefined;
  if (predictor === 'none' && correctSteps === 0)
    throw new ScoreSdeError('ERR_CONFIG', 'a solver needs a predictor or a corrector, got "none" for both');

  const predict = predictor === 'none' ? undefined : predictors[predictor];
  const perStep = correctSteps + (predict ? 1 : 0);
  /** Calls beside the corrections: a prediction a step, or the one denoising. */
  const others = (steps: number) => (predict ? steps : compat || steps === 0 ? 0 : 1);
  const corrections = ({ sigma: { length }, calls = Infinity }: Levels) =>
    Math.max(0, Math.min(length * correctSteps, calls - others(length)));
  const count = (levels: Levels) => corrections(levels) + others(levels.sigma.length);
  /** The step of a stage and what it does there. The first steps have all their corrections, one more the rest. */
  const place = (levels: Levels, at: number): { step: number; corrects: boolean } => {
    const left = corrections(levels);
    const whole = correctSteps === 0 ? 0 : Math.floor(left / correctSteps);
    if (at < whole * perStep) return { step: Math.floor(at / perStep), corrects: at % perStep < correctSteps };
    const after = at - whole * perStep - (left - whole * correctSteps);
    if (after < 0) return { step: whole, corrects: true };
    return { step: predict ? whole + after : levels.sigma.length - 1, corrects: false };
  };

  return staged({
    name: 'pc',
    options: {
      predictor,
      corrector,
      ...(corrector === 'none' ? {} : { correctSteps, snr, stepSize }),
      ...(compat ? { compat: 'score_sde' } : {}),
    },
    grid: 'reference',
    centred: false,
    decreasing: false,
    stochastic: correctSteps > 0 || predictor !== 'probability_flow',
    history: 0,
    steps: (calls) => Math.max(1, Math.ceil((predict ? calls : calls - others(1)) / perStep)),
    calls: count,
    stage(levels, at) {
      const { step, corrects } = place(levels, at);
      const part = corrects
        ? langevin(levels, step, snr, stepSize)
        : predict
          ? predict(levels, step, compat)
          : denoise(levels, step);
      const endsStep = at + 1 === count(levels) || place(levels, at + 1).step > step;
      return { step, sigma: levels.label[step]!, ...part, endsStep };
    },
  });
}

/** More corrections a step than any use has; with 2^24 steps their number is still exact. */
const maxCorrectSteps = 2 ** 24;
