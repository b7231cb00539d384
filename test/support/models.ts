import { Tensor } from '../../lib';

/** The score of one flat float32 state at noise level t (itself a float32). */
export type Formula = (x: Float32Array, t: number) => Float32Array;

export interface ModelSpec {
  name: string;
  mu?: number;
  weights?: number[];
  means?: [number, number][];
  stds?: number[];
}

// Looking up a global is slow in jest's realms.
const { exp, fround: f32 } = Math;
const far = Infinity;

/** (sample * t) / (t + 1) */
const toy: Formula = (x, t) => x.map((v) => f32(v * t) / f32(t + 1));

/** (-sample) / (1 + t * t) */
const lin: Formula = (x, t) => x.map((v) => -v / f32(1 + f32(t * t)));

/** (mu - sample) / (0.01 + t * t) */
const gauss =
  (mu: number): Formula =>
  (x, t) =>
    x.map((v) => f32(f32(mu) - v) / f32(f32(0.01) + f32(t * t)));

/** The exact score of sum_k w_k N(mu_k, (sd_k^2 + t^2) I) for 2-vectors, in double, then rounded. */
const mixture =
  (weights: number[], means: [number, number][], stds: number[]): Formula =>
  (x, t) => {
    const score = new Float32Array(x.length);
    const count = stds.length;
    const variances = stds.map((sd) => sd * sd + t * t);
    const half = new Float64Array(count);
    for (let i = 0; i < x.length; i += 2) {
      // Relative to the nearest, so that no weight underflows where all are far.
      let nearest = far;
      for (let k = 0; k < count; k++) {
        const [dx, dy] = [x[i]! - means[k]![0], x[i + 1]! - means[k]![1]];
        half[k] = (dx * dx + dy * dy) / (2 * variances[k]!);
        if (half[k]! < nearest) nearest = half[k]!;
      }
      let [total, sx, sy] = [0, 0, 0];
      for (let k = 0; k < count; k++) {
        const weight = (weights[k]! / variances[k]!) * exp(nearest - half[k]!);
        total += weight;
        sx += (weight * (means[k]![0] - x[i]!)) / variances[k]!;
        sy += (weight * (means[k]![1] - x[i + 1]!)) / variances[k]!;
      }
      score[i] = sx / total;
      score[i + 1] = sy / total;
    }
    return score;
  };

export function formula(spec: ModelSpec): Formula {
  if (spec.name === 'toy') return toy;
  if (spec.name === 'lin') return lin;
  if (spec.name === 'gauss') return gauss(spec.mu!);
  if (spec.name === 'gmm') return mixture(spec.weights!, spec.means!, spec.stds!);
  throw new Error(`unknown model ${spec.name}`);
}

/** The formula as the pipeline's model: every sample of a batch carries the same sigma there. */
export function modelOf(spec: ModelSpec): (sample: Tensor, sigma: Tensor) => Promise<Tensor> {
  const score = formula(spec);
  return (sample, sigma) =>
    Promise.resolve(new Tensor('float32', score(sample.data as Float32Array, Number(sigma.data[0])), [...sample.dims]));
}
