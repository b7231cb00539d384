import { now } from '../../clock';
import { reasonOf, ScoreSdeError } from '../../errors';
import { Generator } from '../../random/generator';
import { sizeOfDims } from '../../tensor/data';
import { Tensor } from '../../tensor/tensor';

/** How the samples of a batch are divided into calls of the network. */
export interface Exactness {
  /** Whether a sample's score has the same bits alone and in any batch. */
  readonly holds: boolean;
  /** The most samples of one call; 'any': each call gets the whole batch. */
  readonly width: number | 'any';
  /** The most calls at once, each on one thread. 1: calls run one after another, each on all threads. */
  readonly atOnce: number;
  /** The reason, for people. */
  readonly why: string;
}

/** What a probe found. */
interface Found extends Exactness {
  /** Whether the network was too slow to be probed, which another load may not find. */
  readonly isSlow?: true;
}

/** Runs the network on a batch, with at most `perCall` samples a call and `atOnce` calls at once. */
export type RunDivided = (sample: Tensor, sigma: Tensor, perCall: number, atOnce: number) => Promise<Tensor>;

export interface Probe {
  /** The dims of one sample. */
  readonly dims: readonly number[];
  /** The batch size that the network fixes, if it does. */
  readonly fixed: number | undefined;
  /** Why each call must have one sample, if it must. */
  readonly oneByOne: string | undefined;
  /** Whether the network takes a sigma for each sample, rather than one a call. */
  readonly sigmaEach: boolean;
  readonly run: RunDivided;
  /** Loads the single-threaded session, and returns how many of its calls may run at once; 1 without such a session. */
  readonly loadSingleThreaded: () => Promise<number>;
}

/** Whether a batch is divided among single-threaded calls: if at least half of the threads get a sample. */
export function isDivided(rows: number, threads: number): boolean {
  return rows > 1 && 2 * rows >= threads;
}

/** The most samples of a call. Every number up to it is probed; larger calls would gain little. */
const maxPerCall = 8;
/** Samples of the probe. Many are needed: only some values show the difference in rounding that is looked for. */
const samples = 64;
/** The most elements of the probe's samples, for its memory and its time on the event loop. */
const maxElements = 2 ** 21;
/** The most milliseconds that the probe's calls may be expected to take. */
const maxMilliseconds = 3000;

/**
 * Whether a network is quick enough to be given many samples at its load, by a call with one: as the 64 of the probe, which
 * must take at most three seconds.
 */
export async function isQuick(
  dims: readonly number[],
  call: (sample: Tensor<'float32'>, sigma: Tensor<'float32'>) => Promise<unknown>,
  count = samples,
  milliseconds = maxMilliseconds,
): Promise<boolean> {
  if (count * sizeOfDims(dims, 'sampleShape') > maxElements) return false;
  const timed = async () => {
    const start = now();
    await call(Tensor.zeros([1, ...dims]), new Tensor('float32', [1], [1]));
    return now() - start;
  };
  const most = milliseconds / count;
  const first = await timed();
  // Memory is new to the first call, so that one that is a little slow is made again.
  return first <= most || (first <= 4 * most && (await timed()) <= most);
}

/**
 * Chooses how to divide a batch into calls so that a sample's score has the same bits in every batch.
 *
 * ONNX Runtime's element-wise functions process whole SIMD vectors, and the elements after the last whole vector by other code
 * that rounds differently. A logarithm of the [batch] sigmas is an example. An operator that is split among threads has such
 * an end in every part. So a call gets only as many samples as the probe has compared with calls of one sample. Where the bits
 * differ, or the network is slow, each call gets one sample. In a network of a fixed batch size, the bits to keep are those of
 * a sample in the first place.
 *
 * The operators of a quick network are too small to be split among many threads. If its bits are the same on one thread, the
 * batch is split instead, into single-threaded calls at once.
 */
