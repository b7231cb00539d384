import { reasonOf, ScoreSdeError } from '../errors';
import { show } from '../options';
import { typedData, widened } from './data';
import { Tensor } from './tensor';

/** One number for all samples, or one for each: a number, an array, a typed array, or a tensor of at most one axis. */
export type PerSample =
  number | readonly number[] | ArrayLike<number> | { readonly data: unknown; readonly dims: readonly number[] };

function isList(value: unknown): value is ArrayLike<unknown> {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && 'length' in value);
}

/** The values of a PerSample argument, 16-bit floats as float32; undefined for any other value. ERR_SHAPE for more than one axis. */
export function listOf(value: unknown, name: string): ArrayLike<unknown> | undefined {
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') return [value];
  // A detached typed array throws when it is iterated.
  if (isList(value)) return value.length === 0 ? [] : value;
  if (value === null || typeof value !== 'object' || !('data' in value)) return undefined;
  const data = dataOf(value, name);
  if (!isList(data)) return undefined;
  const { dims } = value as { dims?: unknown };
  if (isList(dims) && dims.length > 1)
    throw new ScoreSdeError('ERR_SHAPE', `${name} must have at most one axis, got dims ${show(Array.from(dims))}`);
  return elementsOf({ data, type: (value as { type?: unknown }).type }, name);
}

/** The data of a tensor. ERR_DISPOSED where it is disposed or not on the CPU. */
function dataOf(value: { data?: unknown }, name: string): unknown {
  if (value instanceof Tensor && value.disposed)
    throw new ScoreSdeError('ERR_DISPOSED', `${name} is a disposed tensor`);
  try {
    return value.data;
  } catch (cause) {
    throw new ScoreSdeError('ERR_DISPOSED', `${name} has no data on the CPU: ${reasonOf(cause)}`, { cause });
  }
}

/** The element types that onnxruntime's tensors have and this package's have not, and the class of their data. */
const onlyOnnxruntime: Record<string, string> = {
  bool: 'Uint8Array',
  int8: 'Int8Array',
  int16: 'Int16Array',
  uint16: 'Uint16Array',
  uint32: 'Uint32Array',
  uint64: 'BigUint64Array',
};

/** The elements of an object with `data`, 16-bit floats as float32. ERR_DTYPE, ERR_DISPOSED. */
export function elementsOf(like: { data?: unknown; type?: unknown }, name: string): ArrayLike<unknown> {
  const given = dataOf(like, name);
  if (Array.isArray(given)) return given as unknown[];
  const kind = Object.prototype.toString.call(given).slice(8, -1);
  const isNumbers =
    like.type === undefined
      ? ['Int8Array', 'Int16Array', 'Uint32Array', 'BigUint64Array'].includes(kind)
      : typeof like.type === 'string' &&
        Object.hasOwn(onlyOnnxruntime, like.type) &&
        onlyOnnxruntime[like.type] === kind;
  if (isNumbers) return given as ArrayLike<unknown>;
  const { data, type } = typedData(given, like.type, name);
  return widened(data, type);
}

/** ERR_SHAPE unless `list` has one value, or `rows` values. */
export function assertPerRow(list: ArrayLike<unknown>, rows: number, name: string): void {
  if (list.length !== 1 && list.length !== rows)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `${name} must be one number, or one for each of the ${rows} samples, got ${list.length}`,
    );
}

/** The numbers of a PerSample argument: one for all rows, or one for each. ERR_RANGE for a value that is no number, ERR_SHAPE for another count. */
export function numbersOf(value: unknown, rows: number, name: string): number[] {
  if (typeof value === 'number' && !Number.isNaN(value)) return [value];
  const list = listOf(value, name);
  if (list === undefined)
    throw new ScoreSdeError('ERR_RANGE', `${name} must be a number, or one for each sample, got ${show(value)}`);
  assertPerRow(list, rows, name);
  return Array.from(list, (v) => {
    const number = typeof v === 'number' || typeof v === 'bigint' || typeof v === 'boolean' ? Number(v) : NaN;
    if (Number.isNaN(number)) throw new ScoreSdeError('ERR_RANGE', `${name} must not be NaN, got ${show(v)}`);
    return number;
  });
}

/** What integers come in, by the names of their classes. */
const integerKinds = ['Number', 'BigInt', 'Array', 'Int32Array', 'BigInt64Array'];

/** Integers: a number, an array, an Int32Array, a BigInt64Array, or a tensor of those (int64 in the reference). ERR_DTYPE for anything else. */
export function indicesOf(value: unknown, name: string): number[] {
  const list = listOf(value, name);
  const source = value !== null && typeof value === 'object' && 'data' in value ? value.data : value;
  const kind = Object.prototype.toString.call(source).slice(8, -1);
  if (list === undefined || typeof value === 'boolean' || !integerKinds.includes(kind))
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `${name} must be integers (an array, Int32Array or BigInt64Array), got ${show(source)}`,
    );
  const indices: number[] = [];
  for (let i = 0; i < list.length; i++) {
    const index = list[i];
    if (typeof index !== 'bigint' && !Number.isSafeInteger(index))
      throw new ScoreSdeError('ERR_DTYPE', `${name} must be integers, got ${show(index)}`);
    indices.push(Number(index));
  }
  return indices;
}
