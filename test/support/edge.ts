import { Generator, ScoreSdeVeScheduler, Tensor, type StepOptions } from '../../lib';
import { bitEqual, maxAbs, schedulerOf, steps, sum, within, type SnakeConfig } from './golden';

/** A tensor as edge_cases.json writes it: all values, or the first ones and the sum of magnitudes. */
export interface StoredTensor {
  dtype: string;
  shape: number[];
  values?: (number | string)[];
  first?: number[];
  abs_sum?: number;
}

export interface EdgeCase<R = never> {
  id: string;
  what: string;
  ok: boolean;
  result: R;
  message: string;
}

/**
 * `equal`: what the reference does. `refused`: a typed error. `differs`: neither; the check says what happens instead.
 * Where the reference succeeds and this package does not, or the other way round, docs/parity.md must name the case.
 */
export interface Handler {
  verdict: 'equal' | 'refused' | 'differs';
  check(edge: EdgeCase): unknown;
}

export const equal = <R>(run: (result: R) => unknown): Handler => ({
  verdict: 'equal',
  check: ({ result }) => run(result as R),
});

export const differs = <R>(run: (result: R) => unknown): Handler => ({
  verdict: 'differs',
  check: ({ result }) => run(result as R),
});

/** The call must fail with that code, and say something. */
export const refused = (code: string, call: () => unknown): Handler => ({
  verdict: 'refused',
  check: async () => {
    const error: unknown = await Promise.resolve()
      .then(call)
      .then(
        () => undefined,
        (reason: unknown) => reason,
      );
    expect(error).toMatchObject({ name: 'ScoreSdeError', code, message: expect.stringMatching(/\w{3}/) as string });
  },
});

export type StoredPred = { prev_sample: StoredTensor; prev_sample_mean: StoredTensor };
export type StoredCorrect = { prev_sample: StoredTensor };

export const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
export const torch = (seed: number) => new Generator(seed, { engine: 'torch' });

/** The inputs that unless said otherwise every case has: X and M of shape (2,3,2,2), a scheduler of 10 steps. */
export const X = (dims = [2, 3, 2, 2]) => torch(100).randn(dims);
export const M = (dims = [2, 3, 2, 2]) => torch(101).randn(dims);
export const scheduler = (n = 10, config: Partial<SnakeConfig> = {}) => schedulerOf(config, steps(n));

type Options = Pick<StepOptions, 'generator' | 'noise'>;
export type Input = { data: unknown; dims: readonly number[]; type?: string };
export type Pred = { prevSample: Tensor; prevSampleMean: Tensor };

interface Inputs {
  s?: ScoreSdeVeScheduler;
  t?: unknown;
  sample?: Input;
  model?: Input;
  options?: Options;
}

/** stepPred with everything that a case does not name at its default. */
export function pred({ s = scheduler(), t = 0.5, sample = X(), model = M(), options }: Inputs = {}): Pred {
  return s.stepPred(model as Tensor, t as number, sample as Tensor, options ?? { generator: torch(0) }) as Pred;
}

export function correct({ s = scheduler(), sample = X(), model = M(), options }: Inputs = {}): { prevSample: Tensor } {
  return s.stepCorrect(model as Tensor, sample as Tensor, options ?? { generator: torch(0) });
}

export const addNoise = (indices: unknown, { sample = X(), noise = M() }: { sample?: Input; noise?: Input } = {}) =>
  scheduler().addNoise(sample as Tensor, noise as Tensor, indices as number[]);

/** One corrector step is compared within this share of the largest value: the reference sums its norms in float32. */
const CORRECTOR = 5e-6;

export function sameTensor(actual: Tensor | Float32Array, stored: StoredTensor, tolerance = 0): void {
  const data = (actual instanceof Float32Array ? actual : actual.data) as Float32Array;
  if (!(actual instanceof Float32Array)) expect([...actual.dims]).toEqual(stored.shape);
  const expected = (stored.values ?? stored.first!).map(toNumber);
  if (stored.first) {
    const total = sum(data, Math.abs);
    expect(Math.abs(total - stored.abs_sum!)).toBeLessThanOrEqual(Math.max(1e-6, tolerance) * stored.abs_sum!);
  } else expect(data).toHaveLength(expected.length);
  const head = data.subarray(0, expected.length);
  if (tolerance === 0) bitEqual(head, expected);
  else within(head, expected, tolerance * maxAbs(expected));
}

export function samePred(actual: Pred, stored: StoredPred): void {
  sameTensor(actual.prevSample, stored.prev_sample);
  sameTensor(actual.prevSampleMean, stored.prev_sample_mean);
}

export function sameCorrect(actual: { prevSample: Tensor }, stored: StoredCorrect): void {
  sameTensor(actual.prevSample, stored.prev_sample, CORRECTOR);
}

function toNumber(value: number | string): number {
  return value === 'inf' ? Infinity : value === '-inf' ? -Infinity : Number(value);
}

/** What step_pred's noise is multiplied with, for the index of each sample: the only trace that an index leaves. */
export function diffusionOf(s: ScoreSdeVeScheduler, index: number): number {
  const f32 = Math.fround;
  const sigma = s.discreteSigmas[index]!;
  const adjacent = index === 0 ? 0 : s.discreteSigmas[index - 1]!;
  return f32(Math.sqrt(f32(f32(sigma * sigma) - f32(adjacent * adjacent))));
}

/** A tensor with its values rounded to a 16-bit type. */
export function toHalf(tensor: Tensor, type: 'float16' | 'bfloat16'): Input {
  const data = Uint16Array.from(tensor.data as Float32Array, (value) => halfBits(type, value));
  return { type, data, dims: tensor.dims };
}

/** For values that are normal numbers of the type. */
function halfBits(type: 'float16' | 'bfloat16', value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  const shift = type === 'float16' ? 13 : 16;
  const rounded = bits + (1 << (shift - 1)) - 1 + ((bits >>> shift) & 1);
  if (type === 'bfloat16') return (rounded >>> 16) & 0xffff;
  return ((bits >>> 16) & 0x8000) | (((rounded & 0x7fffffff) >>> 13) - (112 << 10));
}
