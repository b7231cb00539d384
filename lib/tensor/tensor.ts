import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { native } from '../native/addon';
import { DeviceMemory } from '../native/memory';
import { assertIdle, inOrder, isBusy } from '../native/order';
import type { CudaArrayInterface, IpcHandle, PointerOptions, StreamOptions } from './sharing';

export interface DataTypes {
  float32: Float32Array;
  float16: Uint16Array;
  bfloat16: Uint16Array;
  float64: Float64Array;
  uint8: Uint8Array;
  int32: Int32Array;
  int64: BigInt64Array;
}

/** Element types. States are float32, float16 or bfloat16 (the 16-bit types as their bits); the rest is for model inputs and images. */
export type TensorType = keyof DataTypes;
export type TensorData = DataTypes[TensorType];

/** What every tensor argument accepts: a Tensor, an ort.Tensor, or any object with `data` and `dims`. Used where it lies, not copied. */
export interface TensorLike {
  readonly data: unknown;
  readonly dims: readonly number[];
  /** Tells bfloat16 from float16, whose data look alike; needed for nothing else. */
  readonly type?: string;
}

export interface TensorOptions {
  /** Element type; 'float32' unless given. */
  type?: TensorType;
  /** Where the memory lies; 'cpu' unless given. */
  device?: string;
}

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

// Tests and workers have realms of their own: an array is known by its name, not by its class.
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

/** What is wrong with memory that may be shared with other threads, which Node-API hands none out of, or may shrink while it is worked on. */
export function unfixed(buffer: ArrayBufferLike & { resizable?: boolean }): string | undefined {
  // An ArrayBuffer may be one of another realm.
  const isShared =
    !(buffer instanceof ArrayBuffer) && Object.prototype.toString.call(buffer) === '[object SharedArrayBuffer]';
  return isShared ? 'a SharedArrayBuffer' : buffer.resizable ? 'a resizable one' : undefined;
}

/** ERR_DTYPE unless memory stays where and as it is. */
export function assertFixed(memory: ArrayBufferView, name: string): void {
  const wrong = unfixed(memory.buffer);
  if (wrong !== undefined)
    throw new ScoreSdeError('ERR_DTYPE', `${name} must lie in an ArrayBuffer of fixed size, got ${wrong}`);
}

/** The number of elements of `dims`; ERR_SHAPE unless they are sizes of a tensor that memory could hold. */
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
        `${name} [${(dims as number[]).join(', ')}] has more elements than memory could hold`,
      );
  }
  return size;
}

/** A typed array as the memory of an element type: the type that it implies where none is given, float16 as bits. */
export function typedData(data: unknown, type: unknown, name: string): { data: TensorData; type: TensorType } {
  const kind = ArrayBuffer.isView(data) ? Object.prototype.toString.call(data).slice(8, -1) : '';
  const implied = typeOfArray[kind];
  if (implied === undefined)
    throw new ScoreSdeError('ERR_DTYPE', `${name}.data must be a typed array such as Float32Array, got ${show(data)}`);
  const named = type === undefined ? implied : type;
  const fits = named === implied || (named === 'bfloat16' && kind === 'Uint16Array');
  if (!fits)
    throw new ScoreSdeError(
      'ERR_DTYPE',
      typeof named === 'string' && Object.hasOwn(arrays, named)
        ? `${name} of type '${named}' needs a ${arrays[named as TensorType].name}, got ${show(data)}`
        : `${name}.type must be one of ${Object.keys(arrays).join(', ')}, got ${show(named)}`,
    );
  const view = data as TensorData;
  const bits = kind === 'Float16Array' ? new Uint16Array(view.buffer, view.byteOffset, view.length) : view;
  return { data: bits, type: named as TensorType };
}

/**
 * A dense, row-major array of numbers with the face of onnxruntime's tensor, so that either serves where the other is
 * expected. Made by this package its memory is 64-byte aligned and freed by `dispose()`; made from data it is a view.
 *
 * Memory that nobody disposes is freed after garbage collection, and no sooner than the event loop's next turn: a long
 * loop without `await` should pass `out`, or dispose. Memory must not be transferred to another thread while an
 * asynchronous call on it is under way.
 */
export class Tensor<T extends TensorType = TensorType> implements TensorLike {
  readonly type: T;
  readonly dims: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** Where the memory lies, in onnxruntime's words. */
  readonly location: 'cpu' | 'gpu-buffer';
  /** Where the memory lies, in this package's words: 'cpu', 'cuda:0'. */
  readonly device: string;
  #data: DataTypes[T] | DeviceMemory | undefined;
  #owned = false;

