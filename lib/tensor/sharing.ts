import { types } from 'node:util';
import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { native } from '../native/addon';
import { deviceIndex, DeviceMemory } from '../native/memory';
import { assertIdle } from '../native/order';
import { sizeOfDims, Tensor, type TensorType } from './tensor';

/** CUDA Array Interface, version 3 (the protocol of Numba, CuPy and PyTorch). */
export interface CudaArrayInterface {
  readonly shape: readonly number[];
  /** numpy's words: '<f4', '<f2', '|u1', ...; bfloat16, which it has no word for, as '<V2'. */
  readonly typestr: string;
  /** The address, and whether it must not be written to. */
  readonly data: readonly [pointer: bigint, readonly: boolean];
  readonly strides: null;
  /** The stream on which the elements are written: a consumer's work must come after it. */
  readonly stream: bigint;
  readonly version: 3;
}

/** What opens a tensor's memory in another process on the same machine; plain JSON. */
export interface IpcHandle {
  readonly type: TensorType;
  readonly dims: readonly number[];
  /** Where the memory lies, as the process that exports it counts the devices. */
  readonly device: string;
  /** The 64 bytes of a cudaIpcMemHandle_t, in base64: of a whole block of cudaMalloc's. */
  readonly handle: string;
  /** Bytes from the beginning of the block to the first element; 0 where it is left out. */
  readonly offset?: number;
}

export interface PointerOptions {
  /** Element type; 'float32' unless given. */
  type?: TensorType;
  /** 'cuda' or 'cuda:N'; 'cuda:0' unless given. */
  device?: string;
  /** Whatever owns the memory: kept alive while the tensor is used. */
  owner?: unknown;
  /** Called once when the tensor is disposed or collected, and the device is done with it. */
  release?: () => void;
  /** A cudaStream_t on which the elements are written: what this package does next comes after its present work. */
  stream?: bigint;
}

export interface StreamOptions {
  /** A cudaStream_t: what it does next comes after this tensor's present work. */
  stream?: bigint;
}

/** numpy's word, and DLPack's code and bits, of each type. */
const formats: Record<TensorType, [typestr: string, code: number, bits: number]> = {
  float32: ['<f4', 2, 32],
  float16: ['<f2', 2, 16],
  bfloat16: ['<V2', 4, 16],
  float64: ['<f8', 2, 64],
  uint8: ['|u1', 1, 8],
  int32: ['<i4', 0, 32],
  int64: ['<i8', 0, 64],
};

/** The memory of a tensor on a device, to be handed to others. ERR_CONFIG for one on the CPU, ERR_DISPOSED, ERR_BUSY. */
function deviceMemoryOf(tensor: Tensor, what: string): DeviceMemory {
  if (!(tensor instanceof Tensor)) throw new ScoreSdeError('ERR_DTYPE', `${what} needs a Tensor, got ${show(tensor)}`);
  const { memory } = tensor;
  if (memory instanceof DeviceMemory) {
    assertIdle({ reads: [memory], writes: [] }, what); // what waits is not on the stream yet
    return memory;
  }
  throw new ScoreSdeError(
    'ERR_CONFIG',
    `${what} needs a tensor on a CUDA device, got one on the CPU: to('cuda') copies it`,
  );
}

function assertType(type: unknown): asserts type is TensorType {
  if (typeof type !== 'string' || !Object.hasOwn(formats, type))
    throw new ScoreSdeError('ERR_DTYPE', `type must be one of ${Object.keys(formats).join(', ')}, got ${show(type)}`);
}

function streamArg(stream: unknown): bigint | undefined {
  if (stream === 0n) return 1n; // cudaStreamLegacy: the same stream, by a name that does not also mean none
  if (stream === undefined || (typeof stream === 'bigint' && stream >= 0n && stream < 2n ** 64n)) return stream;
  throw new ScoreSdeError('ERR_CONFIG', `stream must be a cudaStream_t as a bigint, got ${show(stream)}`);
}

function deviceOf(device: unknown): string {
  const place = resolveDevice(device ?? 'cuda');
  if (place !== 'cpu') return place;
  throw new ScoreSdeError('ERR_CONFIG', `device must be a CUDA device, got ${show(device)}`);
}

/**
 * A tensor in memory of another owner on a CUDA device: an address, its dims, and how to tell the owner.
 * @throws ScoreSdeError ERR_CONFIG, ERR_SHAPE, ERR_DTYPE, ERR_CUDA_UNAVAILABLE; ERR_CUDA where the address is no device memory
 */
export function fromPointer(pointer: bigint, dims: readonly number[], options: PointerOptions = {}): Tensor {
  assertOptions(options, ['type', 'device', 'owner', 'release', 'stream']);
  const { type = 'float32', owner, release } = options;
  assertType(type);
  if (typeof pointer !== 'bigint' || pointer <= 0n || pointer >= 2n ** 64n)
    throw new ScoreSdeError('ERR_CONFIG', `pointer must be an address as a bigint, got ${show(pointer)}`);
  if (release !== undefined && typeof release !== 'function')
    throw new ScoreSdeError('ERR_CONFIG', `release must be a function, got ${show(release)}`);
  const length = sizeOfDims(dims, 'dims');
  const stream = streamArg(options.stream);
  const index = deviceIndex(deviceOf(options.device));
  const bytes = length * Tensor.bytesOf(type);
  if (pointer % BigInt(Tensor.bytesOf(type)) !== 0n)
    throw new ScoreSdeError('ERR_CONFIG', `pointer must be aligned to the ${Tensor.bytesOf(type)} bytes of ${type}`);
  const end = owner === undefined && release === undefined ? null : () => void [owner, release?.()];
  // First what may fail: an owner is told of an end only where the tensor began.
  if (stream !== undefined) native.deviceWaitFor(index, stream);
  const handle = native.deviceFromPointer(index, pointer, bytes, end);
  return Tensor.onDevice(type, new DeviceMemory(handle, index, length, bytes), dims);
}

