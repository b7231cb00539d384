import { resolveDevice } from '../devices';
import { assertOptions, ScoreSdeError, show } from '../errors';
import { native } from '../native';
import { assertIdle, inOrder, isBusy } from '../native/order';

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
 */
export class Tensor<T extends TensorType = TensorType> implements TensorLike {
  readonly type: T;
  readonly dims: readonly number[];
  /** Number of elements. */
  readonly size: number;
  /** Where the memory lies, in onnxruntime's words. */
  readonly location = 'cpu';
  /** Where the memory lies, in this package's words. */
  readonly device = 'cpu';
  #data: DataTypes[T] | undefined;
  #owned = false;

  /**
   * @param type Element type; left out, the data's own
   * @param data The elements, used where they lie
   * @param dims The shape; its product is the data's length
   * @throws ScoreSdeError ERR_DTYPE, ERR_SHAPE
   */
  constructor(type: T, data: DataTypes[T] | readonly number[], dims: readonly number[]);
  constructor(data: DataTypes[T], dims: readonly number[]);
  constructor(...args: [unknown, unknown, unknown] | [unknown, unknown]) {
    const [type, given, dims] = args.length < 3 ? [undefined, args[0], args[1]] : args;
    if (Array.isArray(given) && type === 'float32' && given.some((v) => typeof v !== 'number'))
      throw new ScoreSdeError(
        'ERR_DTYPE',
        `tensor.data must hold numbers, got ${show(given.find((v) => typeof v !== 'number'))}`,
      );
    const values = Array.isArray(given) && type === 'float32' ? Float32Array.from(given as number[]) : given;
    const { data, type: actual } = typedData(values, type, 'tensor');
    const size = sizeOfDims(dims, 'dims');
    if (size !== data.length)
      throw new ScoreSdeError(
        'ERR_SHAPE',
        `dims [${(dims as number[]).join(', ')}] need ${size} elements, got ${data.length}`,
      );
    this.type = actual as T;
    this.dims = Object.freeze(Array.from(dims as number[]));
    this.size = size;
    this.#data = data as DataTypes[T];
  }

  /** A tensor of its own memory, not cleared. */
  static empty<T extends TensorType = 'float32'>(
    dims: readonly number[],
    options: TensorOptions & { type?: T } = {},
  ): Tensor<T> {
    assertOptions(options);
    const { type = 'float32' as T } = options;
    if (typeof type !== 'string' || !Object.hasOwn(arrays, type))
      throw new ScoreSdeError('ERR_DTYPE', `type must be one of ${Object.keys(arrays).join(', ')}, got ${show(type)}`);
    const array = arrays[type];
    resolveDevice(options.device);
    const size = sizeOfDims(dims, 'dims');
    const buffer = native.allocate(size * array.BYTES_PER_ELEMENT);
    const tensor = new Tensor(type, new array(buffer), dims);
    tensor.#owned = true;
    return tensor;
  }

  /** A tensor of zeros. */
  static zeros<T extends TensorType = 'float32'>(
    dims: readonly number[],
    options: TensorOptions & { type?: T } = {},
  ): Tensor<T> {
    const tensor = Tensor.empty(dims, options);
    new Uint8Array(tensor.data.buffer).fill(0);
    return tensor;
  }

  /** The elements; ERR_DISPOSED once the tensor is disposed. */
  get data(): DataTypes[T] {
    if (this.#data?.length !== this.size)
      throw new ScoreSdeError('ERR_DISPOSED', `the tensor [${this.dims.join(', ')}] is disposed`);
    return this.#data;
  }

  /** Whether the memory has been given back, by this tensor or by whom it belongs to. */
  get disposed(): boolean {
    return this.#data?.length !== this.size;
  }

  /** The elements, after whatever asynchronous work on them has ended. */
  async getData(): Promise<DataTypes[T]> {
    return inOrder({ reads: [this.data.buffer], writes: [] }, async () => this.data);
  }

  /** This tensor where it lies there already, else a copy on `device`. */
  async to(device: string): Promise<Tensor<T>> {
    resolveDevice(device);
    await this.getData();
    return this;
  }

  /** A copy in memory of its own. */
  clone(): Tensor<T> {
    const source = this.data;
    assertIdle({ reads: [source.buffer], writes: [] }, 'clone');
    const copy = Tensor.empty(this.dims, { type: this.type });
    (copy.data as Uint8Array).set(source as Uint8Array);
    return copy;
  }

  /** Gives the memory back, once work in flight has ended. A view lets go of memory that it does not own. Safe to repeat. */
  dispose(): void {
    const data = this.#data;
    this.#data = undefined;
    if (data === undefined || !this.#owned) return;
    const buffer = data.buffer as ArrayBuffer;
    const access = { reads: [], writes: [buffer] };
    if (isBusy(access)) void inOrder(access, async () => native.detach(buffer));
    else native.detach(buffer);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
