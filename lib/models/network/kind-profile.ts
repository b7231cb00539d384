import { Generator } from '../../random/generator';
import { Tensor } from '../../tensor/tensor';
import { parameterizationOf, plain, type NetworkKind } from './kind';

/** The network's output as it is, for what it sees, [B, ...], and what it is told, [B] all alike. */
export type RunAsIs = (seen: Tensor<'float32'>, told: Tensor<'float32'>) => Promise<ArrayLike<number>>;

/** The noise levels of a profile. */
export interface Levels {
  /** Where samples begin: noise hides the data. */
  readonly highest: number;
  /** Where they end: no more noise than that is left in them. */
  readonly lowest: number;
  /** Where the samples are denoised, in decreasing order, the first at `highest`. */
  readonly tested: readonly number[];
}

/** What a network of a kind makes of its own samples with noise, at one level. Both are of noise of variance 1. */
export interface Found {
  /** The squared error of D: E|D - y|^2 / sigma^2 a number. */
  readonly loss: number;
  /** How much of the noise D holds: E[z D] / sigma. */
  readonly share: number;
  /** The part of x that the kind itself puts in D, whatever the network gives. */
  readonly skip: number;
}

/** What a kind makes of noise. */
export interface Profile {
  readonly levels: readonly Found[];
  /** How far the first D is from the middle of the data, in units of the noise. */
  readonly away: number;
  /** The standard deviation of the samples about their mean. */
  readonly spread: number;
}

/** Calls of the network that make the samples. */
const steps = 6;
/** The elements and the samples of a profile, at least: what is measured over fewer would be chance. */
const [leastElements, leastRows] = [512, 3];

/** How many samples of these dims a profile takes. */
export function rowsOf(dims: readonly number[]): number {
  return Math.max(leastRows, Math.ceil(leastElements / sizeOf(dims)));
}

/** How many samples the network is called with for a profile. */
export const callsOf = (dims: readonly number[], { tested }: Pick<Levels, 'tested'>): number =>
  rowsOf(dims) * (steps + 2 * tested.length);

/**
 * Draws samples by a kind, and denoises them.
 *
 * The samples y are taken at the lowest level, where a little noise is left: then no detail is lost, and the estimate of y given
 * x = y + z sqrt(sigma^2 - lowest^2) is D(x) + (lowest / sigma)^2 (x - D(x)). Noise is added and subtracted, so that the share
 * is a difference, in which all but the noise cancels.
 * @param middle The middle of the data
 * @param furthest A first D that is further from the middle, in units of the noise, ends the profile
 * @returns undefined where the network gives what is no sample, or no numbers
 */
export async function profileOf(
  kind: NetworkKind,
  run: RunAsIs,
  dims: readonly number[],
  { highest, lowest, tested }: Levels,
  middle: number,
  furthest = Infinity,
): Promise<Profile | undefined> {
  const { scale, label, denoised } = parameterizationOf(kind) ?? plain;
  const rows = rowsOf(dims);
  const [count, size] = [rows * sizeOf(dims), sizeOf(dims)];
  const noise = new Generator(1).randn([2, rows, ...dims]).data;
  const [first, second] = [noise.subarray(0, count), noise.subarray(count)];

  /** D of x at a level. */
  const D = async (x: Float32Array, sigma: number): Promise<Float32Array> => {
    const batch = x.length / size;
    const factor = scale(sigma);
    const seen = new Tensor('float32', factor === 1 ? x : x.map((value) => value * factor), [batch, ...dims]);
    const output = await run(seen, new Tensor('float32', new Float32Array(batch).fill(label(sigma)), [batch]));
    const { skip, out } = denoised(sigma);
    return x.map((value, i) => skip * value + out * output[i]!);
  };

  // DPM-Solver++(2M) (Lu et al. 2022) in equal steps of ln sigma: x' = r x + (1 - r) (3 D - D before) / 2.
  const ratio = (lowest / highest) ** (1 / steps);
  let y: Float32Array = first.map((z) => middle + highest * z);
  let [before, away]: [Float32Array | undefined, number] = [undefined, NaN];
  for (let i = 0; i < steps; i++) {
    const now = await D(y, highest * ratio ** i);
    if (before === undefined) away = rms(now.map((d) => d - middle)) / highest;
    const old = before ?? now;
    y = y.map((value, j) => ratio * value + (1 - ratio) * (1.5 * now[j]! - 0.5 * old[j]!));
    before = now;
    if (!(away <= furthest && rms(y) <= 1e4 * (highest + Math.abs(middle)))) return undefined;
  }

  const levels: Found[] = [];
  for (const sigma of tested) {
    const added = Math.sqrt(sigma ** 2 - lowest ** 2);
    const kept = (lowest / sigma) ** 2;
    const x = new Float32Array(2 * count);
    y.forEach((value, i) => {
      x[i] = value + added * second[i]!;
      x[count + i] = value - added * second[i]!;
    });
    const d = await D(x, sigma);
    let [squares, products, norm] = [0, 0, 0];
    for (let i = 0; i < count; i++) {
      const [plus, minus] = [i, count + i].map((at) => d[at]! + kept * (x[at]! - d[at]!) - y[i]!) as [number, number];
      squares += (plus ** 2 + minus ** 2) / 2;
      products += ((plus - minus) / 2) * second[i]!;
      norm += second[i]! ** 2;
    }
    const [loss, share] = [squares / norm / added ** 2, products / norm / added];
    if (!Number.isFinite(loss + share)) return undefined;
    levels.push({ loss, share, skip: denoised(sigma).skip });
  }
  return { levels, away, spread: spreadOf(before!, size) };
}

/** The standard deviation of the rows about their mean, over all elements. */
function spreadOf(values: Float32Array, size: number): number {
  const rows = values.length / size;
  const mean = new Float64Array(size);
  values.forEach((value, i) => (mean[i % size]! += value / rows));
  const squares = values.reduce((sum, value, i) => sum + (value - mean[i % size]!) ** 2, 0);
  return Math.sqrt(squares / (rows - 1) / size);
}

function sizeOf(dims: readonly number[]): number {
  return dims.reduce((all, dim) => all * dim, 1);
}

function rms(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! ** 2;
  return Math.sqrt(sum / values.length);
}
