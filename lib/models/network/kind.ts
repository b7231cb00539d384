import { ScoreSdeError } from '../../errors';
import { isPlainObject, show } from '../../options';
import type { Parameterization } from '../model';

/**
 * What a network gives, of x at noise level sigma:
 * - 'score': s, the gradient of log p_sigma(x)
 * - 'denoised': D(x; sigma), the denoised estimate (EDM, k-diffusion's denoisers)
 * - 'noise': eps, x = x0 + sigma eps (diffusers' epsilon)
 * - 'v_prediction': v of Salimans and Ho 2022 at alpha = 1 / sqrt(1 + sigma^2), seen x alpha (diffusers)
 */
export type Prediction = 'score' | 'denoised' | 'noise' | 'v_prediction';

/**
 * What a network is told of the noise level:
 * - 'sigma', 'log_sigma', 'log_sigma_quarter': sigma, ln sigma, ln(sigma) / 4 (EDM's c_noise)
 * - 't', or { t: [sigmaMin, sigmaMax] }: the time of the VE SDE, sigma(t) = sigmaMin (sigmaMax / sigmaMin)^t. A
 *   pipeline's folder tells the range, elsewhere it is to be given
 * - { tutorial: s }: the time of the SDE dx = s^t dw, t = ln(1 + 2 sigma^2 ln s) / (2 ln s)
 * - { index: N, sigmas, descending }: the place of the nearest of N levels (SMLD): `sigmas` are the levels in order, or
 *   { geometric: [sigmaMin, sigmaMax] }, or 'geometric' where a pipeline's folder tells the range; index 0 is the highest of
 *   geometric levels unless `descending` is false
 * - { alphasCumprod }: a DDPM's step, by interpolation in ln sigma between sigma_t = sqrt((1 - a_t) / a_t); the network sees
 *   x / sqrt(sigma^2 + 1)
 */
export type Conditioning =
  | 'sigma'
  | 'log_sigma'
  | 'log_sigma_quarter'
  | 't'
  | { readonly t: readonly [sigmaMin: number, sigmaMax: number] }
  | { readonly tutorial: number }
  | {
      readonly index: number;
      readonly sigmas: 'geometric' | { readonly geometric: readonly [number, number] } | readonly number[];
      readonly descending?: boolean | undefined;
    }
  | { readonly alphasCumprod: readonly number[] };

/**
 * Of a raw network F, what stands around it: D = c_skip x + c_out F(c_in x; c_noise), by table 1 of EDM (Karras et al. 2022).
 * 'edm' is { sigmaData: 0.5 }; 've' is c_skip 1, c_out sigma, c_in 1, c_noise ln(sigma / 2).
 */
export type Preconditioning = 'edm' | 've' | { readonly sigmaData: number };

/** What a network is, where it is no score that takes sigma. */
export interface NetworkKind {
  /** What the network gives; 'score' unless given. Not with `preconditioning`. */
  prediction?: Prediction | undefined;
  /** What the network is told of sigma; 'sigma' unless given, or what `preconditioning` says. */
  conditioning?: Conditioning | undefined;
  /** What stands around a raw network. */
  preconditioning?: Preconditioning | undefined;
  /** The values of the data that the network was trained on, which a run's images map to [0, 1]; [0, 1] unless given. */
  dataRange?: readonly [low: number, high: number] | undefined;
}

export const kindOptions = ['prediction', 'conditioning', 'preconditioning', 'dataRange'] as const;

/** A conditioning in which sigmaMin and sigmaMax stand where it leaves them to a pipeline's folder. */
export function ranged(conditioning: Conditioning, range: readonly [sigmaMin: number, sigmaMax: number]): Conditioning {
  if (conditioning === 't') return { t: range };
  if (isPlainObject(conditioning) && 'index' in conditioning && conditioning.sigmas === 'geometric')
    return { ...conditioning, sigmas: { geometric: range } };
  return conditioning;
}

type Coefficients = ReturnType<Parameterization['denoised']>;

const identity = () => 1;
/** alpha of a variance preserving network, whose x is that of a variance exploding one times alpha. */
const alphaOf = (sigma: number) => 1 / Math.sqrt(1 + sigma * sigma);

