import { Buffer } from 'node:buffer';
import { types } from 'node:util';
import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { native } from '../native/addon';
import { DeviceMemory } from '../native/memory';
import { assertIdle } from '../native/order';
import { assertType, elementBytes, sizeOfDims, type TensorData, type TensorType } from './data';
import { cudaIndex, cudaStream } from './device';

/** CUDA Array Interface, version 3 (the protocol of Numba, CuPy and PyTorch). */
export interface CudaArrayInterface {
  /** The dims. */
  readonly shape: readonly number[];
  /** numpy's type string: '<f4', '<f2', '|u1', ...; '<V2' for bfloat16, which numpy does not have. */
  readonly typestr: string;
  /** The address, and whether the memory is read-only. */
  readonly data: readonly [pointer: bigint, readonly: boolean];
  /** null: the memory is dense and row-major. */
  readonly strides: null;
  /** The cudaStream_t that writes the elements: a consumer orders its work after it. */
  readonly stream: bigint;
  /** The protocol's version. */
  readonly version: 3;
}

/** What opens a tensor's memory in another process on the same machine; plain JSON. */
export interface IpcHandle {
  /** Element type. */
  readonly type: TensorType;
  /** The shape, row-major. */
  readonly dims: readonly number[];
  /** The device, 'cuda:N', as the exporting process numbers them. */
  readonly device: string;
  /** The 64 bytes of a cudaIpcMemHandle_t in base64, of a whole cudaMalloc block. */
  readonly handle: string;
  /** Bytes from the beginning of the block to the first element. Default 0. */
  readonly offset?: number | undefined;
}

export interface PointerOptions {
  /** Element type. Default 'float32'. */
  type?: TensorType | undefined;
  /** 'cuda' (cuda:0) or 'cuda:N'. Default 'cuda:0'. */
  device?: string | undefined;
  /** The owner of the memory, kept alive while the tensor is used. */
  owner?: unknown;
  /**
   * Called once, when the tensor is disposed or collected and the device has finished its work on it. Not called where the thread
   * ends before that (process.exit, terminate, an uncaught error).
   */
  release?: (() => void) | undefined;
  /** The cudaStream_t that writes the elements: this package's work on the tensor begins after its present work. */
  stream?: bigint | undefined;
}

export interface StreamOptions {
  /**
   * The cudaStream_t on which the other library works with the tensor. Default 1n, the legacy default stream: all streams but
   * those made with cudaStreamNonBlocking order themselves with it, so that a named stream leaves more work side by side. 2n, the
   * per-thread default stream, counts as 1n. toDLPack: the stream's later work begins after the present work on the tensor, and
   * memory that is given back is used again after what is on the stream when the deleter is called; the stream must live until
   * then. fromDLPack: this package's work on the tensor begins after the stream's present work.
   */
  stream?: bigint | undefined;
}

/** A Tensor, as far as this file uses it. tensor.ts, above this file, makes Tensors of what the functions here return. */
export interface Shared {
  readonly type: TensorType;
  readonly memory: TensorData | DeviceMemory;
  readonly dims: readonly number[];
}

/** The parts of a tensor on a device. */
export interface SharedOnDevice extends Shared {
  readonly memory: DeviceMemory;
}

/** numpy's type string, and DLPack's type code and bits. */
const formats: Record<TensorType, [typestr: string, code: number, bits: number]> = {
  float32: ['<f4', 2, 32],
  float16: ['<f2', 2, 16],
  bfloat16: ['<V2', 4, 16],
  float64: ['<f8', 2, 64],
  uint8: ['|u1', 1, 8],
  int32: ['<i4', 0, 32],
  int64: ['<i8', 0, 64],
};

/** The memory of a tensor on a device. ERR_CONFIG for a tensor on the CPU, ERR_BUSY, ERR_DISPOSED. */
function deviceMemoryOf(tensor: Shared, method: string): DeviceMemory {
  const { memory } = tensor;
  if (memory instanceof DeviceMemory) {
    // An asynchronous call that waits for its turn has not enqueued its work on the stream yet.
    assertIdle({ reads: [memory], writes: [] }, method);
    return memory;
  }
  throw new ScoreSdeError(
    'ERR_CONFIG',
    `${method} needs a tensor on a CUDA device, got one on the CPU: to('cuda') copies it`,
  );
}

