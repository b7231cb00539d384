import { ScoreSdeError } from '../../errors';
import { isPlainObject, show } from '../../options';
import { dataRangeOf, type Parameterization } from '../model';
import { assertKeys, toldBy, type Conditioning } from './conditioning';

/**
 * What a network gives, of x at noise level sigma:
 * - 'score': s, the gradient of log p_sigma(x)
 * - 'denoised': D(x; sigma), the denoised estimate (EDM, k-diffusion's denoisers)
 * - 'noise': eps, x = x0 + sigma eps (diffusers' epsilon)
 * - 'v_prediction': v of Salimans and Ho 2022 at alpha = 1 / sqrt(1 + sigma^2), seen x alpha (diffusers)
 */
export type Prediction = 'score' | 'denoised' | 'noise' | 'v_prediction';

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

/** A kind that was checked. */
export interface CheckedKind {
  /** The kind, copied: what is changed in the given one later changes nothing. */
  readonly kind: Readonly<NetworkKind>;
  /** Its coefficients; undefined for a score that takes sigma. */
  readonly parameterization: Parameterization | undefined;
}

/**
 * Checks a network's kind.
 * @param where What stands before the names of its parts in messages
 * @param keys What its parts are called there, where that is not the options' names
 * @throws ScoreSdeError ERR_CONFIG, ERR_RANGE
 */
export function checkedKind(
  given: NetworkKind,
  where = '',
  keys: Readonly<Partial<Record<keyof NetworkKind, string>>> = {},
): CheckedKind {
  const key = (option: keyof NetworkKind) => keys[option] ?? option;
  const name = (option: keyof NetworkKind) => `${where}${key(option)}`;
  const { prediction } = given;
  if (prediction !== undefined && !(typeof prediction === 'string' && Object.hasOwn(predictions, prediction)))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${name('prediction')} must be 'score', 'denoised', 'noise' or 'v_prediction', got ${show(prediction)}`,
    );
  const told = given.conditioning === undefined ? undefined : toldBy(given.conditioning, name('conditioning'));
  const around =
    given.preconditioning === undefined ? undefined : preconditionerOf(given.preconditioning, name('preconditioning'));
  if (around !== undefined && prediction !== undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${name('preconditioning')} and ${key('prediction')} were both given: a raw network has the first alone`,
    );
  if (around !== undefined && told?.seesAlpha)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${name('preconditioning')} goes with no ${key('conditioning')} { alphasCumprod }: each has a scale of x of its own`,
    );
  const kind = {
    prediction,
    conditioning: told?.conditioning,
    preconditioning: around?.preconditioning,
    dataRange: dataRangeOf(given.dataRange, name('dataRange')),
  };
  if (around !== undefined) {
    const { parameterization } = around;
    return {
      kind,
      parameterization: told === undefined ? parameterization : { ...parameterization, label: told.label },
    };
  }
  const isPlain = (prediction ?? 'score') === 'score' && (told?.conditioning ?? 'sigma') === 'sigma';
  if (isPlain) return { kind, parameterization: undefined };
  const seesAlpha = prediction === 'v_prediction' || told?.seesAlpha === true;
  const parameterization = {
    denoised: predictions[prediction ?? 'score'],
    scale: seesAlpha ? alphaOf : identity,
    label: told?.label ?? plain.label,
  };
  return { kind, parameterization };
}

/** The coefficients of a network's kind; undefined for a score that takes sigma. ERR_CONFIG, ERR_RANGE. */
export function parameterizationOf(kind: NetworkKind): Parameterization | undefined {
  return checkedKind(kind).parameterization;
}

interface Preconditioner {
  readonly preconditioning: Preconditioning;
  readonly parameterization: Parameterization;
}

function preconditionerOf(given: Preconditioning, name: string): Preconditioner {
  if (given === 've')
    return {
      preconditioning: given,
      parameterization: {
        denoised: (sigma) => ({ skip: 1, out: sigma }),
        scale: identity,
        label: (sigma) => Math.log(sigma / 2),
      },
    };
  const data = given === 'edm' ? 0.5 : isPlainObject(given) ? given.sigmaData : NaN;
  if (typeof data !== 'number' || !(data > 0 && data < Infinity))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${name} must be 'edm', 've' or { sigmaData } with a number above 0, got ${show(given)}`,
    );
  if (given !== 'edm') assertKeys(given, ['sigmaData'], name);
  const total = (sigma: number) => Math.sqrt(sigma * sigma + data * data);
  return {
    preconditioning: given === 'edm' ? given : { sigmaData: data },
    parameterization: {
      denoised: (sigma) => ({ skip: (data / total(sigma)) ** 2, out: (sigma * data) / total(sigma) }),
      scale: (sigma) => 1 / total(sigma),
      label: (sigma) => Math.log(sigma) / 4,
    },
  };
}
