import { reasonOf } from '../errors';
import { Generator } from '../random/generator';
import { sizeOfDims, Tensor } from '../tensor/tensor';

/** How the samples of a batch go through a network. */
export interface Exactness {
  /** Whether a sample's score has the same bits alone and in any batch. */
  readonly holds: boolean;
  /** Samples in one call of the network at most; 'any': the batch as it is. */
  readonly width: number | 'any';
  /** Why so. */
  readonly why: string;
}

/** Scores of a batch, so many samples in a call. */
export type RunAt = (sample: Tensor, sigma: Tensor, width: number) => Promise<Tensor>;

export interface Probe {
  /** The dims of one sample. */
  readonly dims: readonly number[];
  /** The number of samples that every call has, where the network fixes it. */
  readonly fixed: number | undefined;
  /** Whether the network takes a sigma for each sample: else one a call. */
  readonly sigmaEach: boolean;
  readonly run: RunAt;
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
 */
export async function probeWidth({ dims, fixed, sigmaEach, run }: Probe): Promise<Exactness> {
  const alone = (why: string): Exactness => ({ holds: true, width: 1, why });
  const ofSlow = (why: string): Exactness =>
    fixed === undefined
      ? alone(`${why}: calls of several would gain little`)
      : { holds: false, width: fixed, why: `${why}: too much to probe` };
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
  const first = async (count: number, width: number): Promise<Uint32Array> => {
    const sample = new Tensor('float32', x.slice(0, count * size), [count, ...dims]);
    return bitsOf(await run(sample, new Tensor('float32', levels.slice(0, count), [count]), width));
  };
  /** Whether a sample has the same score in every place of a call. */
  const sameInAllPlaces = async (row: number, count: number): Promise<boolean> => {
    const copies = new Float32Array(count * size);
    for (let i = 0; i < count; i++) copies.set(x.subarray(row * size, (row + 1) * size), i * size);
    const sigma = new Tensor('float32', new Float32Array(count).fill(levels[row]!), [count]);
    const bits = bitsOf(await run(new Tensor('float32', copies, [count, ...dims]), sigma, count));
    return bits.every((value, i) => value === bits[i % size]);
  };
  try {
    let taken = Infinity;
    for (let call = 0; call < 3; call++) {
      const start = performance.now();
      await first(1, 1);
      taken = Math.min(taken, performance.now() - start);
    }
    if (taken * samples > slow) return ofSlow(`a call takes ${Math.round(taken)} ms`);
    if (fixed !== undefined) {
      for (let row = 0; row < samples; row++)
        if (!(await sameInAllPlaces(row, fixed))) return alone('a sample gets other bits in another place of a call');
      return { holds: true, width: fixed, why: `${samples} samples got the same bits in every place of a call` };
    }
    const expected = await first(samples, 1);
    // All of them in calls that fill vectors of four and of eight, and a few in calls of every other size.
    const passes = Array.from({ length: most - 1 }, (_, i) => i + 2).map((n) => ({ n, count: n % 4 ? n : samples }));
    for (const { n, count } of passes) {
      const found = await first(count, n);
      if (found.some((bits, i) => bits !== expected[i]))
        return alone(`${n} samples in one call get other bits than alone`);
    }
    return { holds: true, width: most, why: `${samples} samples got the same bits alone and in company` };
  } catch (error) {
    return alone(`the probe failed: ${reasonOf(error)}`);
  }
}

function bitsOf(tensor: Tensor): Uint32Array {
  const { buffer, byteOffset, length } = tensor.data as Float32Array;
  return new Uint32Array(buffer, byteOffset, length);
}
