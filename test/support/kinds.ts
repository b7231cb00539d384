import { Generator, type NetworkKind, type Tensor } from '../../lib';

/** D of one sample x at noise level sigma, exact of some data. */
export type Denoiser = (x: Float32Array, sigma: number) => Float32Array;

// Looking up a global is slow in jest's realms.
const { abs, cos, exp, expm1, log, max, sqrt, PI } = Math;

/** Of data N(mean, deviation^2) in each element. */
export const normal =
  (mean: number, deviation: number): Denoiser =>
  (x, sigma) =>
    x.map((value) => mean + ((value - mean) * deviation ** 2) / (deviation ** 2 + sigma ** 2));

/** Of normal data whose slow waves are large and whose fast ones are small, as pictures' are. */
export function smooth(mean: number, deviation: number, size: number): Denoiser {
  const waves = Array.from({ length: size }, (_, k) =>
    Float64Array.from({ length: size }, (_, i) => cos((PI * (i + 0.5) * k) / size) * sqrt((k > 0 ? 2 : 1) / size)),
  );
  return (x, sigma) => {
    const D = new Float32Array(size).fill(mean);
    waves.forEach((wave, k) => {
      const variance = (deviation / (1 + k)) ** 2;
      let part = 0;
      for (let i = 0; i < size; i++) part += wave[i]! * (x[i]! - mean);
      part *= variance / (variance + sigma ** 2);
      for (let i = 0; i < size; i++) D[i]! += part * wave[i]!;
    });
    return D;
  };
}

/** Of normal data of one deviation about a few points, as likely one as another. */
export const clusters =
  (points: readonly (readonly number[])[], deviation: number): Denoiser =>
  (x, sigma) => {
    const variance = deviation ** 2 + sigma ** 2;
    const squares = points.map((point) => point.reduce((sum, at, i) => sum + (x[i]! - at) ** 2, 0));
    const nearest = squares.reduce((a, b) => (a < b ? a : b));
    const weights = squares.map((square) => exp((nearest - square) / (2 * variance)));
    const total = weights.reduce((a, b) => a + b);
    return x.map((value, i) => {
      const point = weights.reduce((sum, weight, k) => sum + weight * points[k]![i]!, 0) / total;
      return point + ((value - point) * deviation ** 2) / variance;
    });
  };

/** A network's output for one sample that it sees, and what it is told. */
export type OneSample = (seen: Float32Array, told: number) => Float32Array;

/** The network that a kind says, of a denoiser: the formulas of its papers, turned round. */
export function networkOf(D: Denoiser, { prediction, conditioning, preconditioning }: NetworkKind): OneSample {
  const sigmaOf = (told: number): number => {
    if (preconditioning === 've') return 2 * exp(told);
    if (preconditioning !== undefined || conditioning === 'log_sigma_quarter') return exp(4 * told);
    if (conditioning === 'log_sigma') return exp(told);
    if (typeof conditioning !== 'object') return told;
    if ('t' in conditioning) return conditioning.t[0] * (conditioning.t[1] / conditioning.t[0]) ** told;
    if (!('tutorial' in conditioning)) throw new Error('no network of tables here');
    const rate = 2 * log(conditioning.tutorial);
    return sqrt(max(expm1(rate * told), 0) / rate);
  };
  const data = preconditioning === 'edm' ? 0.5 : typeof preconditioning === 'object' ? preconditioning.sigmaData : 0;
  return (seen, told) => {
    // What it is told may be out of all range: it then acts as at the ends of a wide one, and gives numbers.
    const sigma = max(1e-6, 1e6 - abs(1e6 - (sigmaOf(told) || 0))); // folded at 1e6
    const total = sqrt(sigma ** 2 + data ** 2);
    const alpha = 1 / sqrt(1 + sigma ** 2);
    const scale = data > 0 ? 1 / total : prediction === 'v_prediction' ? alpha : 1;
    const x = seen.map((value) => value / scale);
    const denoised = D(x, sigma);
    const output = (value: number, d: number): number => {
      if (preconditioning === 've') return (d - value) / sigma;
      if (data > 0) return (d - (data / total) ** 2 * value) / ((sigma * data) / total);
      if (prediction === 'denoised') return d;
      if (prediction === 'noise') return (value - d) / sigma;
      if (prediction === 'v_prediction') return (alpha ** 2 * value - d) / (alpha * sigma);
      return (d - value) / sigma ** 2;
    };
    return x.map((value, i) => output(value, denoised[i]!));
  };
}

/** A network that was not trained: two layers of seeded weights, told its noise level by waves. */
export function untrained(seed: number, size: number, gain: number): OneSample {
  const generator = new Generator(seed);
  const weights = (inputs: number) => generator.randn([inputs, size]).data.map((z) => z / sqrt(inputs));
  const layers = [weights(size), weights(8), weights(size)] as const;
  const times = (x: ArrayLike<number>, layer: Float32Array) =>
    Float32Array.from({ length: size }, (_, j) => {
      let sum = 0;
      for (let i = 0; i < x.length; i++) sum += x[i]! * layer[i * size + j]!;
      return sum;
    });
  return (seen, told) => {
    const waves = Float32Array.from({ length: 8 }, (_, i) => cos(told * 2 ** (i / 2) + (PI / 2) * (i % 2)));
    const added = times(waves, layers[1]);
    const hidden = times(seen, layers[0]).map((value, i) => (value + added[i]!) / (1 + abs(value + added[i]!)));
    return times(hidden, layers[2]).map((value) => gain * value);
  };
}

/** The network of a batch, as a check calls it. */
export const batched =
  (network: OneSample) =>
  (seen: Tensor<'float32'>, told: Tensor<'float32'>): Promise<Float32Array> => {
    const size = seen.data.length / told.data.length;
    const output = new Float32Array(seen.data.length);
    told.data.forEach((label, i) => output.set(network(seen.data.subarray(i * size, (i + 1) * size), label), i * size));
    return Promise.resolve(output);
  };
