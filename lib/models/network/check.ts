import { now } from '../../clock';
import { Generator } from '../../random/generator';
import { Tensor } from '../../tensor/tensor';
import { parameterizationOf, plain, type NetworkKind } from './kind';

/** A network whose kind is to be checked. */
export interface Checked {
  /** The dims of one sample. */
  readonly dims: readonly number[];
  /** What it is said to be. */
  readonly kind: NetworkKind;
  /** The lowest and the highest noise level of its training, where they are known. */
  readonly sigmaRange?: readonly [sigmaMin: number, sigmaMax: number] | undefined;
  /** The network's output as it is, for what it sees, [B, ...], and what it is told, [B] all alike. */
  readonly run: (seen: Tensor<'float32'>, told: Tensor<'float32'>) => Promise<ArrayLike<number>>;
  /** Milliseconds after which no further kind is tried. */
  readonly patience: number;
}

/** What a check found. */
export interface KindCheck {
  /** Whether the network is what it is said to be; undefined where neither that nor another kind fits. */
  readonly fits: boolean | undefined;
  /** The kind that fits in its place. */
  readonly instead?: NetworkKind | undefined;
  /** The finding, for people. */
  readonly why: string;
}

/** The elements of a check's samples, at least: what is measured over fewer would be chance. */
const enough = 512;
/** Noise levels, for data of [0, 1] or [-1, 1]: far above the data, above it, below it, and little. */
const usual = { far: 10, above: 2, below: 0.5, little: 0.05 };

/** What a kind makes of noise. */
interface Profile {
  /** How much of the noise that was added is left in D at each level: the regression coefficient of D on the noise. */
  readonly left: Readonly<Record<'far' | 'above' | 'below', number>>;
  /** How far D is from the middle of the data at the far level, in units of the noise. */
  readonly away: number;
  /** How much what was denoised once changes when it is denoised again with little noise, in units of its own size. */
  readonly change: number;
  /** The root mean square of the network's output below the data's size. */
  readonly output: number;
  /** The part of x that the kind itself puts in D there, whatever the network gives. */
  readonly skip: number;
}

/**
 * Whether what a kind makes of noise is what the right kind makes. D is the mean of the data given x. Its derivative is a
 * covariance divided by sigma^2: D holds between none and all of the noise, and the less the more noise there is. Far above
 * the data D is about their middle. What was denoised is denoised to about itself. A denoiser or a noise prediction that is
 * taken for a score is far from the middle; a score or a noise prediction that is taken for a denoiser holds less than none of
 * the noise, or more than all of it.
 */
function isRight({ left: { far, above, below }, away, change }: Profile): boolean {
  const isShare = [far, above, below].every((share) => share >= -0.1 && share <= 1.1);
  return isShare && below >= far - 0.05 && away <= 0.35 && change <= 0.75;
}

/**
 * Whether a kind that was not said is clearly right: D holds some of little noise and less of more, and the output has the size
 * that the network is trained to give. An output of about nothing, as scores of wide data are, is not enough, nor is the noise
 * that a kind leaves in D by itself, which any network of bounded output does not change.
 */
function isClear(profile: Profile, { prediction, preconditioning }: NetworkKind): boolean {
  const { left, output, skip } = profile;
  const hasUnitOutput = preconditioning !== undefined || prediction === 'v_prediction';
  const most = skip === 0 ? 0.6 : Math.min(0.6, 0.7 * skip);
  const isSmoothing = left.below >= 0.005 && left.below <= most && left.far <= left.below / 2;
  return isRight(profile) && isSmoothing && (!hasUnitOutput || (output >= 0.3 && output <= 3));
}

/**
 * Whether a network is of a kind, told from what it makes of noise. Where the kind does not fit, others are tried, at the same
 * noise input first.
 */
export async function checkKind({ dims, kind, sigmaRange, run, patience }: Checked): Promise<KindCheck> {
  const [low, high] = kind.dataRange ?? [0, 1];
  const [middle, width] = [(low + high) / 2, high - low];
  const levels = levelsOf(width, sigmaRange);
  const size = dims.reduce((all, dim) => all * dim, 1);
  const rows = Math.min(Math.ceil(enough / size), enough);
  const noise = new Generator(1).randn([2, rows, ...dims]).data;
  const [first, second] = [noise.subarray(0, rows * size), noise.subarray(rows * size)];

  /** The network's output, and D as the kind says, of x at a level. */
  const denoised = async (of: NetworkKind, x: Float32Array, sigma: number) => {
    const { scale, label, denoised } = parameterizationOf(of) ?? plain;
    const seen = x.map((value) => value * scale(sigma));
    const told = new Float32Array(rows).fill(label(sigma));
    const output = await run(new Tensor('float32', seen, [rows, ...dims]), new Tensor('float32', told, [rows]));
    const { skip, out } = denoised(sigma);
    return { output, D: x.map((value, i) => skip * value + out * output[i]!) };
  };
  const profileOf = async (of: NetworkKind): Promise<Profile> => {
    const at = (sigma: number) =>
      denoised(
        of,
        first.map((z) => middle + sigma * z),
        sigma,
      );
    const [far, above, below] = [await at(levels.far), await at(levels.above), await at(levels.below)];
    const once = above.D;
    const noisy = once.map((d, i) => d + levels.little * second[i]!);
    const again = await denoised(of, noisy, levels.little);
    return {
      left: {
        far: regression(far.D, first) / levels.far,
        above: regression(above.D, first) / levels.above,
        below: regression(below.D, first) / levels.below,
      },
      away: rms(far.D.map((d) => d - middle)) / (levels.far * rms(first)),
      change: rms(again.D.map((d, i) => d - once[i]!)) / Math.max(rms(once), 0.2 * width),
      output: rms(below.output),
      skip: (parameterizationOf(of) ?? plain).denoised(levels.below).skip,
    };
  };

  const name = nameOf(kind);
  if (isRight(await profileOf(kind))) return { fits: true, why: `it acts as ${name}` };
  const since = now();
  for (const other of othersThan(kind, sigmaRange)) {
    if (now() - since > patience) break;
    if (isClear(await profileOf({ ...other, dataRange: kind.dataRange }), other))
      return {
        fits: false,
        instead: other,
        why: `it looks like ${nameOf(other)}, and is used as ${name}: say ${optionsOf(other)}`,
      };
  }
  return { fits: undefined, why: `it acts neither as ${name} nor as another kind that was tried: is it trained?` };
}

