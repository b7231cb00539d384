import { ScoreSdeError } from '../../errors';
import { show } from '../../options';
import { Dtype } from '../../native/abi';
import { native } from '../../native/addon';
import { assertPerRow, elementsOf, listOf } from '../../tensor/arguments';
import { sizeOfDims } from '../../tensor/data';
import type { ModelInput } from '../model';

/** An input or output of a network, as its metadata describes it. */
export interface Port {
  /** Its name in the network. */
  readonly name: string;
  /** Element type, by onnxruntime's name. */
  readonly type: string;
  /** Sizes, and the names of free ones; '?' for a free size without a name. */
  readonly shape: readonly (number | string)[];
}

/** The value of an input. onnxruntime-node takes it as a tensor. */
export interface Feed {
  readonly type: string;
  readonly data: ArrayBufferView;
  readonly dims: readonly number[];
  readonly location: 'cpu';
  /** Whether each sample has its own part of the data. */
  readonly perSample: boolean;
}

/** A batch, and how a network takes it. */
export interface BatchRules {
  /** The number of samples. */
  readonly size: number;
  /** The batch size that the network fixes, where the caller fills calls up to it. */
  readonly fixed?: number | undefined;
  /** The name of the batch axis, if it has one. */
  readonly axis?: string | undefined;
  /** Whether each sample may have a call of its own, so that an input of one value a call can differ among samples. */
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
/** Whether a port takes one number for each sample, or one for all. */
export const isPerSample = (port: Port): boolean => port.shape.slice(1).every((dim) => dim === 1);

const shapeText = ({ shape }: Port): string => `[${shape.join(', ')}]`;
const portText = (port: Port): string => `${port.name} (${port.type} ${shapeText(port)})`;
export const portsText = (ports: readonly Port[]): string => ports.map(portText).join(', ') || 'none';

/** ERR_SHAPE unless `dims` have the port's rank, and its sizes from `axis` on. */
export function assertFits(port: Port, dims: readonly number[], name = port.name, axis = 0): void {
  const fits = port.shape.every((d, i) => i < axis || typeof d === 'string' || d === dims[i]);
  if (dims.length !== port.shape.length || !fits)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `${name} must have dims ${shapeText(port)} for this model, got [${dims.join(', ')}]`,
    );
}

/** Numbers as an array of the port's type. ERR_DTYPE, ERR_RANGE (a number that the type does not hold), ERR_MODEL (a type without numbers). */
function toPortType(port: Port, values: readonly unknown[], name: string): ArrayBufferView {
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
  return { type: port.type, data: toPortType(port, values, name), dims, location: 'cpu', perSample };
}

/** A feed of numbers: one for each sample if the port has a batch axis, else one for all. ERR_SHAPE, ERR_RANGE, ERR_DTYPE. */
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
  return { ...feedOf(port, [], ones, name, true, batch), data: toPortType(port, values, name) };
}

/** Whether a port's first axis is the batch axis: by its name if both are named, by its size if that is fixed. */
function isBatchAxis(axis: number | string | undefined, batch: BatchRules): boolean {
  if (typeof axis === 'number') return axis !== 1 && (batch.fixed === undefined || axis === batch.fixed);
  return axis !== undefined && (batch.axis === undefined || axis === '?' || axis === batch.axis);
}

/** Whether a port takes a row of numbers for each sample. */
const isOfRows = ({ shape }: Port): boolean => shape.length === 2 && typeof shape[1] === 'number' && shape[1] > 1;

/**
 * Classes as rows of zeros with a one, for a port of floats of such rows; any other value as it is. ERR_SHAPE, ERR_RANGE.
 */
export function oneHot(port: Port, value: ModelInput, size: number): ModelInput {
  const name = `modelInputs.${port.name}`;
  const isTensor = typeof value === 'object' && value !== null && 'dims' in value;
  const list = isTensor ? undefined : listOf(value, name);
  if (list === undefined || !isFloat(port) || !isOfRows(port)) return value;
  assertPerRow(list, size, name);
  const classes = port.shape[1] as number;
  const data = new Float32Array(size * classes);
  for (let row = 0; row < size; row++) {
    const label = Number(list[list.length === 1 ? 0 : row]);
    if (!Number.isInteger(label) || label < 0 || label >= classes)
      throw new ScoreSdeError('ERR_RANGE', `${name} must hold classes from 0 to ${classes - 1}, got ${label}`);
    data[row * classes + label] = 1;
  }
  return { data, dims: [size, classes] };
}

/** The feed of a further input from the user's value. ERR_SHAPE, ERR_RANGE, ERR_DTYPE, ERR_DISPOSED, ERR_MODEL. */
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
