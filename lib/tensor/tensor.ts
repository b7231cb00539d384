import { inspect, type InspectOptions } from 'node:util';
import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, extensionOf, markCopy, show } from '../options';
import { native } from '../native/addon';
import { bufferOf, DeviceMemory } from '../native/memory';
import { assertIdle, inOrder, isBusy } from '../native/order';
import { arrayOver, assertFixed, assertType, elementBytes, sizeOfDims, typedData } from './data';
import type { DataTypes, TensorType } from './data';
import { inspected, jsonOf, type TensorJson } from './display';
import { cudaArrayInterface, fromDLPack, fromIpcHandle, fromPointer, toDLPack, toIpcHandle } from './sharing';
import type { CudaArrayInterface, IpcHandle, PointerOptions, StreamOptions } from './sharing';

export { sizeOfDims, type TensorData, type TensorType } from './data';

/** What every tensor argument accepts: a Tensor, an ort.Tensor, or any object with `data` and `dims`. The data are used in place, not copied. */
export interface TensorLike {
  /** A typed array of the elements, dense and row-major. */
  readonly data: unknown;
  /** The shape. Its product is the data's length. */
  readonly dims: readonly number[];
  /** The element type. Only bfloat16 needs it: a Uint16Array is float16 otherwise. */
  readonly type?: string | undefined;
}

export interface TensorOptions {
  /** Element type. Default 'float32'. */
  type?: TensorType | undefined;
  /** Where the memory is: 'cpu' (default), 'cuda' (cuda:0), 'cuda:N', or 'auto' (the first usable GPU, else the CPU). */
  device?: string | undefined;
}

interface Parts<T extends TensorType> {
  type: T;
  memory: DataTypes[T] | DeviceMemory;
  dims: readonly number[];
}

/**
 * A dense, row-major array of numbers. It has the properties of onnxruntime's Tensor, so that each can be passed in place of
 * the other. A tensor that this package allocates is 64-byte aligned, and `dispose()` frees its memory; a tensor made from
 * data is a view of that data.
 *
 * Its content is its own properties, so that tools which compare, clone or spread objects see it. What structuredClone or
 * postMessage make of a tensor is a {@link TensorLike} without methods. Of a tensor on a device they throw, as `data` does.
 *
 * A tensor that is not disposed is freed after garbage collection, at the earliest in the event loop's next turn. A long loop
 * without `await` should therefore pass `out` or call `dispose()`. While an asynchronous call uses a tensor, its memory must
 * not be transferred to another thread.
 */
export class Tensor<T extends TensorType = TensorType> implements TensorLike {
  readonly type: T;
  /** The shape, row-major; frozen. */
  readonly dims: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** Where the memory is, by onnxruntime's names. */
  readonly location: 'cpu' | 'gpu-buffer';
  /** Where the memory is, by this package's names: 'cpu', 'cuda:0', ... */
  readonly device: string;
  #onDevice: DeviceMemory | undefined;
  #owned = false;
  /**
   * The elements, in place. Length 0 where the ArrayBuffer was transferred.
   * @throws ScoreSdeError ERR_DISPOSED; ERR_STATE (a tensor on a device)
   */
  // The last field, which V8 can delete without making the object a slow one.
  declare readonly data: DataTypes[T];

  /**
   * @param type Element type. Default: that of the data's class (Uint16Array: float16)
   * @param data The elements, used in place; an array of numbers is copied
   * @param dims The shape. Its product is the data's length. Default: one axis
   * @throws ScoreSdeError ERR_DTYPE (data of another type), ERR_SHAPE (dims that do not fit the data)
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
    // Other data might not fit dims and type.
    if (data instanceof DeviceMemory) {
      this.#onDevice = data;
      Object.defineProperty(this, 'data', dataOnDevice);
    } else Object.defineProperty(this, 'data', { value: data, enumerable: true, configurable: true });
  }

  /**
   * A tensor in new memory with undefined content.
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_CONFIG, ERR_CUDA_UNAVAILABLE, ERR_MEMORY
   */
  static empty<T extends TensorType = 'float32'>(
    dims: readonly number[],
    options: TensorOptions & { type?: T | undefined } = {},
  ): Tensor<T> {
    assertOptions(options, ['type', 'device']);
    const { type = 'float32' as T } = options;
    assertType(type);
    const each = elementBytes(type);
    const device = resolveDevice(options.device);
    const size = sizeOfDims(dims, 'dims');
    const memory =
      device === 'cpu' ? arrayOver(type, native.allocate(size * each)) : DeviceMemory.allocate(device, size, each);
    return Tensor.#owning(this, { type, memory, dims });
  }