  /**
   * @param type Element type; left out, the data's own
   * @param data The elements, used where they lie
   * @param dims The shape, whose product is the data's length; one axis unless given
   * @throws ScoreSdeError ERR_DTYPE, ERR_SHAPE
   */
  constructor(
    type: T,
    data: DataTypes[T] | ('float32' extends T ? readonly number[] : never),
    dims?: readonly number[],
  );
  constructor(data: DataTypes[T], dims?: readonly number[]);
  constructor(...args: unknown[]) {
    const [type, given, shape] = typeof args[0] === 'string' || args.length > 2 ? args : [undefined, ...args];
    this.location = given instanceof DeviceMemory ? 'gpu-buffer' : 'cpu';
    this.device = given instanceof DeviceMemory ? given.device : 'cpu';
    if (Array.isArray(given) && type === 'float32' && given.some((v) => typeof v !== 'number'))
      throw new ScoreSdeError(
        'ERR_DTYPE',
        `tensor.data must hold numbers, got ${show(given.find((v) => typeof v !== 'number'))}`,
      );
    const values = Array.isArray(given) && type === 'float32' ? Float32Array.from(given as number[]) : given;
    const { data, type: actual } =
      values instanceof DeviceMemory ? { data: values, type } : typedData(values, type, 'tensor');
    const dims = shape === undefined ? [data.length] : shape;
    const size = sizeOfDims(dims, 'dims');
    if (size !== data.length)
      throw new ScoreSdeError(
        'ERR_SHAPE',
        `dims [${(dims as number[]).join(', ')}] need ${size} elements, got ${data.length}`,
      );
    this.type = actual as T;
    this.dims = Object.freeze(Array.from(dims as number[]));
    this.size = size;
    this.#data = data as DataTypes[T] | DeviceMemory;
  }

  /** A tensor of its own memory, not cleared. */
  static empty<T extends TensorType = 'float32'>(
    dims: readonly number[],
    options: TensorOptions & { type?: T } = {},
  ): Tensor<T> {
    assertOptions(options, ['type', 'device']);
    const { type = 'float32' as T } = options;
    if (typeof type !== 'string' || !Object.hasOwn(arrays, type))
      throw new ScoreSdeError('ERR_DTYPE', `type must be one of ${Object.keys(arrays).join(', ')}, got ${show(type)}`);
    const array = arrays[type];
    const device = resolveDevice(options.device);
    const size = sizeOfDims(dims, 'dims');
    if (device !== 'cpu') return Tensor.#own(type, DeviceMemory.allocate(device, size, array.BYTES_PER_ELEMENT), dims);
    const buffer = native.allocate(size * array.BYTES_PER_ELEMENT);
    return Tensor.#own(type, new array(buffer), dims);
  }

