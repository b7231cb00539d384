import { readFileSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { ScoreSdeVeScheduler } from '../../lib';

const ROOT = join(__dirname, '..', 'golden');

const ARRAYS = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  I16: Int16Array,
  I8: Int8Array,
  U8: Uint8Array,
  BOOL: Uint8Array,
} as const;
type Dtype = keyof typeof ARRAYS;
const TYPES: Partial<Record<Dtype, string>> = { F64: 'float64', F32: 'float32', F16: 'float16', BF16: 'bfloat16' };

/** A stored tensor, in the shape that every tensor argument of the library takes. */
export interface GoldenTensor<A = Float32Array> {
  type: 'float32' | 'float16' | 'bfloat16';
  dims: number[];
  data: A;
}

export interface Golden<J> {
  json: J;
  /** The tensor of that name; throws where there is none. */
  tensor: <A = Float32Array>(name: string) => GoldenTensor<A>;
  has: (name: string) => boolean;
}

export interface SnakeConfig {
  num_train_timesteps: number;
  snr: number;
  sigma_min: number;
  sigma_max: number;
  sampling_eps: number;
  correct_steps: number;
}

/** [method, positional, keywords], or ["timesteps=None"]. */
export type SetupCall = [string, number[]?, Record<string, number>?];

export function readJson<J>(name: string): J {
  return JSON.parse(readFileSync(resolve(ROOT, `${name}.json`), 'utf8')) as J;
}

/** NAME.json with NAME.safetensors beside it, of the golden vectors or by an absolute path. */
export function golden<J>(name: string): Golden<J> {
  const file = readFileSync(resolve(ROOT, `${name}.safetensors`));
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start)) as Record<
    string,
    { dtype: Dtype; shape: number[]; data_offsets: [number, number] }
  >;
  delete header.__metadata__;
  return {
    json: readJson<J>(name),
    has: (key) => key in header,
    tensor: <A>(key: string) => {
      const entry = header[key];
      if (!entry) throw new Error(`${name} holds no tensor ${key}`);
      const [from, to] = entry.data_offsets;
      // A copy: the file's entries are not aligned.
      const bytes = new Uint8Array(file.subarray(start + from, start + to)).buffer;
      return {
        type: TYPES[entry.dtype] as GoldenTensor['type'],
        dims: entry.shape,
        data: new ARRAYS[entry.dtype](bytes) as A,
      };
    },
  };
}

/** The names in one folder of the golden vectors, as `golden()` takes them. */
export function goldens(folder: string): string[] {
  return readdirSync(join(ROOT, folder))
    .filter((file) => file.endsWith('.json'))
    .map((file) => `${folder}/${file.slice(0, -5)}`)
    .sort();
}

const camel = (key: string) => key.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase());

export function camelKeys(object: object): Record<string, number> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [camel(key), value as number]));
}

/** A scheduler with the stored configuration, brought into the stored state. */
export function schedulerOf(config: Partial<SnakeConfig>, setup: SetupCall[] = []): ScoreSdeVeScheduler {
  const scheduler = new ScoreSdeVeScheduler(camelKeys(config));
  for (const [method, args = [], keywords = {}] of setup) {
    if (method === 'timesteps=None') scheduler.timesteps = null;
    else if (method === 'set_timesteps') scheduler.setTimesteps(args[0]!, camelKeys(keywords));
    else if (method === 'set_sigmas') scheduler.setSigmas(args[0]!, camelKeys(keywords));
    else throw new Error(`unknown setup call ${method}`);
  }
  return scheduler;
}

/** Setup calls for n steps in the pipeline's order. */
export function steps(n: number): SetupCall[] {
  return [
    ['set_timesteps', [n]],
    ['set_sigmas', [n]],
  ];
}

/** tensor * factor, in float32. */
export function scaled(tensor: GoldenTensor, factor = 1): GoldenTensor {
  return { ...tensor, data: tensor.data.map((v) => v * factor) };
}

export function copyOf<T extends { data: { slice(): unknown } }>(tensor: T): T {
  return { ...tensor, data: tensor.data.slice() };
}

type Values = ArrayLike<number | bigint>;

/** Fails, naming how many values differ and where first, unless all are the same (-0 is not 0; NaN is NaN). */
export function bitEqual(actual: Values, expected: Values): void {
  compare(actual, expected, Object.is, 'the same bits');
}

/** Fails unless |actual - expected| <= tolerance everywhere; what is not finite must be the same. */
export function within(actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance: number): void {
  compare(
    actual,
    expected,
    (a, e) => Object.is(a, e) || Math.abs(Number(a) - Number(e)) <= tolerance,
    `<= ${tolerance}`,
  );
}

function compare(actual: Values, expected: Values, same: (a: unknown, e: unknown) => boolean, rule: string): void {
  if (actual.length !== expected.length) throw new Error(`${actual.length} values, expected ${expected.length}`);
  let count = 0;
  let first = 0;
  for (let i = expected.length - 1; i >= 0; i--) {
    if (same(actual[i], expected[i])) continue;
    count++;
    first = i;
  }
  if (count === 0) return;
  const where = `first at ${first}: got ${actual[first]}, expected ${expected[first]} (${rule})`;
  throw new Error(`${count} of ${expected.length} values differ, ${where}`);
}

export function maxAbsDiff(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let max = 0;
  for (let i = 0; i < b.length; i++) max = Math.max(max, Math.abs(a[i]! - b[i]!));
  return max;
}

/** The largest finite magnitude. */
export function maxAbs(values: ArrayLike<number>): number {
  let max = 0;
  for (let i = 0; i < values.length; i++) if (Number.isFinite(values[i])) max = Math.max(max, Math.abs(values[i]!));
  return max;
}

export function sum(values: ArrayLike<number>, f: (value: number) => number = (value) => value): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += f(values[i]!);
  return total;
}
