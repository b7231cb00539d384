import { isPlainObject } from '../../options';
import type { Conditioning } from './conditioning';
import type { NetworkKind } from './kind';
import { kindText, nameOf, sayInstead, withDefaults } from './kind-text';
import { profiler, samplesOf, type Levels, type Profile, type RunAsIs } from './kind-profile';

/** A network whose kind is to be checked. */
export interface Checked {
  /** The dims of one sample. */
  readonly dims: readonly number[];
  /** What it is said to be. */
  readonly kind: NetworkKind;
  /** The lowest and the highest noise level of its training, where they are known. */
  readonly sigmaRange?: readonly [sigmaMin: number, sigmaMax: number] | undefined;
  readonly run: RunAsIs;
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

/** Noise levels in units of the data's width: far above the data, well below it, and little. */
const usual = { highest: 10, low: 0.1, lowest: 0.03 };
/** The highest level must be so many widths, for noise to hide the data. */
const leastHighest = 2;
/** Levels at which samples are denoised. */
const tests = 3;
/** The times of networks whose range of noise levels is not known: score_sde's for CIFAR-10, and diffusers' default. */
const usualRanges = [
  [0.01, 50],
  [0.01, 1348],
] as const;

// What tells a right kind was chosen on exact networks of 23 kinds, each said to be every other (test/kind-matrix), on digits,
// and on networks that were not trained.

/** The largest mismatches of what is a kind clearly, and of what may be it. */
const [clearly, about] = [0.2, 0.3];
/** How far the first D of data is from their middle at most, in units of the noise. */
const furthestAway = 0.5;
/** By how much another kind's cost must be less, to be taken in the place of one that is right clearly, and that may be. */
const [clearLead, lead] = [6, 3];

/** How many samples a network is given to find that it is what it is said to be. */
export const leastSamples = (dims: readonly number[]): number => samplesOf(dims, tests);

/**
 * Whether a network is of a kind, told by samples that the kind draws from it.
 *
 * D is the mean of the data given x, if the kind is right. Then its squared error is sigma^2 times the part of the noise that it
 * holds, at each level (Stein's identity; Raphan and Simoncelli 2011). That is so of samples of the data, and about so of those
 * that a few steps draw. A wrong kind breaks it at some level, or leaves in D what the kind makes of noise by itself. Several
 * kinds may still fit: the one whose D has the least error and whose samples are as wide as data is taken.
 */
export async function checkKind({ dims, kind, sigmaRange, run }: Checked): Promise<KindCheck> {
  const [low, high] = kind.dataRange ?? [0, 1];
  const width = high - low;
  const range = sigmaRange ?? rangeOf(kind.conditioning);
  const levels = levelsOf(width, range);
  const name = nameOf(kind);
  if (levels === undefined)
    return { fits: undefined, why: `its noise levels are too few, or too low, to tell whether it is ${name}` };
  const profileOf = profiler(run, dims, levels, (low + high) / 2);
  const trial = async (of: NetworkKind, furthest?: number): Promise<Verdict> => {
    const profile = await profileOf(of, furthest);
    return profile === undefined ? broken : verdictOf(profile, width);
  };
  const right = { fits: true, why: `it acts as ${name}` };
  const said = await trial(kind);
  if (said.looksLikeData && said.mismatch <= clearly) return right;

  let best: { instead: NetworkKind; cost: number } | undefined;
  for (const instead of othersThan(kind, range)) {
    const { looksLikeData, isSure, mismatch, cost } = await trial(instead, furthestAway);
    if (looksLikeData && isSure && mismatch <= about && !(best && best.cost <= cost)) best = { instead, cost };
  }
  const mayBeRight = said.mismatch <= about;
  const leads = best !== undefined && best.cost < said.cost - (said.mismatch <= clearly ? clearLead : lead);
  if (best !== undefined && (leads || !mayBeRight)) {
    const { instead } = best;
    const why = `it looks like ${nameOf(instead)}, and is used as ${name}: ${sayInstead(instead, kind)}`;
    return { fits: false, instead, why };
  }
  if (mayBeRight && said.looksLikeData) return right;
  return { fits: undefined, why: `it acts neither as ${name} nor as another kind that was tried: is it trained?` };
}

/** What is thought of a profile. */
interface Verdict {
  /** The largest part by which error and share differ at a level. */
  readonly mismatch: number;
  /** Whether the samples are as wide as data, and D denoises them by other than the kind does by itself. */
  readonly looksLikeData: boolean;
  /** Whether D does so at more than one level. */
  readonly isSure: boolean;
  /** The less, the likelier the kind. */
  readonly cost: number;
}
const broken: Verdict = { mismatch: Infinity, looksLikeData: false, isSure: false, cost: Infinity };

function verdictOf({ levels, away, spread }: Profile, width: number): Verdict {
  const mismatches = levels.map(({ loss, share }) =>
    // No D holds more than all of the noise. Trained networks err by some thousandths.
    share > 1.1 ? Infinity : Math.abs(loss - share) / (Math.max(loss, Math.abs(share)) + 0.01),
  );
  // A network whose output says nothing leaves D what the kind makes of x: the mean of normal data.
  const told = levels.filter(({ share, skip }) => skip === 0 || skip === 1 || share <= 0.7 * skip).length;
  const isWide = spread >= 0.02 * width && spread <= 3 * width;
  const logs = levels.map(({ loss, share }) => {
    const [error, held] = [loss + 2e-4, Math.max(share, 0) + 2e-4];
    return Math.log(error) + 4 * Math.abs(Math.log(error / held));
  });
  return {
    mismatch: Math.max(...mismatches),
    looksLikeData: away <= furthestAway && isWide && told > 0,
    isSure: told > 1,
    // Data of a range have about a quarter of its width as their deviation.
    cost: logs.reduce((sum, log) => sum + log, 3 * Math.abs(Math.log((4 * spread) / width + 1e-9))),
  };
}

/** The levels for data of a width, within those of the training where they are known; undefined where these are too few. */
function levelsOf(width: number, [least, most]: readonly [number, number] = [0, Infinity]): Levels | undefined {
  const lowest = Math.max(usual.lowest * width, least);
  const low = Math.max(usual.low * width, 3 * lowest);
  const highest = Math.min(usual.highest * width, most);
  if (!(highest >= Math.max(leastHighest * width, 5 * low))) return undefined;
  const tested = Array.from({ length: tests }, (_, i) => highest * (low / highest) ** (i / (tests - 1)));
  return { highest, lowest, tested };
}

/** The noise levels that a conditioning itself tells. */
function rangeOf(conditioning: Conditioning | undefined): readonly [sigmaMin: number, sigmaMax: number] | undefined {
  if (!isPlainObject(conditioning)) return undefined;
  if ('t' in conditioning) return conditioning.t;
  if ('alphasCumprod' in conditioning)
    return ends(Array.from(conditioning.alphasCumprod, (a) => Math.sqrt((1 - a) / a)));
  if (!('sigmas' in conditioning) || conditioning.sigmas === 'geometric') return undefined;
  return ends('geometric' in conditioning.sigmas ? conditioning.sigmas.geometric : Array.from(conditioning.sigmas));
}

function ends(levels: readonly number[]): readonly [number, number] {
  return levels.reduce(([low, high], level) => [Math.min(low, level), Math.max(high, level)], [Infinity, 0]);
}

/** The kinds to be tried in place of one. */
function othersThan(kind: NetworkKind, range: Checked['sigmaRange']): NetworkKind[] {
  const { dataRange } = kind;
  const { prediction, conditioning } = withDefaults(kind);
  const predictions = ['score', 'denoised', 'noise', 'v_prediction'] as const;
  const conditionings: readonly Conditioning[] = [
    'sigma',
    'log_sigma',
    'log_sigma_quarter',
    ...(range ? [range] : usualRanges).map((t) => ({ t })),
    { tutorial: 25 },
  ];
  const all: NetworkKind[] = [
    ...[conditioning, ...conditionings].flatMap((told) =>
      predictions.map((other) => ({ prediction: other, conditioning: told, dataRange })),
    ),
    ...(['edm', 've', { sigmaData: 1 }] as const).map((preconditioning) => ({ preconditioning, dataRange })),
  ];
  const seen = new Set([kindText(kind.preconditioning ? kind : { prediction, conditioning, dataRange })]);
  return all.filter((other) => !seen.has(kindText(other)) && seen.add(kindText(other)));
}
