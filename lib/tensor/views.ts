import { native } from '../native/addon';
import { DeviceMemory, type Memory } from '../native/memory';
import { stateTypeOf, type Operand } from './operand';
import { Tensor, type TensorType } from './tensor';

/** The same memory as a tensor of its own, for a reader who may dispose what it is given. */
export function viewOf<T extends TensorType>(tensor: Tensor<T>): Tensor<T> {
  return new Tensor<T>(tensor.type, tensor.memory as never, tensor.dims);
}

/** An operand's memory as a tensor of its own. */
export function tensorOf({ type, memory, dims }: Operand): Tensor<'float32'> {
  return new Tensor(stateTypeOf(type), memory as never, dims) as Tensor<'float32'>;
}

/** Rows `first` to `first + count - 1` of a tensor, where they lie; the tensor itself where that is all of it. */
export function rowsOf<T extends TensorType>(tensor: Tensor<T>, first: number, count: number): Tensor<T> {
  const [rows = 0, ...shape] = tensor.dims;
  if (first === 0 && count === rows) return tensor;
  const each = tensor.size / rows;
  const memory = tensor.memory as Memory;
  return new Tensor<T>(tensor.type, slice(memory, first * each, count * each) as never, [count, ...shape]);
}

/** Elements of a memory, which live as long as the whole. */
function slice(memory: Memory, first: number, count: number): Memory {
  if (!(memory instanceof DeviceMemory)) return memory.subarray(first, first + count);
  const width = memory.byteLength / memory.length;
  const part = native.deviceSlice(memory.handle, first * width, count * width);
  return new DeviceMemory(part, memory.index, count, count * width, memory.readOnly);
}
