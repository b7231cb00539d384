import { ScoreSdeError } from '../errors';
import { show } from '../options';
import { Dtype } from '../native/abi';
import { native } from '../native/addon';

export interface DataTypes {
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float64: Float64Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
}

/** Element types. States are float32, float16 or bfloat16 (16-bit floats as their bits); the others are for model inputs and images. */
export type TensorType = keyof DataTypes;
export type TensorData = DataTypes[TensorType];

type ArrayOf<T extends TensorData> = {
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): T;
  BYTES_PER_ELEMENT: number;
};

const arrays: { [T in TensorType]: ArrayOf<DataTypes[T]> } = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  float64: Float64Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
};

// An array of another realm (a jest test, a vm context) is an instance of no class here: arrays are told apart by their names.
const typeOfArray: Record<string, TensorType> = {
  Float32Array: 'float32',
  Uint16Array: 'float16',
  Float16Array: 'float16',
  Float64Array: 'float64',
  Uint8Array: 'uint8',
  Uint8ClampedArray: 'uint8',
  Int32Array: 'int32',
  BigInt64Array: 'int64',
};

/** ERR_DTYPE unless `type` is an element type. */
export function assertType(type: unknown): asserts type is TensorType {
  if (typeof type !== 'string' || !Object.hasOwn(arrays, type))
    throw new ScoreSdeError('ERR_DTYPE', `type must be one of ${Object.keys(arrays).join(', ')}, got ${show(type)}`);
}

/** Bytes of one element. */
export function elementBytes(type: TensorType): number {
  return arrays[type].BYTES_PER_ELEMENT;
}

/** The elements of a whole buffer. */
export function arrayOver<T extends TensorType>(type: T, buffer: ArrayBuffer): DataTypes[T] {
  return new arrays[type](buffer);
}

/** Why a buffer cannot be used, or undefined. Node-API takes no SharedArrayBuffer; a resizable buffer may shrink during a call. */
export function unfixed(buffer: ArrayBufferLike & { resizable?: boolean | undefined }): string | undefined {
  // Not `instanceof SharedArrayBuffer`: the buffer may be of another realm.
  const isShared =
    !(buffer instanceof ArrayBuffer) && Object.prototype.toString.call(buffer) === '[object SharedArrayBuffer]';
  return isShared ? 'a SharedArrayBuffer' : buffer.resizable ? 'a resizable one' : undefined;
}

/** ERR_DTYPE unless `memory` is in an ArrayBuffer of fixed size. */
export function assertFixed(memory: ArrayBufferView, name: string): void {
  const wrong = unfixed(memory.buffer);
  if (wrong !== undefined)
    throw new ScoreSdeError('ERR_DTYPE', `${name} must lie in an ArrayBuffer of fixed size, got ${wrong}`);
}

/** The product of `dims`, 1 for []. ERR_SHAPE unless they are non-negative integers whose product is at most 2^40. */
export function sizeOfDims(dims: unknown, name: string): number {
  if (!Array.isArray(dims) && !(ArrayBuffer.isView(dims) && 'length' in dims))
    throw new ScoreSdeError('ERR_SHAPE', `${name} must be an array of sizes, got ${show(dims)}`);
  let size = 1;
  for (const dim of dims as number[]) {
    if (!Number.isSafeInteger(dim) || dim < 0)
      throw new ScoreSdeError('ERR_SHAPE', `${name} must hold non-negative integers, got ${show(dim)}`);
    size *= dim;
    if (size > 2 ** 40)
      throw new ScoreSdeError(
        'ERR_SHAPE',
        `${name} ${show(Array.from(dims as number[]))} has more elements than memory could hold`,
      );
  }
  return size;
}

/**
 * A typed array as data of an element type. Without `type` the array's class decides; a Float16Array becomes its bits.
 * ERR_DTYPE where `data` is no typed array, or one of another type.
 */
export function typedData(data: unknown, type: unknown, name: string): { data: TensorData; type: TensorType } {
  const arrayName: string = ArrayBuffer.isView(data) ? (data as TensorData)[Symbol.toStringTag] : '';
  const implied = typeOfArray[arrayName];
  if (implied === undefined)
    throw new ScoreSdeError('ERR_DTYPE', `${name}.data must be a typed array such as Float32Array, got ${show(data)}`);
  const named = type === undefined ? implied : type;
  const fits = named === implied || (named === 'bfloat16' && arrayName === 'Uint16Array');
  if (!fits)
    throw new ScoreSdeError(
      'ERR_DTYPE',
      typeof named === 'string' && Object.hasOwn(arrays, named)
        ? `${name} of type '${named}' needs a ${arrays[named as TensorType].name}, got ${show(data)}`
        : `${name}.type must be one of ${Object.keys(arrays).join(', ')}, got ${show(named)}`,
    );
  const view = data as TensorData;
  const bits = arrayName === 'Float16Array' ? new Uint16Array(view.buffer, view.byteOffset, view.length) : view;
  return { data: bits, type: named as TensorType };
}

/** float16 or bfloat16 bits as float32 values; data of another type unchanged. */
export function widened(data: TensorData, type: TensorType): TensorData {
  if (type !== 'float16' && type !== 'bfloat16') return data;
  const values = new Float32Array(data.length);
  native.convert(data.length, data as Uint16Array, Dtype[type], values, Dtype.float32);
  return values;
}