/** The levels for data of a width, within those of the training where they are known. */
function levelsOf(width: number, range: Checked['sigmaRange']): typeof usual {
  const scale = Math.max(1, width / 2);
  const [lowest, highest] = range ?? [0, Infinity];
  const within = (level: number) => Math.min(Math.max(level * scale, lowest), highest);
  return {
    far: within(usual.far),
    above: within(usual.above),
    below: within(usual.below),
    little: within(usual.little * (width / scale)),
  };
}

function rms(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum / values.length);
}

/** The coefficient of the noise in values, by least squares. */
function regression(values: Float32Array, noise: Float32Array): number {
  return values.reduce((sum, value, i) => sum + value * noise[i]!, 0) / noise.reduce((sum, z) => sum + z * z, 0);
}

/** The kinds to be tried in place of one: with its noise input first, and of those the score first. */
function othersThan(kind: NetworkKind, sigmaRange: Checked['sigmaRange']): NetworkKind[] {
  const { prediction, conditioning, preconditioning } = withDefaults(kind);
  const predictions = ['score', 'denoised', 'noise', 'v_prediction'] as const;
  const conditionings = [
    'sigma',
    'log_sigma',
    'log_sigma_quarter',
    ...(sigmaRange ? [{ t: sigmaRange }] : []),
    { tutorial: 25 },
  ] as const;
  const all: NetworkKind[] = [
    ...predictions.map((other) => ({ prediction: other, conditioning })),
    ...conditionings.map((told) => ({ prediction, conditioning: told })),
    ...(['edm', 've'] as const).map((around) => ({ preconditioning: around })),
    ...conditionings.flatMap((told) => predictions.map((other) => ({ prediction: other, conditioning: told }))),
  ];
  const seen = new Set([JSON.stringify(preconditioning ? { preconditioning } : { prediction, conditioning })]);
  return all.filter((other) => !seen.has(JSON.stringify(other)) && seen.add(JSON.stringify(other)));
}

const nouns = {
  score: 'a score',
  denoised: 'a denoised estimate',
  noise: 'a noise prediction',
  v_prediction: 'a v-prediction',
} as const;

const withDefaults = ({ prediction = 'score', conditioning = 'sigma', preconditioning }: NetworkKind) => ({
  prediction,
  conditioning,
  preconditioning,
});

function nameOf(kind: NetworkKind): string {
  const { prediction, conditioning, preconditioning } = withDefaults(kind);
  if (preconditioning !== undefined) return `a raw network of preconditioning ${shown(preconditioning)}`;
  return `${nouns[prediction]} that takes ${typeof conditioning === 'string' ? conditioning : shown(conditioning)}`;
}

/** A kind as text, the same for the same kind. */
export function kindText({ prediction, conditioning, preconditioning, dataRange }: NetworkKind): string {
  return JSON.stringify({ prediction, conditioning, preconditioning, dataRange });
}

/** A kind as options, without those that are the defaults. */
function optionsOf(kind: NetworkKind): string {
  const { prediction, conditioning, preconditioning } = withDefaults(kind);
  if (preconditioning !== undefined) return `preconditioning: ${shown(preconditioning)}`;
  const said = [
    ...(prediction === 'score' ? [] : [`prediction: ${shown(prediction)}`]),
    ...(conditioning === 'sigma' ? [] : [`conditioning: ${shown(conditioning)}`]),
  ];
  return said.join(', ') || "prediction: 'score', conditioning: 'sigma', which are the defaults";
}

function shown(value: unknown): string {
  if (typeof value === 'string') return `'${value}'`;
  if (Array.isArray(value)) return value.length > 8 ? `[${value.length} numbers]` : `[${value.join(', ')}]`;
  if (typeof value !== 'object' || value === null) return String(value);
  return `{ ${Object.entries(value)
    .map(([key, part]) => `${key}: ${shown(part)}`)
    .join(', ')} }`;
}
