import { now } from '../../clock';
import { Generator } from '../../random/generator';
import { Tensor } from '../../tensor/tensor';
import { parameterizationOf, type NetworkKind } from './kind';

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
  readonly instead?: NetworkKind;
  /** The finding, for people. */
  readonly why: string;
}

/** The elements of a check's samples, at least: what is measured over fewer would be chance. */
const enough = 512;
/** Noise far above the data, where a score is that of the noise; noise above and below the data's size; and little noise. */
const levels = { high: 10, middle: 2, half: 0.5, low: 0.05 };
/** By how much of the noise the estimate of it may be wrong at the high level: the data's size against the level's. */
const mostOfNoise = 0.35;
/** What denoising leaves of noise below the data's size, at most: of the kind that was said, and of another, which must be clear. */
const mostLeft = { said: 1.05, other: 0.6 };
/** By how much of its size an estimate of the data may change when it is estimated again. */
const mostOfData = 0.75;

/**
 * Whether a network is of a kind, told from what it makes of noise. Three things hold of each right kind, with D what the kind
 * makes of the network's output. At a noise level far above the data, (x - D) / sigma is the noise that was added: not so
 * where a denoiser or a noise prediction is taken for a score. D holds less of the noise than x and never its opposite, since
 * the derivative of D is a covariance: not so where a noise prediction or a score is taken for a denoiser or a v-prediction. What was denoised
 * once, with little noise added, is denoised to about itself: not so of a network that is none of these. Where the kind
 * does not fit, others are tried, at the same noise input first.
 */
export async function checkKind({ dims, kind, sigmaRange, run, patience }: Checked): Promise<KindCheck> {
  const [low, high] = kind.dataRange ?? [0, 1];
  const [middle, width] = [(low + high) / 2, high - low];
  const size = dims.reduce((all, dim) => all * dim, 1);
  const rows = Math.min(Math.ceil(enough / size), enough);
  const noise = new Generator(1).randn([2, rows, ...dims]).data;
  const [first, second] = [noise.subarray(0, rows * size), noise.subarray(rows * size)];

  /** D of x at a level, by what a kind makes of the output. */
  const denoised = async (of: NetworkKind, x: Float32Array, sigma: number): Promise<Float32Array> => {
    const { scale, label, denoised } = parameterizationOf(of) ?? score;
    const seen = x.map((value) => value * scale(sigma));
    const told = new Float32Array(rows).fill(label(sigma));
    const output = await run(new Tensor('float32', seen, [rows, ...dims]), new Tensor('float32', told, [rows]));
    const { skip, out } = denoised(sigma);
    return x.map((value, i) => skip * value + out * output[i]!);
  };
  /** D of the first noise at a level around the middle of the data. */
  const denoisedNoise = (of: NetworkKind, sigma: number) =>
    denoised(
      of,
      first.map((z) => middle + sigma * z),
      sigma,
    );
  const isFitting = async (of: NetworkKind, left: number): Promise<boolean> => {
    const far = await denoisedNoise(of, levels.high);
    // (x - D) / sigma - z
    const error = rms(far, (d) => (middle - d) / levels.high);
    if (!(error <= mostOfNoise * rms(first)) || partOf(far, first) > 0.5) return false;
    const near = await denoisedNoise(of, levels.half);
    if (!(partOf(near, first) <= left * levels.half)) return false;
    const once = await denoisedNoise(of, levels.middle);
    if (!(partOf(once, first) >= -0.2)) return false;
    const noisy = once.map((d, i) => d + levels.low * width * second[i]!);
    const again = await denoised(of, noisy, levels.low * width);
    const change = rms(again, (d, i) => d - once[i]!);
    return change <= mostOfData * Math.max(rms(once), 0.2 * width);
  };

  const name = nameOf(kind);
  if (await isFitting(kind, mostLeft.said)) return { fits: true, why: `it acts as ${name}` };
  const since = now();
  for (const other of othersThan(kind, sigmaRange)) {
    if (now() - since > patience) break;
    if (await isFitting({ ...other, dataRange: kind.dataRange }, mostLeft.other))
      return {
        fits: false,
        instead: other,
        why: `it looks like ${nameOf(other)}, and is used as ${name}: say ${optionsOf(other)}`,
      };
  }
  return { fits: undefined, why: `it acts neither as ${name} nor as another kind that was tried: is it trained?` };
}

/** A score that takes sigma. */
const score = {
  scale: () => 1,
  label: (sigma: number) => sigma,
  denoised: (sigma: number) => ({ skip: 1, out: sigma * sigma }),
};

function rms(values: Float32Array, of: (value: number, i: number) => number = (value) => value): number {
  return Math.sqrt(values.reduce((sum, value, i) => sum + of(value, i) ** 2, 0) / values.length);
}

/** How many times the noise is in an estimate: the regression coefficient. */
function partOf(estimate: Float32Array, noise: Float32Array): number {
  return estimate.reduce((sum, d, i) => sum + d * noise[i]!, 0) / noise.reduce((sum, z) => sum + z * z, 0);
}

/** The kinds to be tried in place of one: with its noise input first, and of those the score first. */
function othersThan(kind: NetworkKind, sigmaRange: Checked['sigmaRange']): NetworkKind[] {
  const { prediction = 'score', conditioning = 'sigma', preconditioning } = kind;
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

function nameOf({ prediction = 'score', conditioning = 'sigma', preconditioning }: NetworkKind): string {
  if (preconditioning !== undefined) return `a raw network of preconditioning ${shown(preconditioning)}`;
  return `${nouns[prediction]} that takes ${typeof conditioning === 'string' ? conditioning : shown(conditioning)}`;
}

/** A kind as text, the same for the same kind. */
export function kindText({ prediction, conditioning, preconditioning, dataRange }: NetworkKind): string {
  return JSON.stringify({ prediction, conditioning, preconditioning, dataRange });
}

/** A kind as options, without those that are the defaults. */
function optionsOf({ prediction = 'score', conditioning = 'sigma', preconditioning }: NetworkKind): string {
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