  static #own<T extends TensorType>(type: T, memory: DataTypes[T] | DeviceMemory, dims: readonly number[]): Tensor<T> {
    const tensor = new Tensor<T>(type, memory as DataTypes[T], dims);
    tensor.#owned = true;
    return tensor;
  }

  /** @internal A tensor in memory of a device's. */
  static onDevice<T extends TensorType>(type: T, memory: DeviceMemory, dims: readonly number[]): Tensor<T> {
    return Tensor.#own(type, memory, dims);
  }

  /** @internal Bytes of an element. */
  static bytesOf(type: TensorType): number {
    return arrays[type].BYTES_PER_ELEMENT;
  }

  /** A tensor of zeros. */
  static zeros<T extends TensorType = 'float32'>(
    dims: readonly number[],
    options: TensorOptions & { type?: T } = {},
  ): Tensor<T> {
    const tensor = Tensor.empty(dims, options);
    const { memory } = tensor;
    if (memory instanceof DeviceMemory) native.deviceClear(memory.handle);
    else new Uint8Array(memory.buffer).fill(0);
    return tensor;
  }

  /** @internal The elements where they lie. ERR_DISPOSED. */
  get memory(): DataTypes[T] | DeviceMemory {
    if (this.disposed) throw new ScoreSdeError('ERR_DISPOSED', `the tensor [${this.dims.join(', ')}] is disposed`);
    return this.#data!;
  }

  /** The elements. ERR_DISPOSED once the tensor is disposed, ERR_STATE where it lies on a device. */
  get data(): DataTypes[T] {
    const { memory } = this;
    if (memory instanceof DeviceMemory)
      throw new ScoreSdeError(
        'ERR_STATE',
        `the tensor [${this.dims.join(', ')}] lies on ${this.device}: await its getData(), or to('cpu')`,
      );
    return memory;
  }

  /** Whether the memory has been given back, by this tensor or by whom it belongs to. */
  get disposed(): boolean {
    const data = this.#data;
    return data instanceof DeviceMemory ? data.released : data?.length !== this.size;
  }

  /** The elements, after whatever asynchronous work on them has ended; of a tensor on a device, a copy as it is now. */
  async getData(): Promise<DataTypes[T]> {
    const { memory } = this;
    if (!(memory instanceof DeviceMemory))
      return inOrder({ reads: [memory.buffer], writes: [] }, async () => this.data);
    const array = arrays[this.type];
    const copy = new array(native.allocate(memory.byteLength));
    await whenIdle(memory, () => native.deviceDownloadAsync(memory.handle, copy));
    return copy;
  }

  /** This tensor where it lies there already, else a copy on `device`. ERR_CONFIG, ERR_CUDA_UNAVAILABLE, ERR_MEMORY. */
  async to(device: string): Promise<Tensor<T>> {
    const place = resolveDevice(device);
    const { memory } = this;
    if (place === this.device) {
      await (memory instanceof DeviceMemory ? whenIdle(memory, async () => {}) : this.getData());
      return this;
    }
    if (memory instanceof DeviceMemory) {
      const onHost = Tensor.empty(this.dims, { type: this.type });
      await whenIdle(memory, () => native.deviceDownloadAsync(memory.handle, onHost.data));
      if (place === 'cpu') return onHost;
      using passing = onHost;
      return await passing.to(place);
    }
    assertFixed(memory, 'the tensor');
    const copy = Tensor.empty(this.dims, { type: this.type, device: place });
    const to = copy.memory as DeviceMemory;
    const access = { reads: [memory.buffer], writes: [to] };
    await inOrder(access, () => native.deviceUploadAsync(to.handle, memory));
    return copy;
  }

  /** A copy in memory of its own, in the same place. */
  clone(): Tensor<T> {
    const { memory } = this;
    if (memory instanceof DeviceMemory) {
      assertIdle({ reads: [memory], writes: [] }, 'clone');
      const { index, length, byteLength } = memory;
      const copy = new DeviceMemory(native.deviceClone(memory.handle), index, length, byteLength);
      return Tensor.#own(this.type, copy, this.dims);
    }
    assertIdle({ reads: [memory.buffer], writes: [] }, 'clone');
    const copy = Tensor.empty(this.dims, { type: this.type });
    (copy.data as Uint8Array).set(memory as Uint8Array);
    return copy;
  }

  /** Gives the memory back, once work in flight has ended. A view lets go of memory that it does not own. Safe to repeat. */
  dispose(): void {
    const data = this.#data;
    this.#data = undefined;
    if (data === undefined || !this.#owned) return;
    const onDevice = data instanceof DeviceMemory;
    const buffer = onDevice ? data : data.buffer;
    const access = { reads: [], writes: [buffer] };
    const end = () => (onDevice ? data.release() : native.detach(data.buffer as ArrayBuffer));
    if (isBusy(access)) void inOrder(access, async () => end());
    else end();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * A tensor in memory of another owner on a CUDA device, where it lies.
   * @param pointer The address
   * @throws ScoreSdeError ERR_CONFIG, ERR_SHAPE, ERR_DTYPE, ERR_CUDA_UNAVAILABLE; ERR_CUDA where it is no device memory
   */
  static fromPointer(pointer: bigint, dims: readonly number[], options?: PointerOptions): Tensor {
    return sharing().fromPointer(pointer, dims, options);
  }

  /** The CUDA Array Interface, version 3, of a tensor on a device. The tensor must live while it is used. ERR_CONFIG. */
  get cudaArrayInterface(): CudaArrayInterface {
    return sharing().cudaArrayInterface(this);
  }

  /**
   * This tensor on a device as a DLPack 1 tensor: a Node-API External of a DLManagedTensorVersioned, which belongs to
   * whoever takes it; its deleter, to be called once on any thread, gives the memory back.
   * @throws ScoreSdeError ERR_CONFIG (a tensor on the CPU), ERR_STATE (memory of another owner)
   */
  toDLPack(options?: StreamOptions): object {
    return sharing().toDLPack(this, options);
  }

  /**
   * Takes such a tensor of another addon and uses it where it lies. Its deleter is called once, when this tensor is
   * disposed or collected and the device is done with it. One that is lent to be read alone cannot be `out`.
   * @throws ScoreSdeError ERR_DTYPE (of a type that no tensor has), ERR_SHAPE (not contiguous), ERR_CONFIG (not on a CUDA device): it stays with its maker; ERR_STATE (taken already)
   */
  static fromDLPack(external: object, options?: StreamOptions): Tensor {
    return sharing().fromDLPack(external, options);
  }

  /**
   * What opens this tensor's memory in another process of the machine, as JSON. The tensor must live until the other
   * process has let go, and its work must be done (await getData(), or order by other means) before the other reads.
   * @throws ScoreSdeError ERR_CONFIG (a tensor on the CPU), ERR_STATE (memory of another owner), ERR_CUDA
   */
  toIpcHandle(): IpcHandle {
    return sharing().toIpcHandle(this);
  }

  /**
   * Opens memory of another process on this machine, by what its toIpcHandle gave or CUDA's own handle (docs/guide.md).
   * To be disposed before that process lets the memory go.
   * @throws ScoreSdeError ERR_CONFIG (no handle, another device), ERR_DTYPE, ERR_SHAPE (a smaller block), ERR_CUDA
   */
  static fromIpcHandle(json: IpcHandle): Tensor {
    return sharing().fromIpcHandle(json);
  }
}

/** Loaded when it is first needed: it makes tensors, too. */
function sharing() {
  // eslint-disable-next-line @typescript-eslint/no-require-imports
  return require('./sharing') as typeof import('./sharing');
}

/** Starts what a device's stream orders by itself, after what is still to be enqueued. */
function whenIdle(memory: DeviceMemory, start: () => Promise<void>): Promise<void> {
  const access = { reads: [memory], writes: [] };
  return isBusy(access) ? inOrder(access, start) : start();
}
