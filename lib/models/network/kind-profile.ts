import { ScoreSdeError } from '../../errors';
import { Generator } from '../../random/generator';
import { sizeOfDims } from '../../tensor/data';
import { Tensor } from '../../tensor/tensor';
import { parameterizationOf, plain, type NetworkKind } from './kind';

/** The network's output as it is, for what it sees, [B, ...], and what it is told, [B] all alike. */
export type RunAsIs = (seen: Tensor<'float32'>, told: Tensor<'float32'>) => Promise<ArrayLike<number>>;

/** The noise levels of a profile. */
export interface Levels {
  /** Where samples begin: noise hides the data. */
  readonly highest: number;
  /** Where they end: so much noise is left in them. */
  readonly lowest: number;
  /** Where the samples are denoised, the first at `highest`, all above `lowest`. */
  readonly tested: readonly number[];
}

/** What a network of a kind makes of its own samples y with noise, at one level. */
export interface Denoising {
  /** The squared error of the estimate of y, a number, where the noise added to y has variance 1. */
  readonly loss: number;
  /** The part of the added noise that the estimate holds: its regression coefficient on that noise. */
  readonly share: number;
  /** The part of x that the kind itself puts in D, whatever the network gives. */
  readonly skip: number;
}

/** What a kind makes of noise. */
export interface Profile {
  readonly levels: readonly Denoising[];
  /** How far the first D is from the middle of the data, in units of the noise. */
  readonly away: number;
  /** The standard deviation of the samples about their mean. */
  readonly spread: number;
}

/** Calls of the network that make the samples. */
const steps = 6;
/** The elements and the samples of a profile, at least: what is measured over fewer is chance. */
const [leastElements, leastRows] = [1024, 3];
/** States of so many times the noise are none. */
const mostGrown = 1e4;

/** How many samples of these dims a profile draws. */
function drawnOf(dims: readonly number[]): number {
  return Math.max(leastRows, Math.ceil(leastElements / sizeOfDims(dims, 'sampleShape')));
}

/** How many samples a network is given for a profile that is not ended early, of so many levels tested. */
export function samplesOf(dims: readonly number[], tested: number): number {
  return drawnOf(dims) * (steps + 2 * tested);
}

/**
 * Makes the function that profiles a network as one kind or another, with the same noise each time. A profile draws samples by
 * the kind, and denoises them.
 *
 * The samples y are taken at the lowest level, where a little noise is left: then no detail of the data is lost. With noise on
 * them, x = y + z sqrt(sigma^2 - lowest^2), their estimate is D(x) + (lowest / sigma)^2 (x - D(x)). Noise is added and
 * subtracted, and the share taken of the difference, in which all but the noise cancels.
 * @param middle The middle of the data
 * @returns The profile of a kind; undefined where the network cannot be run with what the kind tells it, or gives what is no
 *   sample. A first D that is further from the middle than `furthest`, in units of the noise, ends it
 */
export function profiler(
  run: RunAsIs,
  dims: readonly number[],
  { highest, lowest, tested }: Levels,
  middle: number,
): (kind: NetworkKind, furthest?: number) => Promise<Profile | undefined> {
  const [rows, size] = [drawnOf(dims), sizeOfDims(dims, 'sampleShape')];
  const count = rows * size;
  const noise = new Generator(1).randn([2, rows, ...dims]).data;
  const [first, second] = [noise.subarray(0, count), noise.subarray(count)];
  const norm = squares(second);
  const ratio = (lowest / highest) ** (1 / steps);

  const profile = async (kind: NetworkKind, furthest: number): Promise<Profile | undefined> => {
    const { scale, label, denoised } = parameterizationOf(kind) ?? plain;
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
    const y = first.map((z) => middle + highest * z);
    let [before, away]: [Float32Array | undefined, number] = [undefined, NaN];
    for (let i = 0; i < steps; i++) {
      const now = await D(y, highest * ratio ** i);
      if (before === undefined) away = Math.sqrt(squares(now, middle) / count) / highest;
      const old = before ?? now;
      for (let j = 0; j < count; j++) y[j] = ratio * y[j]! + (1 - ratio) * (1.5 * now[j]! - 0.5 * old[j]!);
      before = now;
      if (!(away <= furthest && squares(y, middle) <= count * (mostGrown * highest) ** 2)) return undefined;
    }

    const levels: Denoising[] = [];
    for (const sigma of tested) {
      const added = Math.sqrt(sigma ** 2 - lowest ** 2);
      const x = new Float32Array(2 * count);
      for (let i = 0; i < count; i++) {
        x[i] = y[i]! + added * second[i]!;
        x[count + i] = y[i]! - added * second[i]!;
      }
      const d = await D(x, sigma);
      const kept = (lowest / sigma) ** 2;
      const errorAt = (at: number, of: number) => d[at]! + kept * (x[at]! - d[at]!) - y[of]!;
      let [error, held] = [0, 0];
      for (let i = 0; i < count; i++) {
        const [plus, minus] = [errorAt(i, i), errorAt(count + i, i)];
        error += (plus ** 2 + minus ** 2) / 2;
        held += ((plus - minus) / 2) * second[i]!;
      }
      const [loss, share] = [error / norm / added ** 2, held / norm / added];
      if (!Number.isFinite(loss + share)) return undefined;
      levels.push({ loss, share, skip: denoised(sigma).skip });
    }
    return { levels, away, spread: spreadOf(before!, size) };
  };

  return async (kind, furthest = Infinity) => {
    try {
      return await profile(kind, furthest);
    } catch (error) {
      // As of an index that the network has no place for.
      if (error instanceof ScoreSdeError && error.code === 'ERR_MODEL') return undefined;
      throw error;
    }
  };
}

/** The standard deviation of rows about their mean, over all elements. */
function spreadOf(values: Float32Array, size: number): number {
  const rows = values.length / size;
  const mean = new Float64Array(size);
  for (let i = 0; i < values.length; i++) mean[i % size]! += values[i]! / rows;
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i]! - mean[i % size]!) ** 2;
  return Math.sqrt(sum / (rows - 1) / size);
}

/** The sum of the squares about a middle. */
function squares(values: ArrayLike<number>, middle = 0): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += (values[i]! - middle) ** 2;
  return sum;
}