/** See Tensor.fromPointer. */
export function fromPointer(pointer: bigint, dims: readonly number[], options: PointerOptions = {}): SharedOnDevice {
  assertOptions(options, ['type', 'device', 'owner', 'release', 'stream']);
  const { type = 'float32', owner, release } = options;
  assertType(type);
  if (typeof pointer !== 'bigint' || pointer <= 0n || pointer >= 2n ** 64n)
    throw new ScoreSdeError('ERR_CONFIG', `pointer must be an address as a bigint, got ${show(pointer)}`);
  if (release !== undefined && typeof release !== 'function')
    throw new ScoreSdeError('ERR_CONFIG', `release must be a function, got ${show(release)}`);
  const length = sizeOfDims(dims, 'dims');
  const stream = cudaStream(options.stream);
  const index = cudaIndex(options.device);
  const each = elementBytes(type);
  const bytes = length * each;
  if (pointer % BigInt(each) !== 0n)
    throw new ScoreSdeError('ERR_CONFIG', `pointer must be aligned to the ${each} bytes of ${type}`);
  // The closure keeps the owner alive.
  const end = owner === undefined && release === undefined ? null : () => void [owner, release?.()];
  // Before deviceFromPointer: `release` must not be called where fromPointer throws.
  if (stream !== undefined) native.deviceWaitFor(index, stream);
  const handle = native.deviceFromPointer(index, pointer, bytes, end);
  return { type, memory: new DeviceMemory(handle, index, length, bytes), dims };
}

/** See Tensor.cudaArrayInterface. */
export function cudaArrayInterface(tensor: Shared): CudaArrayInterface {
  const memory = deviceMemoryOf(tensor, 'cudaArrayInterface');
  return {
    shape: tensor.dims,
    typestr: formats[tensor.type][0],
    data: [BigInt(memory.byteOffset), memory.readOnly],
    strides: null,
    stream: native.deviceStream(memory.index),
    version: 3,
  };
}

/** The DLPack tensors that fromDLPack has taken: each can be taken once. */
const taken = new WeakSet<object>();

/**
 * The stream of the other library. That library may call the deleter on another thread, where 2n would be another stream. The
 * legacy stream orders itself with the per-thread streams of all threads.
 */
function dlpackStream(stream: unknown): bigint {
  const named = cudaStream(stream) ?? 1n;
  return named === 2n ? 1n : named;
}

/** See Tensor.toDLPack. */
export function toDLPack(tensor: Shared, options: StreamOptions = {}): object {
  assertOptions(options, ['stream']);
  const memory = deviceMemoryOf(tensor, 'toDLPack');
  const [, code, bits] = formats[tensor.type];
  return native.deviceToDlpack(memory.handle, tensor.dims, code, bits, dlpackStream(options.stream));
}

/** See Tensor.fromDLPack. */
export function fromDLPack(external: object, options: StreamOptions = {}): SharedOnDevice {
  assertOptions(options, ['stream']);
  if (!types.isExternal(external))
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `fromDLPack needs an external DLManagedTensorVersioned, got ${show(external)}`,
    );
  if (taken.has(external)) throw new ScoreSdeError('ERR_STATE', 'the DLPack tensor was taken already');
  const stream = dlpackStream(options.stream);
  const tensorTypes = Object.keys(formats) as TensorType[];
  const known = tensorTypes.flatMap((type) => formats[type].slice(1) as number[]);
  const { handle, device, dims, format, readOnly } = native.deviceFromDlpack(external, known, stream);
  taken.add(external);
  const type = tensorTypes[format]!;
  const length = sizeOfDims(dims, 'dims');
  return { type, memory: new DeviceMemory(handle, device, length, length * elementBytes(type), readOnly), dims };
}

/** See Tensor.toIpcHandle. */
export function toIpcHandle(tensor: Shared): IpcHandle {
  const memory = deviceMemoryOf(tensor, 'toIpcHandle');
  const { type, dims } = tensor;
  const handle = Buffer.from(native.deviceToIpc(memory.handle)).toString('base64');
  return { type, dims, device: memory.device, handle, offset: 0 };
}

/** See Tensor.fromIpcHandle. */
export function fromIpcHandle(json: IpcHandle): SharedOnDevice {
  const { type, dims, device, handle, offset = 0 } = (json ?? {}) as Partial<IpcHandle>;
  assertType(type);
  const bytes = typeof handle === 'string' ? Uint8Array.from(Buffer.from(handle, 'base64')) : new Uint8Array();
  if (bytes.length !== 64)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `handle must be the base64 of 64 bytes, as toIpcHandle gives it, got ${show(handle)}`,
    );
  const each = elementBytes(type);
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % each !== 0)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `offset must be a number of bytes, a multiple of the ${each} of ${type}, got ${show(offset)}`,
    );
  const length = sizeOfDims(dims, 'dims');
  const index = cudaIndex(device);
  const size = length * each;
  const opened = native.deviceFromIpc(index, bytes, offset, size);
  return { type, memory: new DeviceMemory(opened, index, length, size), dims: dims! };
}
