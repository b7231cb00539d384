import { reasonOf, ScoreSdeError } from '../errors';
import { show } from '../options';
import { Dtype, type StateMemory } from '../native/abi';
import { DeviceMemory, placeOf, type Memory } from '../native/memory';
import { assertFixed, sizeOfDims, Tensor, typedData, type TensorLike } from './tensor';

/** A state as the kernels take it. */
export interface Operand {
  name: string;
  memory: Memory;
  type: Dtype;
  dims: readonly number[];
}

export type StateType = keyof typeof Dtype;

/** A Dtype from its name; ERR_DTYPE for what is not a state's. */
export function stateDtype(type: unknown, name: string): Dtype {
  if (typeof type !== 'string' || !Object.hasOwn(Dtype, type))
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `${name} must be float32, float16 or bfloat16, got ${typeof type === 'string' && type ? type : show(type)}`,
    );
  return Dtype[type as StateType];
}

/** The name of a Dtype. */
export function stateTypeOf(type: Dtype): StateType {
  return (Object.keys(Dtype) as StateType[])[type]!;
}

/** Row-major order without gaps, for objects that know strides (in elements). */
function isContiguous(dims: readonly number[], strides: unknown): boolean {
  if (!Array.isArray(strides) && !ArrayBuffer.isView(strides)) return true;
  const steps = strides as ArrayLike<number>;
  let expected = 1;
  for (let i = dims.length - 1; i >= 0; i--) {
    if (dims[i] !== 1 && steps[i] !== expected) return false;
    expected *= dims[i]!;
  }
  return true;
}

/** Reads a tensor argument of a step. ERR_DTYPE, ERR_SHAPE, ERR_DISPOSED say what is wrong with which argument. */
export function operand(value: TensorLike, name: string): Operand {
  if (value instanceof Tensor) {
    if (value.disposed) throw new ScoreSdeError('ERR_DISPOSED', `${name} is a disposed tensor`);
    const dtype = stateDtype(value.type, name);
    const { memory } = value as { memory: Memory };
    if (!(memory instanceof DeviceMemory)) assertFixed(memory, name);
    return { name, memory, type: dtype, dims: value.dims };
  }
  if (value === null || typeof value !== 'object' || !('dims' in value) || !('data' in value))
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `${name} must be a Tensor or an object with data and dims, got ${show(value)}`,
    );
  let given: unknown;
  try {
    given = value.data; // an ort.Tensor that is disposed, or lies elsewhere, throws here
  } catch (cause) {
    throw new ScoreSdeError('ERR_DISPOSED', `${name} has no data on the CPU: ${reasonOf(cause)}`, { cause });
  }
  const size = sizeOfDims(value.dims, `${name}.dims`);
  const { data, type } = typedData(given, value.type, name);
  const dtype = stateDtype(type, name);
  if (data.length !== size)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `${name} has dims [${value.dims.join(', ')}], which need ${size} elements, and ${data.length} in data`,
    );
  if (!isContiguous(value.dims, (value as { strides?: unknown }).strides))
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `${name} must be contiguous in row-major order, got strides ${show((value as { strides?: unknown }).strides)}`,
    );
  assertFixed(data, name);
  return { name, memory: data as StateMemory, type: dtype, dims: value.dims };
}

/** ERR_SHAPE unless both have the same dims. */
export function assertSameDims(actual: Operand, expected: Pick<Operand, 'name' | 'dims'>): void {
  const rank = actual.dims.length;
  let same = rank === expected.dims.length;
  for (let i = 0; same && i < rank; i++) same = actual.dims[i] === expected.dims[i];
  if (same) return;
  throw new ScoreSdeError(
    'ERR_SHAPE',
    `${actual.name} must have the dims of ${expected.name}, [${expected.dims.join(', ')}], got [${actual.dims.join(', ')}]`,
  );
}

/** Rows and columns of a batch: ERR_SHAPE for a tensor without a batch axis. */
export function batchShape({ name, dims, memory }: Operand): { rows: number; cols: number } {
  const rows = dims[0];
  if (rows === undefined) throw new ScoreSdeError('ERR_SHAPE', `${name} must have a batch axis, got dims []`);
  return { rows, cols: rows === 0 ? 0 : memory.length / rows };
}

/** Bytes of an element. */
export function bytesPerElement(type: Dtype): number {
  return type === Dtype.float32 ? 4 : 2;
}

/** ERR_CONFIG unless all lie on the host, or on one device. */
export function assertOnePlace(operands: readonly Operand[]): void {
  const [first, ...rest] = operands;
  const place = placeOf(first!.memory);
  for (const { name, memory } of rest)
    if (placeOf(memory) !== place)
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `${name} must lie where ${first!.name} does, on ${place}, got a tensor on ${placeOf(memory)}: to() moves one`,
      );
}

function overlaps(a: Memory, b: Memory): boolean {
  return (
    a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength
  );
}

/** ERR_ALIAS where an output shares memory with an input other than exactly in place, or with another output at all. */
export function assertOutputs(outputs: Operand[], inputs: Operand[]): void {
  outputs.forEach((out, i) => {
    for (const input of inputs) {
      const same = out.memory.byteOffset === input.memory.byteOffset && out.type === input.type;
      if (overlaps(out.memory, input.memory) && !same)
        throw new ScoreSdeError(
          'ERR_ALIAS',
          `${out.name} overlaps ${input.name}: it may be the very same memory, with the same type, or memory of its own`,
        );
    }
    for (const other of outputs.slice(i + 1))
      if (overlaps(out.memory, other.memory))
        throw new ScoreSdeError('ERR_ALIAS', `${out.name} and ${other.name} overlap: each needs memory of its own`);
  });
}

/** ERR_ALIAS where an output shares memory with an input, even exactly: for work that reads to the end what it begins to write. */
export function assertApart(output: Operand, input: Operand): void {
  if (overlaps(output.memory, input.memory))
    throw new ScoreSdeError('ERR_ALIAS', `${output.name} and ${input.name} overlap: each needs memory of its own`);
}

/** The memory that a result goes to, and the tensor of it. */
export interface Target {
  operand: Operand;
  tensor: Tensor;
}

/** Where a result goes: the caller's `out`, or a new tensor. */
export function target(
  out: TensorLike | undefined,
  like: Pick<Operand, 'name' | 'dims'>,
  name: string,
  options: { type?: StateType; device?: string } = {},
): Target {
  if (out === undefined) {
    const tensor = Tensor.empty(like.dims, options);
    return { operand: operand(tensor, name), tensor };
  }
  const given = operand(out, name);
  assertSameDims(given, like);
  if (given.memory instanceof DeviceMemory && given.memory.readOnly)
    throw new ScoreSdeError('ERR_CONFIG', `${name} lies in memory that its owner lends to be read alone`);
  return {
    operand: given,
    tensor:
      out instanceof Tensor ? (out as Tensor) : new Tensor(stateTypeOf(given.type), given.memory as never, given.dims),
  };
}