const predictions: Record<Prediction, (sigma: number) => Coefficients> = {
  score: (sigma) => ({ skip: 1, out: sigma * sigma }),
  denoised: () => ({ skip: 0, out: 1 }),
  noise: (sigma) => ({ skip: 1, out: -sigma }),
  v_prediction: (sigma) => ({ skip: alphaOf(sigma) ** 2, out: -alphaOf(sigma) * sigma }),
};

/** A score that takes sigma. */
export const plain: Parameterization = { denoised: predictions.score, scale: identity, label: (sigma) => sigma };

/**
 * The coefficients of a network's kind; undefined for a score that takes sigma.
 * @param isInteger Whether the network takes whole numbers, to which a DDPM's step is then rounded
 * @throws ScoreSdeError ERR_CONFIG, ERR_RANGE
 */
export function parameterizationOf(kind: NetworkKind, isInteger = false): Parameterization | undefined {
  const { prediction = 'score', conditioning, preconditioning } = kind;
  if (typeof prediction !== 'string' || !Object.hasOwn(predictions, prediction))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `prediction must be 'score', 'denoised', 'noise' or 'v_prediction', got ${show(prediction)}`,
    );
  const told = conditioning === undefined ? undefined : labelOf(conditioning, isInteger);
  if (preconditioning !== undefined) {
    if (kind.prediction !== undefined)
      throw new ScoreSdeError(
        'ERR_CONFIG',
        'preconditioning and prediction were both given: a raw network has the first alone',
      );
    const around = preconditionerOf(preconditioning);
    return told === undefined ? around : { ...around, label: told.label };
  }
  if (prediction === 'score' && (conditioning === undefined || conditioning === 'sigma')) return undefined;
  const seesAlpha = prediction === 'v_prediction' || told?.seesAlpha === true;
  return {
    denoised: predictions[prediction],
    scale: seesAlpha ? alphaOf : identity,
    label: told?.label ?? ((sigma) => sigma),
  };
}

function preconditionerOf(given: Preconditioning): Parameterization {
  if (given === 've')
    return {
      denoised: (sigma) => ({ skip: 1, out: sigma }),
      scale: identity,
      label: (sigma) => Math.log(sigma / 2),
    };
  const data = given === 'edm' ? 0.5 : isPlainObject(given) ? given.sigmaData : NaN;
  if (typeof data !== 'number' || !(data > 0 && data < Infinity))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `preconditioning must be 'edm', 've' or { sigmaData } with a number above 0, got ${show(given)}`,
    );
  const total = (sigma: number) => Math.sqrt(sigma * sigma + data * data);
  return {
    denoised: (sigma) => ({ skip: (data / total(sigma)) ** 2, out: (sigma * data) / total(sigma) }),
    scale: (sigma) => 1 / total(sigma),
    label: (sigma) => Math.log(sigma) / 4,
  };
}

interface Told {
  readonly label: (sigma: number) => number;
  /** Whether the network sees x alpha. */
  readonly seesAlpha?: boolean | undefined;
}

function labelOf(given: Conditioning, isInteger: boolean): Told {
  if (given === 'sigma') return { label: (sigma) => sigma };
  if (given === 'log_sigma') return { label: Math.log };
  if (given === 'log_sigma_quarter') return { label: (sigma) => Math.log(sigma) / 4 };
  if (given === 't') return { label: timeOf(rangeOf(undefined, "'t'", '{ t: [sigmaMin, sigmaMax] }')) };
  if (isPlainObject(given)) {
    if ('t' in given) return { label: timeOf(rangeOf(given.t, 't', '[sigmaMin, sigmaMax]')) };
    if ('tutorial' in given) {
      const s = number(given.tutorial, 'conditioning.tutorial', (value) => value > 1, 'a number above 1');
      return { label: (sigma) => Math.log1p(2 * sigma * sigma * Math.log(s)) / (2 * Math.log(s)) };
    }
    if ('index' in given) return { label: nearestOf(levelsOf(given)) };
    if ('alphasCumprod' in given) return { label: stepOf(given.alphasCumprod, isInteger), seesAlpha: true };
  }
  throw new ScoreSdeError(
    'ERR_CONFIG',
    "conditioning must be 'sigma', 'log_sigma', 'log_sigma_quarter', 't', { t }, { tutorial }, { index, sigmas } or " +
      `{ alphasCumprod }, got ${show(given)}`,
  );
}

