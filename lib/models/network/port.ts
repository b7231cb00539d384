import { ScoreSdeError } from '../../errors';
import { show } from '../../options';
import { Dtype } from '../../native/abi';
import { native } from '../../native/addon';
import { assertPerRow, elementsOf, listOf } from '../../tensor/arguments';
import { sizeOfDims } from '../../tensor/tensor';
import type { ModelInput } from '../model';

/** An input or output of a network, as its metadata describes it. */
export interface Port {
  readonly name: string;
  /** Element type, in onnxruntime's words. */
  readonly type: string;
  /** Sizes, and names of those that are free. */
  readonly shape: readonly (number | string)[];
}

/** The value of an input, in the form that onnxruntime-node takes, too. */
export interface Feed {
  readonly type: string;
  readonly data: ArrayBufferView;
  readonly dims: readonly number[];
  readonly location: 'cpu';
  /** Whether every sample has a part of its own in it. */
  readonly perSample: boolean;
}

/** What a network makes of a batch. */
export interface BatchRules {
  readonly size: number;
  /** The size that the network's metadata fix, where calls are made to fit it. */
  readonly fixed?: number;
  /** The name of the batch's axis, where it has one. */
  readonly axis?: string;
  /** Whether samples may go one by one, each with a value of its own where the network takes one a call. */
  readonly divisible: boolean;
}

type NumberArray = { [index: number]: number | bigint | boolean; readonly length: number } & ArrayBufferView;
type NumberArrayClass = new (length: number) => NumberArray;

const floats: Record<string, NumberArrayClass> = { float32: Float32Array, float64: Float64Array };
const integers: Record<string, NumberArrayClass> = {
  bool: Uint8Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
};

export const isFloat = (port: Port): boolean => port.type in floats || port.type === 'float16';
export const isInteger = (port: Port): boolean => port.type in integers;
/** Whether it takes one number a sample, or one in all. */
export const isPerSample = (port: Port): boolean => port.shape.slice(1).every((dim) => dim === 1);

const shapeText = ({ shape }: Port): string => `[${shape.join(', ')}]`;
const portText = (port: Port): string => `${port.name} (${port.type} ${shapeText(port)})`;
export const portsText = (ports: readonly Port[]): string => ports.map(portText).join(', ') || 'none';

/** ERR_SHAPE unless a tensor of these dims fits the port, from an axis on. */
export function assertFits(port: Port, dims: readonly number[], name = port.name, axis = 0): void {
  const fits = port.shape.every((d, i) => i < axis || typeof d === 'string' || d === dims[i]);
  if (dims.length !== port.shape.length || !fits)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `${name} must have dims ${shapeText(port)} for this model, got [${dims.join(', ')}]`,
    );
}

/** Numbers of any type to an array of the port's; ERR_RANGE where the type does not hold one, ERR_MODEL where no number is of that type. */
function cast(port: Port, values: readonly unknown[], name: string): ArrayBufferView {
  for (const value of values)
    if (typeof value !== 'number' && typeof value !== 'bigint' && typeof value !== 'boolean')
      throw new ScoreSdeError('ERR_DTYPE', `${name} must hold numbers, got ${show(value)}`);
  const numbers = values as readonly (number | bigint | boolean)[];
  if (port.type === 'float16') return toFloat16(Float32Array.from(numbers, Number));
  if (port.type in floats) {
    const data = new floats[port.type]!(numbers.length);
    numbers.forEach((value, i) => (data[i] = Number(value)));
    return data;
  }
  const Class = integers[port.type];
  if (Class === undefined)
    throw new ScoreSdeError('ERR_MODEL', `the model's input ${portsText([port])} takes no numbers`);
  const data = new Class(numbers.length);
  const big = port.type.endsWith('64');
  numbers.forEach((value, i) => {
    const whole = typeof value === 'number' && !Number.isInteger(value) ? undefined : value;
    if (whole !== undefined) data[i] = big ? BigInt(whole) : Number(whole);
    if (whole === undefined || BigInt(data[i]!) !== BigInt(whole) || (port.type === 'bool' && Number(whole) > 1))
      throw new ScoreSdeError('ERR_RANGE', `${name} must hold values of ${port.type}, got ${show(value)}`);
  });
  return data;
}

export function toFloat16(values: Float32Array): Uint16Array {
  const bits = new Uint16Array(values.length);
  native.convert(values.length, values, Dtype.float32, bits, Dtype.float16);
  return bits;
}

function feedOf(
  port: Port,
  values: readonly unknown[],
  dims: readonly number[],
  name: string,
  perSample: boolean,
  batch: BatchRules,
): Feed {
  assertFits(port, dims, name, perSample && port.shape[0] === batch.fixed ? 1 : 0);
  return { type: port.type, data: cast(port, values, name), dims, location: 'cpu', perSample };
}

/** One value a sample where the port has a batch axis, one for all where it has none. ERR_SHAPE, ERR_RANGE, ERR_DTYPE. */
export function feedPerSample(port: Port, list: ArrayLike<unknown>, batch: BatchRules, name: string): Feed {
  if (!isPerSample(port)) throw new ScoreSdeError('ERR_SHAPE', `${name} must be a tensor of dims ${shapeText(port)}`);
  const { size } = batch;
  assertPerRow(list, size, name);
  const values = list.length === size ? Array.from(list) : new Array<unknown>(size).fill(list[0]);
  const ones = port.shape.map(() => 1);
  const hasBatch = port.shape.length > 0 && port.shape[0] !== 1;
  if (hasBatch) return feedOf(port, values, [size, ...ones.slice(1)], name, true, batch);
  if (values.every((value) => value === values[0])) return feedOf(port, values.slice(0, 1), ones, name, false, batch);
  if (!batch.divisible)
    throw new ScoreSdeError('ERR_SHAPE', `${name} must be the same for all samples: this model takes one value a call`);
  return { ...feedOf(port, [], ones, name, true, batch), data: cast(port, values, name) };
}

/** Whether a tensor's first axis is the batch's: by its name where both have one, by its size where that is fixed. */
function isBatchAxis(axis: number | string | undefined, batch: BatchRules): boolean {
  if (typeof axis === 'number') return axis !== 1 && (batch.fixed === undefined || axis === batch.fixed);
  return axis !== undefined && (batch.axis === undefined || axis === '?' || axis === batch.axis);
}

/** A user's value of a further input, cast to what the port takes. */
export function feed(port: Port, value: ModelInput, batch: BatchRules): Feed {
  const name = `modelInputs.${port.name}`;
  if (port.shape.length > 1 && value !== null && typeof value === 'object' && 'dims' in value && 'data' in value) {
    const size = sizeOfDims(value.dims, `${name}.dims`);
    const elements = Array.from(elementsOf(value, name));
    const dims = Array.from(value.dims);
    if (elements.length !== size)
      throw new ScoreSdeError('ERR_SHAPE', `${name} has dims [${dims.join(', ')}] and ${elements.length} elements`);
    const perSample = dims[0] === batch.size && isBatchAxis(port.shape[0], batch);
    return feedOf(port, elements, dims, name, perSample, batch);
  }
  const list = listOf(value, name);
  if (list === undefined)
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `${name} must be a number, one for each sample, or a tensor, got ${show(value)}`,
    );
  return feedPerSample(port, list, batch, name);
}
