import { ScoreSdeError } from '../errors';
import { show } from '../options';
import type { ModelInput } from '../models/model';
import type { Json } from '../solvers/solver';
import type { Stored } from './safetensors';

// Model inputs in a saved run. They come back as what they were: numbers as numbers, arrays as arrays, tensors as tensors.

type NumberArray = ArrayBufferView & ArrayLike<number | bigint>;

/** Element types: this package's and onnxruntime's name, the format's, and the arrays that hold their elements. */
const kinds: readonly [type: string, dtype: string, Class: new (buffer: ArrayBuffer) => NumberArray][] = [
  ['float64', 'F64', Float64Array],
  ['float32', 'F32', Float32Array],
  ['float16', 'F16', Uint16Array],
  ['bfloat16', 'BF16', Uint16Array],
  ['int64', 'I64', BigInt64Array],
  ['uint64', 'U64', BigUint64Array],
  ['int32', 'I32', Int32Array],
  ['uint32', 'U32', Uint32Array],
  ['uint16', 'U16', Uint16Array],
  ['int16', 'I16', Int16Array],
  ['int8', 'I8', Int8Array],
  ['uint8', 'U8', Uint8Array],
  ['bool', 'BOOL', Uint8Array],
];

/** An input as it is saved: JSON and, where its elements lie in a typed array, a tensor. */
export interface SavedInput {
  readonly json: Json;
  readonly tensor?: Stored | undefined;
}

/**
 * An input to be saved. In its JSON, what JSON has no word for is an object of one key: { bigint }, { number } (not finite, or -0),
 * { array } (a typed array of that class), { tensor } (a tensor of that element type), { dims, data } (a tensor of a plain array).
 * @throws ScoreSdeError ERR_CONFIG where a file cannot hold it
 */
export function savedInput(input: unknown, name: string): SavedInput {
  const fail = (): never => {
    throw new ScoreSdeError('ERR_CONFIG', `modelInputs.${name} cannot be saved, got ${show(input)}`);
  };
  const plain = (value: unknown): Json => {
    if (typeof value === 'bigint') return { bigint: String(value) };
    if (typeof value === 'number')
      return Number.isFinite(value) && !Object.is(value, -0)
        ? value
        : { number: Object.is(value, -0) ? '-0' : String(value) };
    return typeof value === 'boolean' || typeof value === 'string' || value === null ? value : fail();
  };
  if (input === null || typeof input !== 'object') return { json: plain(input) };
  if (Array.isArray(input)) return { json: input.map(plain) };
  const elements = (data: unknown, type: unknown, shape?: readonly number[]): [Stored, string, string] => {
    const Class = Object.prototype.toString.call(data).slice(8, -1);
    const kind = kinds.find(([each, , { name }]) => (type === undefined || type === each) && name === Class);
    if (!ArrayBuffer.isView(data) || kind === undefined) return fail();
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
    return [{ dtype: kind[1], shape: shape ?? [(data as NumberArray).length], data: bytes }, kind[0], Class];
  };
  if (ArrayBuffer.isView(input)) {
    const [tensor, , Class] = elements(input, undefined);
    return { json: { array: Class }, tensor };
  }
  if (!('dims' in input) || !('data' in input)) return fail();
  const { data, dims, type } = input as { data: unknown; dims: readonly number[]; type?: unknown };
  const shape = Array.from(dims);
  if (Array.isArray(data)) return { json: { dims: shape, data: data.map(plain) } };
  const [tensor, named] = elements(data, type, shape);
  return { json: { tensor: named }, tensor };
}

/** The input that {@link savedInput} saved. Throws whatever where the JSON is not of its making. */
export function restoredInput(json: Json, tensor: Stored | undefined): ModelInput {
  const plain = (value: Json): unknown => {
    if (value === null || typeof value !== 'object') return value;
    return 'bigint' in value ? BigInt(value.bigint as string) : Number((value as { number: string }).number);
  };
  if (Array.isArray(json)) return json.map(plain) as ModelInput;
  if (json === null || typeof json !== 'object') return json as ModelInput;
  const { dims, data, array } = json as {
    dims?: number[] | undefined;
    data?: Json[] | undefined;
    array?: string | undefined;
  };
  if (data !== undefined) return { dims, data: data.map(plain) } as ModelInput;
  if (tensor === undefined) return plain(json) as ModelInput;
  const [type, , Class] = kinds.find(([, dtype]) => dtype === tensor.dtype)!;
  const elements = new Class(tensor.data.slice().buffer);
  return (array === undefined ? { type, data: elements, dims: tensor.shape } : elements) as ModelInput;
}