/** What other libraries of this process need to use a tensor on a device where it lies. ERR_CONFIG, ERR_DISPOSED. */
export function cudaArrayInterface(tensor: Tensor): CudaArrayInterface {
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

/** External tensors that were taken: each is to be taken once. */
const taken = new WeakSet<object>();

/** See Tensor.toDLPack. */
export function toDLPack(tensor: Tensor, options: StreamOptions = {}): object {
  assertOptions(options, ['stream']);
  const memory = deviceMemoryOf(tensor, 'toDLPack');
  const [, code, bits] = formats[tensor.type];
  return native.deviceToDlpack(memory.handle, tensor.dims, code, bits, streamArg(options.stream) ?? 0n);
}

/** See Tensor.fromDLPack. */
export function fromDLPack(external: object, options: StreamOptions = {}): Tensor {
  assertOptions(options, ['stream']);
  if (!types.isExternal(external))
    throw new ScoreSdeError(
      'ERR_DTYPE',
      `fromDLPack needs an external DLManagedTensorVersioned, got ${show(external)}`,
    );
  if (taken.has(external)) throw new ScoreSdeError('ERR_STATE', 'the DLPack tensor was taken already');
  const stream = streamArg(options.stream);
  const tensorTypes = Object.keys(formats) as TensorType[];
  const known = tensorTypes.flatMap((type) => formats[type].slice(1) as number[]);
  const { handle, device, dims, format, readOnly } = native.deviceFromDlpack(external, known);
  taken.add(external);
  const type = tensorTypes[format]!;
  try {
    if (stream !== undefined) native.deviceWaitFor(device, stream);
  } catch (error) {
    native.deviceRelease(handle);
    throw error;
  }
  const length = sizeOfDims(dims, 'dims');
  return Tensor.onDevice(type, new DeviceMemory(handle, device, length, length * Tensor.bytesOf(type), readOnly), dims);
}

/** See Tensor.toIpcHandle. */
export function toIpcHandle(tensor: Tensor): IpcHandle {
  const memory = deviceMemoryOf(tensor, 'toIpcHandle');
  const { type, dims, device } = tensor;
  return { type, dims, device, handle: Buffer.from(native.deviceToIpc(memory.handle)).toString('base64'), offset: 0 };
}

/** See Tensor.fromIpcHandle. */
export function fromIpcHandle(json: IpcHandle): Tensor {
  const { type, dims, device, handle, offset = 0 } = (json ?? {}) as Partial<IpcHandle>;
  assertType(type);
  const bytes = typeof handle === 'string' ? Uint8Array.from(Buffer.from(handle, 'base64')) : new Uint8Array();
  if (bytes.length !== 64)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `handle must be the base64 of 64 bytes, as toIpcHandle gives it, got ${show(handle)}`,
    );
  const each = Tensor.bytesOf(type);
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % each !== 0)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `offset must be a number of bytes, a multiple of the ${each} of ${type}, got ${show(offset)}`,
    );
  const length = sizeOfDims(dims, 'dims');
  const index = deviceIndex(deviceOf(device));
  const size = length * each;
  const opened = native.deviceFromIpc(index, bytes, offset, size);
  return Tensor.onDevice(type, new DeviceMemory(opened, index, length, size), dims!);
}

/** The stream of this thread on a device, a cudaStream_t: all work of its tensors is enqueued there. ERR_CUDA_UNAVAILABLE. */
export function streamOf(device = 'cuda'): bigint {
  return native.deviceStream(deviceIndex(deviceOf(device)));
}

/** Has what the device's stream does next come after what `stream` has to do now; neither waits on the host. */
export function waitForStream(stream: bigint, device = 'cuda'): void {
  if (streamArg(stream) === undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'stream must be a cudaStream_t as a bigint');
  native.deviceWaitFor(deviceIndex(deviceOf(device)), stream);
}

/** Has what `stream` does next come after what the device's stream has to do now. */
export function signalStream(stream: bigint, device = 'cuda'): void {
  if (streamArg(stream) === undefined)
    throw new ScoreSdeError('ERR_CONFIG', 'stream must be a cudaStream_t as a bigint');
  native.devicePrecede(deviceIndex(deviceOf(device)), stream);
}

/** Bytes of a device's memory that tensors of this thread hold, and that are kept for the next ones. */
export function memoryUsage(device = 'cuda'): { used: number; kept: number } {
  return native.deviceUsage(deviceIndex(deviceOf(device)));
}

/** Gives back to the device what is kept for tensors to come. Waits for the device. */
export function emptyCache(device = 'cuda'): void {
  native.deviceTrim(deviceIndex(deviceOf(device)));
}