export async function probeExactness({
  dims,
  fixed,
  oneByOne,
  sigmaEach,
  run,
  loadSingleThreaded,
}: Probe): Promise<Found> {
  const alone = (why: string, atOnce = 1): Exactness => ({ holds: true, width: 1, atOnce, why });
  const ofSlow = (why: string): Found => ({
    ...(oneByOne !== undefined || fixed === undefined
      ? alone(oneByOne ?? `${why}: calls of several would gain little`)
      : { holds: false, width: fixed, atOnce: 1, why: `${why}: too much to probe` }),
    isSlow: true,
  });
  const size = sizeOfDims(dims, 'sampleShape');
  const elements = Math.max(samples, fixed ?? 0) * size;
  if (elements > maxElements) return ofSlow(`samples of ${size} elements`);
  const x = new Generator(1).randn([samples, ...dims]).data;
  // Noise levels from 0.01 to 50, no two of them alike where the network takes more than one.
  const levels = Float32Array.from({ length: samples }, (_, i) => (sigmaEach ? 0.01 * 5000 ** (i / samples) : 0.7));
  levels.forEach((level, row) =>
    x.subarray(row * size, (row + 1) * size).forEach((z, i, part) => (part[i] = z * level)),
  );
  /** The score bits of the first `count` samples. */
  const scoresOf = async (count: number, perCall: number, atOnce = 1): Promise<Uint32Array> => {
    const sample = new Tensor('float32', x.slice(0, count * size), [count, ...dims]);
    return bitsOf(await run(sample, new Tensor('float32', levels.slice(0, count), [count]), perCall, atOnce));
  };
  /** Whether a sample has the same score bits in every place of a call of `count` samples. */
  const sameInAllPlaces = async (row: number, count: number): Promise<boolean> => {
    const copies = new Float32Array(count * size);
    for (let i = 0; i < count; i++) copies.set(x.subarray(row * size, (row + 1) * size), i * size);
    const sigma = new Tensor('float32', new Float32Array(count).fill(levels[row]!), [count]);
    const bits = bitsOf(await run(new Tensor('float32', copies, [count, ...dims]), sigma, count, 1));
    return bits.every((value, i) => value === bits[i % size]);
  };
  try {
    let fastest = Infinity;
    for (let call = 0, since = now(); call < 3 && now() - since < maxMilliseconds / 3; call++) {
      const start = now();
      await scoresOf(1, 1);
      fastest = Math.min(fastest, now() - start);
    }
    if (fastest * samples > maxMilliseconds) return ofSlow(`a call takes ${Math.round(fastest)} ms`);
    if (fixed !== undefined && oneByOne === undefined) {
      for (let row = 0; row < samples; row++)
        if (!(await sameInAllPlaces(row, fixed))) return alone('a sample gets other bits in another place of a call');
      const why = `${samples} samples got the same bits in every place of a call`;
      return { holds: true, width: fixed, atOnce: 1, why };
    }
    const expected = await scoresOf(samples, 1);
    /** Whether calls of n samples, `threads` of them at once, give the bits of calls of one sample on all threads. */
    const isAsAlone = async (n: number, threads: number): Promise<boolean> => {
      const calls = Math.floor(samples / n);
      let atOnce = Math.min(threads, calls);
      // All samples in calls of 1, 4 and 8, the last two of which fill vectors; a few samples in calls of other sizes.
      const isWhole = n === 1 || n % 4 === 0;
      while (isWhole && calls % atOnce > 0) atOnce--;
      const count = isWhole ? samples : n * atOnce;
      return (await scoresOf(count, n, atOnce)).every((bits, i) => bits === expected[i]);
    };
    const threads = await loadSingleThreaded().catch(() => 1);
    const atOnce = threads > 1 && (await isAsAlone(1, threads)) ? threads : 1;
    if (oneByOne !== undefined) return alone(oneByOne, atOnce);
    for (let n = 2; n <= maxPerCall; n++)
      if (!(await isAsAlone(n, atOnce)) || (atOnce > 1 && !isDivided(n, atOnce) && !(await isAsAlone(n, 1))))
        return alone(`${n} samples in one call get other bits than alone`, atOnce);
    return { holds: true, width: maxPerCall, atOnce, why: `${samples} samples got the same bits alone and in company` };
  } catch (error) {
    if (!(error instanceof ScoreSdeError)) throw error;
    return alone(oneByOne ?? `the probe failed: ${reasonOf(error)}`);
  }
}

function bitsOf(tensor: Tensor): Uint32Array {
  const { buffer, byteOffset, length } = tensor.data as Float32Array;
  return new Uint32Array(buffer, byteOffset, length);
}
