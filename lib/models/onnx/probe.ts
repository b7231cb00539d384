import { reasonOf } from '../../errors';
import { Generator } from '../../random/generator';
import { sizeOfDims, Tensor } from '../../tensor/tensor';

/** How the samples of a batch go through a network. */
export interface Exactness {
  /** Whether a sample's score has the same bits alone and in any batch. */
  readonly holds: boolean;
  /** Samples in one call of the network at most; 'any': the batch as it is. */
  readonly width: number | 'any';
  /** Calls of a batch at once at most, where each has one thread; 1: one after the other, each with all threads. */
  readonly atOnce: number;
  /** Why so. */
  readonly why: string;
}

/** Scores of a batch, so many samples in a call, and so many calls at once. */
export type RunAt = (sample: Tensor, sigma: Tensor, width: number, atOnce: number) => Promise<Tensor>;

export interface Probe {
  /** The dims of one sample. */
  readonly dims: readonly number[];
  /** The number of samples that every call has, where the network fixes it. */
  readonly fixed: number | undefined;
  /** Why samples go one by one, where that is known. */
  readonly oneByOne: string | undefined;
  /** Whether the network takes a sigma for each sample: else one a call. */
  readonly sigmaEach: boolean;
  readonly run: RunAt;
  /** Prepares for calls with one thread each: how many may be made at once. 1: none are to be had, or wanted. */
  readonly narrow: () => Promise<number>;
}

/** Whether a batch is divided among threads: where most of them would have a part. */
export function isDivided(rows: number, threads: number): boolean {
  return rows > 1 && 2 * rows >= threads;
}

/** Samples in a call at most: every number up to it is probed, and more in one call would gain little. */
const most = 8;
/** Samples of the probe: only some values are rounded otherwise at the end of a vector. */
const samples = 64;
/** Elements of them beyond which the probe would take too much memory, and time of the event loop. */
const large = 2 ** 21;
/** Milliseconds beyond which the probe's calls are too slow to be made. */
const slow = 3000;

/**
 * Whether a network treats a sample the same alone and in company. ONNX Runtime's element-wise functions round what is
 * left over of a vector otherwise than the rest, so that a logarithm of the [batch] sigmas does not; and where a large
 * operation is split among threads, the parts have such ends. So no more samples go into a call than were probed. Where
 * the probe finds a difference, or the network is slow, samples go one by one: either way their bits are those they have
 * alone, or, in a network that takes a fixed number, in its first place.
 *
 * The operators of a quick network are too small to be worth dividing among many threads: if its bits are the same with
 * one thread, a batch is divided among the threads in their place.
 */
export async function probeWidth({ dims, fixed, oneByOne, sigmaEach, run, narrow }: Probe): Promise<Exactness> {
  const alone = (why: string, atOnce = 1): Exactness => ({ holds: true, width: 1, atOnce, why });
  const ofSlow = (why: string): Exactness =>
    oneByOne !== undefined || fixed === undefined
      ? alone(oneByOne ?? `${why}: calls of several would gain little`)
      : { holds: false, width: fixed, atOnce: 1, why: `${why}: too much to probe` };
  const size = sizeOfDims(dims, 'sampleShape');
  const elements = Math.max(samples, fixed ?? 0) * size;
  if (elements > large) return ofSlow(`samples of ${size} elements`);
  const x = new Generator(1).randn([samples, ...dims]).data;
  // Noise levels from 0.01 to 50, no two of them alike where the network takes more than one.
  const levels = Float32Array.from({ length: samples }, (_, i) => (sigmaEach ? 0.01 * 5000 ** (i / samples) : 0.7));
  levels.forEach((level, row) =>
    x.subarray(row * size, (row + 1) * size).forEach((z, i, part) => (part[i] = z * level)),
  );
  /** Scores of the first samples, so many in a call. */
  const first = async (count: number, width: number, atOnce = 1): Promise<Uint32Array> => {
    const sample = new Tensor('float32', x.slice(0, count * size), [count, ...dims]);
    return bitsOf(await run(sample, new Tensor('float32', levels.slice(0, count), [count]), width, atOnce));
  };
  /** Whether a sample has the same score in every place of a call. */
  const sameInAllPlaces = async (row: number, count: number): Promise<boolean> => {
    const copies = new Float32Array(count * size);
    for (let i = 0; i < count; i++) copies.set(x.subarray(row * size, (row + 1) * size), i * size);
    const sigma = new Tensor('float32', new Float32Array(count).fill(levels[row]!), [count]);
    const bits = bitsOf(await run(new Tensor('float32', copies, [count, ...dims]), sigma, count, 1));
    return bits.every((value, i) => value === bits[i % size]);
  };
  try {
    let taken = Infinity;
    for (let call = 0, since = performance.now(); call < 3 && performance.now() - since < slow / 3; call++) {
      const start = performance.now();
      await first(1, 1);
      taken = Math.min(taken, performance.now() - start);
    }
    if (taken * samples > slow) return ofSlow(`a call takes ${Math.round(taken)} ms`);
    if (fixed !== undefined && oneByOne === undefined) {
      for (let row = 0; row < samples; row++)
        if (!(await sameInAllPlaces(row, fixed))) return alone('a sample gets other bits in another place of a call');
      const why = `${samples} samples got the same bits in every place of a call`;
      return { holds: true, width: fixed, atOnce: 1, why };
    }
    const expected = await first(samples, 1);
    /** Whether samples have in calls of n the bits that they have alone, with all threads. */
    const isAsAlone = async (n: number, threads: number): Promise<boolean> => {
      const calls = Math.floor(samples / n);
      let atOnce = Math.min(threads, calls);
      // All of them one by one and in calls that fill vectors of four and of eight, a few in calls of every other size.
      const isWhole = n === 1 || n % 4 === 0;
      while (isWhole && calls % atOnce > 0) atOnce--;
      const count = isWhole ? samples : n * atOnce;
      return (await first(count, n, atOnce)).every((bits, i) => bits === expected[i]);
    };
    const threads = await narrow().catch(() => 1);
    const atOnce = threads > 1 && (await isAsAlone(1, threads)) ? threads : 1;
    if (oneByOne !== undefined) return alone(oneByOne, atOnce);
    for (let n = 2; n <= most; n++)
      if (!(await isAsAlone(n, atOnce)) || (atOnce > 1 && !isDivided(n, atOnce) && !(await isAsAlone(n, 1))))
        return alone(`${n} samples in one call get other bits than alone`, atOnce);
    return { holds: true, width: most, atOnce, why: `${samples} samples got the same bits alone and in company` };
  } catch (error) {
    return alone(oneByOne ?? `the probe failed: ${reasonOf(error)}`);
  }
}

function bitsOf(tensor: Tensor): Uint32Array {
  const { buffer, byteOffset, length } = tensor.data as Float32Array;
  return new Uint32Array(buffer, byteOffset, length);
}