function number(value: unknown, name: string, fits: (value: number) => boolean, expected: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value) || !fits(value))
    throw new ScoreSdeError('ERR_RANGE', `${name} must be ${expected}, got ${show(value)}`);
  return value;
}

function rangeOf(range: unknown, name: string, instead: string): readonly [number, number] {
  if (range === undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `conditioning ${name} needs a range that only a pipeline's folder tells: say ${instead}`,
    );
  return sigmaRangeOf(range, `the range of conditioning ${name}`);
}

/** A range of noise levels that was given. ERR_RANGE. */
export function sigmaRangeOf(range: unknown, name: string): readonly [sigmaMin: number, sigmaMax: number] {
  const [low, high] = Array.isArray(range) ? (range as number[]) : [];
  if (!(low! > 0 && high! > low! && high! < Infinity))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `${name} must be [sigmaMin, sigmaMax], 0 < sigmaMin < sigmaMax, got ${show(range)}`,
    );
  return [low!, high!];
}

const timeOf =
  ([low, high]: readonly [number, number]) =>
  (sigma: number): number =>
    Math.log(sigma / low) / Math.log(high / low);

/** The levels of a table in the order of their indices. */
function levelsOf({ index, sigmas, descending = true }: Extract<Conditioning, { index: number }>): readonly number[] {
  const count = number(
    index,
    'conditioning.index',
    (value) => Number.isInteger(value) && value > 0,
    'an integer above 0',
  );
  if (Array.isArray(sigmas)) {
    const levels = sigmas as readonly number[];
    if (levels.length !== count || !levels.every((level) => level > 0 && level < Infinity))
      throw new ScoreSdeError('ERR_RANGE', `conditioning.sigmas must be ${count} numbers above 0, got ${show(sigmas)}`);
    return levels;
  }
  const given =
    sigmas === 'geometric' ? undefined : isPlainObject(sigmas) ? (sigmas as { geometric: unknown }).geometric : null;
  if (given === null)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `conditioning.sigmas must be 'geometric', { geometric: [sigmaMin, sigmaMax] } or the levels, got ${show(sigmas)}`,
    );
  const [low, high] = rangeOf(given, "{ sigmas: 'geometric' }", '{ sigmas: { geometric: [sigmaMin, sigmaMax] } }');
  return Array.from({ length: count }, (_, i) => {
    const u = count === 1 ? 0 : i / (count - 1);
    return low * (high / low) ** (descending ? 1 - u : u);
  });
}

/** The index of the level that is nearest in ln sigma. */
function nearestOf(levels: readonly number[]): (sigma: number) => number {
  const logs = levels.map(Math.log);
  return (sigma) => {
    const log = Math.log(sigma);
    let nearest = 0;
    for (let i = 1; i < logs.length; i++) if (Math.abs(logs[i]! - log) < Math.abs(logs[nearest]! - log)) nearest = i;
    return nearest;
  };
}

/** The step of a DDPM at which the noise has level sigma, relative to the signal: k-diffusion's sigma_to_t. */
function stepOf(alphas: readonly number[], isInteger: boolean): (sigma: number) => number {
  const isDecreasing = (value: number, i: number) => value > 0 && value < 1 && (i === 0 || value < alphas[i - 1]!);
  if (!Array.isArray(alphas) || alphas.length < 2 || !(alphas as number[]).every(isDecreasing))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `conditioning.alphasCumprod must be two or more numbers between 0 and 1 that decrease, got ${show(alphas)}`,
    );
  const logs = (alphas as number[]).map((a) => Math.log((1 - a) / a) / 2);
  return (sigma) => {
    const log = Math.log(sigma);
    const above = logs.findIndex((value) => value >= log);
    const high = above < 0 ? logs.length - 1 : Math.max(above, 1);
    const part = (log - logs[high - 1]!) / (logs[high]! - logs[high - 1]!);
    const step = high - 1 + Math.min(Math.max(part, 0), 1);
    return isInteger ? Math.round(step) : step;
  };
}
