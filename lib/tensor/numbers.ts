import { ScoreSdeError, show } from '../errors';
import { Dtype, native } from '../native';
import { typedData } from './tensor';

/** Numbers of an argument that may be one for all samples or one a sample: a number, an array, a typed array or a tensor. */
export type PerSample =
  number | readonly number[] | ArrayLike<number> | { readonly data: unknown; readonly dims: readonly number[] };

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value);
}

/** The numbers of `value`, or undefined where it is none of the forms. ERR_SHAPE for a tensor of rank 2 or more. */
function listOf(value: unknown, name: string): ArrayLike<unknown> | undefined {
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') return [value];
  if (isList(value)) return value;
  if (value === null || typeof value !== 'object' || !('data' in value) || !isList(value.data)) return undefined;
  const { data: given, dims, type: named } = value as { data: unknown; dims?: unknown; type?: unknown };
  if (isList(dims) && dims.length > 1)
    throw new ScoreSdeError('ERR_SHAPE', `${name} must have at most one axis, got dims ${show(Array.from(dims))}`);
  if (!ArrayBuffer.isView(given)) return given as ArrayLike<unknown>;
  const { data, type } = typedData(given, named, name);
  if (type !== 'float16' && type !== 'bfloat16') return data as ArrayLike<number | bigint>;
  const widened = new Float32Array(data.length);
  native.convert(data.length, data as Uint16Array, Dtype[type], widened, Dtype.float32);
  return widened;
}

/** One number a row, from one for all or one each. ERR_RANGE for what is no number, ERR_SHAPE for another count. */
export function perSample(value: unknown, rows: number, name: string): number[] {
  const list = listOf(value, name);
  if (list === undefined)
    throw new ScoreSdeError('ERR_RANGE', `${name} must be a number, or one for each sample, got ${show(value)}`);
  if (list.length !== 1 && list.length !== rows)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `${name} must be one number, or one for each of the ${rows} samples, got ${list.length}`,
    );
  const numbers = Array.from(list, (v) => (typeof v === 'string' ? NaN : Number(v)));
  const bad = numbers.findIndex((v) => Number.isNaN(v));
  if (bad >= 0) throw new ScoreSdeError('ERR_RANGE', `${name} must not be NaN, got ${show(list[bad])}`);
  return list.length === rows ? numbers : new Array<number>(rows).fill(numbers[0]!);
}

/** Integer indices, as the reference takes int64 tensors: a number, an array, an Int32Array, a BigInt64Array, or a tensor of those. */
export function indicesOf(value: unknown, name: string): number[] {
  const list = listOf(value, name);
  const source = value !== null && typeof value === 'object' && 'data' in value ? value.data : value;
  const kind = Object.prototype.toString.call(source).slice(8, -1);
  if (
    list === undefined ||
    typeof value === 'boolean' ||
    !['Number', 'BigInt', 'Array', 'Int32Array', 'BigInt64Array'].includes(kind)
  )
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `${name} must be integers (an array, Int32Array or BigInt64Array), got ${show(source)}`,
    );
  return Array.from(list, (v) => {
    if ((typeof v !== 'number' && typeof v !== 'bigint') || !Number.isSafeInteger(Number(v)))
      throw new ScoreSdeError('ERR_DTYPE', `${name} must be integers, got ${show(v)}`);
    return Number(v);
  });
}
