import { now } from '../../clock';
import type { NetworkKind } from './kind';
import { kindText, nameOf, optionsOf, withDefaults } from './kind-text';
import { callsOf, profileOf, type Levels, type Profile, type RunAsIs } from './kind-profile';

/** A network whose kind is to be checked. */
export interface Checked {
  /** The dims of one sample. */
  readonly dims: readonly number[];
  /** What it is said to be. */
  readonly kind: NetworkKind;
  /** The lowest and the highest noise level of its training, where they are known. */
  readonly sigmaRange?: readonly [sigmaMin: number, sigmaMax: number] | undefined;
  readonly run: RunAsIs;
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

/** Noise levels in units of the data's width: far above the data, well below it, and little. */
const usual = { highest: 10, low: 0.1, lowest: 0.03 };
/** Levels at which samples are denoised. */
const tests = 3;
/** The times of networks whose range of noise levels is not known: score_sde's for CIFAR-10, and diffusers' default. */
const usualRanges = [
  [0.01, 50],
  [0.01, 1348],
] as const;

/** How many samples a network is called with to find that it is what it is said to be. */
export const leastCalls = (dims: readonly number[]): number => callsOf(dims, { tested: Array<number>(tests).fill(0) });

/**
 * Whether a network is of a kind, told by samples that the kind draws from it.
 *
 * D is the mean of the data given x, if the kind is right. Then its squared error is sigma^2 times the part of the noise that
 * it holds (Stein's identity; Raphan and Simoncelli 2011), at each level, for samples of the data, as are those that the kind
 * itself draws. A wrong kind breaks that at some level. Kinds that do not break it leave D an estimate of something else than
 * data, as of noise, and are told by its size: of several kinds that fit the one whose D knows most of its samples is right.
 */
export async function checkKind({ dims, kind, sigmaRange, run, patience }: Checked): Promise<KindCheck> {
  const [low, high] = kind.dataRange ?? [0, 1];
  const [middle, width] = [(low + high) / 2, high - low];
  const levels = levelsOf(width, sigmaRange);
  const name = nameOf(kind);
  if (levels === undefined)
    return { fits: undefined, why: `its noise levels are too few to tell whether it is ${name}` };
  const trial = async (of: NetworkKind, furthest?: number): Promise<Verdict> => {
    const profile = await profileOf({ ...of, dataRange: kind.dataRange }, run, dims, levels, middle, furthest);
    return profile === undefined ? broken : verdictOf(profile, width);
  };
  const right = { fits: true, why: `it acts as ${name}` };
  const said = await trial(kind);
  if (said.looksLikeData && said.mismatch <= clearly) return right;

  let best: { instead: NetworkKind; cost: number } | undefined;
  const since = now();
  for (const instead of othersThan(kind, sigmaRange)) {
    if (now() - since > patience) break;
    const { looksLikeData, mismatch, cost } = await trial(instead, furthestAway);
    if (looksLikeData && mismatch <= about && !(best && best.cost <= cost)) best = { instead, cost };
  }
  const mayBeRight = said.mismatch <= about;
  if (best !== undefined && !(mayBeRight && best.cost > said.cost - lead)) {
    const { instead } = best;
    const why = `it looks like ${nameOf(instead)}, and is used as ${name}: say ${optionsOf(instead)}`;
    return { fits: false, instead, why };
  }
  if (mayBeRight && said.isCentred) return right;
  return { fits: undefined, why: `it acts neither as ${name} nor as another kind that was tried: is it trained?` };
}

/** The largest mismatches of what is a kind clearly, and of what may be it. */
const [clearly, about] = [0.2, 0.3];
/** How far the first D of data is from their middle at most, in units of the noise. */
const furthestAway = 0.5;
/** By how much another kind's cost is less than that of one that may be right, to be taken in its place. */
const lead = 3;

/** What is thought of a profile. */
interface Verdict {
  /** The largest part by which error and share differ at a level. */
  readonly mismatch: number;
  /** Whether the samples are as wide as data, and D denoises them by more than the kind does by itself. */
  readonly looksLikeData: boolean;
  /** Whether D is about the middle of the data where noise hides them: what gives nothing leaves x as it is. */
  readonly isCentred: boolean;
  /** The less, the likelier the kind. */
  readonly cost: number;
}
const broken: Verdict = { mismatch: Infinity, looksLikeData: false, isCentred: false, cost: Infinity };

function verdictOf({ levels, away, spread }: Profile, width: number): Verdict {
  const mismatches = levels.map(({ loss, share }) =>
    // No D holds more than all of the noise. Trained networks err by some thousandths.
    share > 1.1 ? Infinity : Math.abs(loss - share) / (Math.max(loss, Math.abs(share)) + 0.01),
  );
  // A network whose output says nothing leaves D what the kind makes of x: the mean of normal data.
  const tells = levels.slice(0, -1).every(({ share, skip }) => skip === 0 || skip === 1 || share <= 0.75 * skip);
  const isCentred = away <= furthestAway;
  const isWide = spread >= 0.02 * width && spread <= 3 * width;
  const logs = levels.map(({ loss, share }) => {
    const [error, held] = [loss + 2e-4, Math.max(share, 0) + 2e-4];
    return Math.log(error) + 4 * Math.abs(Math.log(error / held));
  });
  return {
    mismatch: Math.max(...mismatches),
    looksLikeData: isCentred && isWide && tells,
    isCentred,
    // Data of a range have about a quarter of its width as their deviation.
    cost: logs.reduce((sum, log) => sum + log, 3 * Math.abs(Math.log((4 * spread) / width))),
  };
}

/** The levels for data of a width, within those of the training where they are known; undefined where these are too near. */
function levelsOf(width: number, [least, most]: readonly [number, number] = [0, Infinity]): Levels | undefined {
  const lowest = Math.max(usual.lowest * width, least);
  const low = Math.max(usual.low * width, 3 * lowest);
  const highest = Math.min(usual.highest * width, most);
  if (!(highest >= 5 * low)) return undefined;
  const tested = Array.from({ length: tests }, (_, i) => highest * (low / highest) ** (i / (tests - 1)));
  return { highest, lowest, tested };
}

/** The kinds to be tried in place of one: those that share something with it first. */
function othersThan(kind: NetworkKind, sigmaRange: Checked['sigmaRange']): NetworkKind[] {
  const { prediction, conditioning } = withDefaults(kind);
  const predictions = ['score', 'denoised', 'noise', 'v_prediction'] as const;
  const conditionings = [
    'sigma',
    'log_sigma',
    'log_sigma_quarter',
    ...(sigmaRange ? [sigmaRange] : usualRanges).map((range) => ({ t: range })),
    { tutorial: 25 },
  ] as const;
  const all: NetworkKind[] = [
    ...predictions.map((other) => ({ prediction: other, conditioning })),
    ...conditionings.map((told) => ({ prediction, conditioning: told })),
    ...(['edm', 've', { sigmaData: 1 }] as const).map((around) => ({ preconditioning: around })),
    ...conditionings.flatMap((told) => predictions.map((other) => ({ prediction: other, conditioning: told }))),
  ];
  const same = kind.preconditioning ? { ...kind, dataRange: undefined } : { prediction, conditioning };
  const seen = new Set([kindText(same)]);
  return all.filter((other) => !seen.has(kindText(other)) && seen.add(kindText(other)));
}
