import { reasonOf, ScoreSdeError } from '../errors';
import { show } from '../options';
import { Dtype, type StateMemory } from '../native/abi';
import { DeviceMemory, placeOf, type Memory } from '../native/memory';
import { assertFixed, sizeOfDims, typedData } from './data';
import { Tensor, type TensorLike } from './tensor';

/** A tensor argument of a kernel, checked. `name` is the argument's in error messages. */
export interface Operand {
  name: string;
  memory: Memory;
  type: Dtype;
  dims: readonly number[];
}

export type StateType = keyof typeof Dtype;

/** The Dtype of a name. ERR_DTYPE unless it is float32, float16 or bfloat16. */
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

/** Whether strides (in elements) are those of a dense, row-major array; true where there are none. */
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

/** Checks a tensor argument. ERR_DTYPE, ERR_SHAPE, ERR_DISPOSED. */
export function operand(value: TensorLike, name: string): Operand {
  if (value instanceof Tensor) {
    const memory = value.held as Memory | undefined;
    if (memory === undefined) throw new ScoreSdeError('ERR_DISPOSED', `${name} is a disposed tensor`);
    const dtype = stateDtype(value.type, name);
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
    given = value.data; // throws for an ort.Tensor that is disposed or not on the CPU
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

/** A batch as a matrix: the first axis by the product of the others. ERR_SHAPE for a tensor without axes. */
export function batchShape({ name, dims, memory }: Operand): { rows: number; cols: number } {
  const rows = dims[0];
  if (rows === undefined) throw new ScoreSdeError('ERR_SHAPE', `${name} must have a batch axis, got dims []`);
  return { rows, cols: rows === 0 ? 0 : memory.length / rows };
}

/** Bytes of an element. */
export function bytesPerElement(type: Dtype): number {
  return type === Dtype.float32 ? 4 : 2;
}

/** ERR_CONFIG unless the operands of both lists are on the CPU, or all on one device. */
export function assertOnePlace(operands: readonly Operand[], more: readonly Operand[] = []): void {
  const first = operands[0]!;
  const place = placeOf(first.memory);
  const check = ({ name, memory }: Operand) => {
    if (placeOf(memory) !== place)
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `${name} must lie where ${first.name} does, on ${place}, got a tensor on ${placeOf(memory)}: to() moves one`,
      );
  };
  operands.forEach(check);
  more.forEach(check);
}

function overlaps(a: Memory, b: Memory): boolean {
  return (
    a.buffer === b.buffer && a.byteOffset < b.byteOffset + b.byteLength && b.byteOffset < a.byteOffset + a.byteLength
  );
}

/** ERR_ALIAS where an output overlaps another output, or overlaps an input without being exactly the same memory. */
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

/** ERR_ALIAS where the output overlaps the input at all: for work that still reads its input after it begins to write. */
export function assertApart(output: Operand, input: Operand): void {
  if (overlaps(output.memory, input.memory))
    throw new ScoreSdeError('ERR_ALIAS', `${output.name} and ${input.name} overlap: each needs memory of its own`);
}

/** A kernel's output: its memory as an operand, and the tensor to return. */
export interface Target {
  operand: Operand;
  tensor: Tensor;
}

/** The caller's `out`, or a new tensor with the dims of `like`. ERR_SHAPE, ERR_DTYPE, ERR_DISPOSED; ERR_CONFIG where `out` is read-only. */
export function target(
  out: TensorLike | undefined,
  like: Pick<Operand, 'name' | 'dims'>,
  name: string,
  options: { type?: StateType | undefined; device?: string | undefined } = {},
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