  /** A tensor whose dispose() frees `memory`. */
  static #owning<T extends TensorType>(receiver: unknown, { type, memory, dims }: Parts<T>): Tensor<T> {
    const tensor = new (extensionOf(receiver, Tensor))<T>(type, memory as DataTypes[T], dims);
    tensor.#owned = true;
    return tensor;
  }

  /**
   * A tensor of zeros in new memory.
   * @throws ScoreSdeError as empty
   */
  static zeros<T extends TensorType = 'float32'>(
    dims: readonly number[],
    options: TensorOptions & { type?: T | undefined } = {},
  ): Tensor<T> {
    const tensor = Tensor.empty.call(this, dims, options) as Tensor<T>;
    const { memory } = tensor;
    if (memory instanceof DeviceMemory) native.deviceClear(memory.handle);
    else new Uint8Array(memory.buffer).fill(0);
    return tensor;
  }

  /** @internal The elements in place. ERR_DISPOSED. */
  get memory(): DataTypes[T] | DeviceMemory {
    const memory = this.held;
    if (memory === undefined) throw disposedError(this);
    return memory;
  }

  /** @internal The elements in place; undefined where the tensor is disposed. */
  get held(): DataTypes[T] | DeviceMemory | undefined {
    if (!Object.hasOwn(this, 'data')) return undefined;
    if (this.location === 'cpu') {
      const { data } = this;
      return data.length === this.size ? data : undefined;
    }
    const memory = Tensor.#deviceMemory(this);
    return memory.released ? undefined : memory;
  }

  /** Whether the memory is gone: freed by dispose(), or its ArrayBuffer detached. */
  get disposed(): boolean {
    return this.held === undefined;
  }

  static {
    // What is left of `data` once it is deleted. A tool that copies objects property by property reads and sets it on its copy.
    Object.defineProperty(this.prototype, 'data', {
      get(this: Tensor) {
        if (#owned in this) throw disposedError(this);
        return undefined;
      },
      set(this: Tensor, value: unknown) {
        if (#owned in this) throw disposedError(this);
        Object.defineProperty(this, 'data', { value, enumerable: true, configurable: true });
      },
      configurable: true,
    });
  }

  static #deviceMemory(tensor: Tensor): DeviceMemory {
    const { device } = tensor;
    if (#onDevice in tensor) return tensor.#onDevice!;
    throw new ScoreSdeError(
      'ERR_STATE',
      `the memory of a tensor on ${device} is not reached through a Proxy or a copy: pass the Tensor itself (Vue: markRaw)`,
    );
  }

  /**
   * The elements once all asynchronous calls that write them have ended: in place on the CPU, a copy from a device.
   * @throws ScoreSdeError ERR_DISPOSED, ERR_CUDA, ERR_MEMORY
   */
  async getData(): Promise<DataTypes[T]> {
    const { memory } = this;
    if (!(memory instanceof DeviceMemory))
      return inOrder({ reads: [memory.buffer], writes: [] }, async () => this.data);
    const copy = arrayOver(this.type, native.allocate(memory.byteLength));
    await afterPending(memory, () => native.deviceDownloadAsync(memory.handle, copy));
    return copy;
  }

  /**
   * This tensor if it is on `device`, else a copy there.
   * @param device 'cpu', 'cuda' (cuda:0), 'cuda:N', or 'auto' (the first usable GPU, else the CPU)
   * @throws ScoreSdeError ERR_CONFIG, ERR_CUDA_UNAVAILABLE, ERR_CUDA, ERR_MEMORY, ERR_DISPOSED
   */
  async to(device: string): Promise<Tensor<T>> {
    const place = resolveDevice(device);
    const { memory } = this;
    if (place === this.device) {
      await (memory instanceof DeviceMemory ? afterPending(memory, async () => {}) : this.getData());
      return this;
    }
    if (memory instanceof DeviceMemory) {
      const onHost = Tensor.empty(this.dims, { type: this.type });
      await afterPending(memory, () => native.deviceDownloadAsync(memory.handle, onHost.data));
      if (place === 'cpu') return onHost;
      using between = onHost; // from one GPU to another
      return await between.to(place);
    }
    assertFixed(memory, 'the tensor');
    const copy = Tensor.empty(this.dims, { type: this.type, device: place });
    const to = copy.memory as DeviceMemory;
    const access = { reads: [memory.buffer], writes: [to] };
    await inOrder(access, () => native.deviceUploadAsync(to.handle, memory));
    return copy;
  }

  /**
   * A copy in new memory on the same device.
   * @throws ScoreSdeError ERR_BUSY (an asynchronous call writes this tensor), ERR_DISPOSED, ERR_MEMORY, ERR_CUDA
   */
  clone(): Tensor<T> {
    const { memory } = this;
    if (memory instanceof DeviceMemory) {
      assertIdle({ reads: [memory], writes: [] }, 'clone');
      const { index, length, byteLength } = memory;
      const copy = new DeviceMemory(native.deviceClone(memory.handle), index, length, byteLength);
      return Tensor.#owning(Tensor, { type: this.type, memory: copy, dims: this.dims });
    }
    assertIdle({ reads: [memory.buffer], writes: [] }, 'clone');
    const copy = Tensor.empty(this.dims, { type: this.type });
    (copy.data as Uint8Array).set(memory as Uint8Array);
    return copy;
  }

  /**
   * A copy on the CPU in memory of JavaScript's own, which a transfer list takes: `postMessage(copy, [copy.data.buffer])`.
   * Memory that this package allocates cannot be transferred: Node.js 20 copies it without a word, later versions throw.
   * @throws ScoreSdeError ERR_STATE (a tensor on a device), ERR_BUSY (an asynchronous call writes this tensor), ERR_DISPOSED
   */
  toOwned(): Tensor<T> {
    if (this.disposed) throw disposedError(this);
    const { data } = this;
    assertIdle({ reads: [data.buffer], writes: [] }, 'toOwned');
    return new Tensor<T>(this.type, data.slice() as DataTypes[T], this.dims);
  }

  /** Frees the memory after the asynchronous calls that use it. A view only drops its reference. May be called repeatedly. */
  dispose(): void {
    if (!Object.hasOwn(this, 'data')) return;
    const data = this.location === 'cpu' ? this.data : Tensor.#deviceMemory(this);
    Reflect.deleteProperty(this, 'data');
    // Through a Proxy nothing tells who owns the memory: it is freed when the tensor is collected.
    if (!(#owned in this)) return;
    this.#onDevice = undefined;
    if (!this.#owned) return;
    const access = { reads: [], writes: [bufferOf(data)] };
    const free = () => (data instanceof DeviceMemory ? data.release() : native.detach(data.buffer as ArrayBuffer));
    if (isBusy(access)) void inOrder(access, async () => free());
    else free();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /**
   * The tensor as JSON: `new Tensor(type, TYPED_ARRAY.from(data), dims)` makes it again. What JSON has no number for (NaN,
   * infinities, int64) is text.
   * @throws ScoreSdeError ERR_DISPOSED; ERR_STATE (a tensor on a device)
   */
  toJSON(): TensorJson {
    return jsonOf(this);
  }

  /** @internal */
  [inspect.custom](_depth: number, options: InspectOptions): string {
    return inspected(this, this.constructor.name, options);
  }

  /**
   * A tensor in CUDA memory of another owner, used in place.
   * @param pointer The address of the first element, aligned to the element type
   * @param dims The shape, dense and row-major
   * @throws ScoreSdeError ERR_CONFIG, ERR_SHAPE, ERR_DTYPE, ERR_CUDA_UNAVAILABLE; ERR_CUDA (no device memory at the address)
   */
  static fromPointer(pointer: bigint, dims: readonly number[], options?: PointerOptions): Tensor {
    return Tensor.#owning(this, fromPointer(pointer, dims, options));
  }

  /**
   * The CUDA Array Interface, version 3. The tensor must not be disposed or collected while a consumer uses it.
   * @throws ScoreSdeError ERR_CONFIG (a tensor on the CPU), ERR_BUSY (an asynchronous call writes it), ERR_DISPOSED
   */
  get cudaArrayInterface(): CudaArrayInterface {
    return cudaArrayInterface(assertTensor(this, 'cudaArrayInterface'));
  }

  /**
   * This tensor as a DLPack 1 tensor: a Node-API External of a DLManagedTensorVersioned. The consumer calls its deleter once,
   * on any thread but not from a callback of CUDA's, when its last work with the tensor is enqueued on the `stream`. If this tensor
   * has been disposed, the memory is given back then, and used again after that work. Work on a tensor that lives on is ordered
   * by waitForStream.
   * @throws ScoreSdeError ERR_CONFIG (a tensor on the CPU), ERR_STATE (memory of another owner; the legacy default stream while this thread's stream is captured), ERR_BUSY, ERR_DISPOSED, ERR_CUDA
   */
  toDLPack(options?: StreamOptions): object {
    return toDLPack(assertTensor(this, 'toDLPack'), options);
  }

  /**
   * A tensor in the memory of a DLPack tensor (such an External) of another addon, used in place. This package calls the
   * deleter once, when the tensor is disposed or collected and the device has finished its work on it. Where fromDLPack
   * throws, the DLPack tensor stays with its maker. Read-only memory is refused as `out`.
   * @throws ScoreSdeError ERR_DTYPE (no such element type), ERR_SHAPE (not contiguous), ERR_CONFIG (not on a CUDA device), ERR_CUDA_UNAVAILABLE, ERR_STATE (taken already; the legacy default stream while this thread's stream is captured), ERR_CUDA
   */
  static fromDLPack(external: object, options?: StreamOptions): Tensor {
    return Tensor.#owning(this, fromDLPack(external, options));
  }

  /**
   * What opens this tensor's memory in another process on the machine, as JSON. The tensor must live until the other process
   * has disposed its own, and the work on it must be over (`await getData()`) before the other process reads.
   * @throws ScoreSdeError ERR_CONFIG (a tensor on the CPU), ERR_STATE (memory of another owner), ERR_BUSY, ERR_DISPOSED, ERR_CUDA
   */
  toIpcHandle(): IpcHandle {
    return toIpcHandle(assertTensor(this, 'toIpcHandle'));
  }

  /**
   * A tensor in memory of another process on this machine, from its toIpcHandle() or from CUDA's own handle (docs/guide.md).
   * It must be disposed before the other process frees the memory.
   * @throws ScoreSdeError ERR_CONFIG (no handle, another device), ERR_DTYPE, ERR_SHAPE (a smaller block), ERR_CUDA, ERR_CUDA_UNAVAILABLE
   */
  static fromIpcHandle(json: IpcHandle): Tensor {
    return Tensor.#owning(this, fromIpcHandle(json));
  }
}

markCopy(Tensor);

/** The own property `data` of a tensor on a device, also for who compares, clones or spreads it. */
const dataOnDevice: PropertyDescriptor & ThisType<Tensor> = {
  get() {
    if (this.disposed) throw disposedError(this);
    throw new ScoreSdeError(
      'ERR_STATE',
      `the tensor [${this.dims.join(', ')}] lies on ${this.device}: await its getData(), or to('cpu')`,
    );
  },
  enumerable: true,
  configurable: true,
};

function disposedError({ dims }: Tensor): ScoreSdeError {
  return new ScoreSdeError('ERR_DISPOSED', `the tensor [${dims.join(', ')}] is disposed`);
}

/** The receiver of a method, which `call` can make anything. ERR_DTYPE. */
function assertTensor(value: unknown, method: string): Tensor {
  if (value instanceof Tensor) return value as Tensor;
  throw new ScoreSdeError('ERR_DTYPE', `${method} needs a Tensor, got ${show(value)}`);
}

/** Starts work on a device's stream after the asynchronous calls that have not enqueued theirs yet. */
function afterPending(memory: DeviceMemory, start: () => Promise<void>): Promise<void> {
  const access = { reads: [memory], writes: [] };
  return isBusy(access) ? inOrder(access, start) : start();
}
