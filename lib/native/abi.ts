/** Element types of states, numbered as in native/core/dtype.hpp. */
export const Dtype = { float32: 0, float16: 1, bfloat16: 2 } as const;
export type Dtype = (typeof Dtype)[keyof typeof Dtype];
export type StateMemory = Float32Array | Uint16Array;

/** Kinds of noise, numbered as in native/core/params.hpp, and none. */
export const NoiseKind = { given: 0, philox: 1, torch: 2, none: 3 } as const;

/** Memory of a CUDA device, opaque here: see DeviceMemory in ./memory. */
export type DeviceHandle = object & { readonly brand?: 'device memory' | undefined };
/** Whatever has a handle stands for its memory. */
type OnDevice = { readonly handle: DeviceHandle };

/** Kind, source, Dtype: memory of rows x cols values; (key, counter) pairs, one or one a row; torch states, one or one a row; nothing, for a step. */
export type Noise =
  | [kind: 0, given: StateMemory | OnDevice, type: Dtype]
  | [kind: 1, streams: readonly [key: bigint, counter: bigint] | BigUint64Array, type: Dtype]
  | [kind: 2, states: Uint8Array[], type: Dtype]
  | [kind: 3, none: null, type: Dtype];

/** How the corrector chooses its step, numbered as in native/core/params.hpp. */
export const StepSizeCode = { batch: 0, sample: 1, dim: 2, ald: 3 } as const;
export type StepSize = keyof typeof StepSizeCode;

/** What a row of a step does, numbered as in native/core/params.hpp. */
export const RowKind = { predict: 0, correct: 1, linear: 2 } as const;
export type RowKind = (typeof RowKind)[keyof typeof RowKind];

/** Where a row's normals come from, numbered as in native/core/params.hpp. */
export const RowNormals = { none: 0, drawn: 1, given: 2 } as const;
export type RowNormals = (typeof RowNormals)[keyof typeof RowNormals];

/**
 * Places of a row's numbers in its record of Row.size floats; RowStep in native/core/params.hpp says what each is. `b` is
 * the first of seven. The places before `px` hold whole numbers, of which `group` may be up to 2^24.
 */
export const Row = {
  kind: 0,
  normals: 1,
  stepSize: 2,
  converts: 3,
  terms: 4,
  phase: 5,
  group: 6,
  px: 7,
  pm: 8,
  a: 9,
  b: 10,
  base: 17,
  e: 18,
  sigma: 19,
  next: 20,
  snr: 21,
  size: 22,
} as const;

type Batch = [rows: number, cols: number];
type Operand = [memory: StateMemory | OnDevice, type: Dtype];
type OptionalOperand = [memory: StateMemory | OnDevice | null, type: Dtype];
/**
 * Where a device notes, in a word for each row, the least index of a call whose result was not finite in that row; nothing
 * for the CPU, which returns it.
 */
export type Mark = [] | [words: DeviceHandle, index: number];
/** The rows whose result is not finite; null where there are none, and on a device. */
export type NonFinite = Uint32Array | null;

/** The number of a call, from nextCall, and those of the calls that it comes after; nothing for a call that none comes after. */
export type Order = readonly number[];

export type RandnArgs = [...Batch, ...Noise, scale: number, ...out: Operand];
export type StepArgs = [
  ...Batch,
  /**
   * One record for all rows, or one each. They are copied before the call returns, also by stepAsync. On a device they may
   * be an array of the first record and of memory that holds them as RowSteps of native/core/params.hpp: a captured graph
   * reads that memory when it is replayed. What those rows read is not checked.
   */
  records: Float32Array | [first: Float32Array, all: OnDevice],
  ...sample: Operand,
  /** Null where no row reads it, as any operand. */
  ...output: OptionalOperand,
  /** Its streams are one for all rows, or one each; `given` is for the rows that say so. */
  ...Noise,
  ...out: Operand,
  /**
   * Memory and Dtype of mean, pushed, given and base; the number of histories, and memory and Dtype of each; then a Mark. What
   * is not there may be left out at the end, which saves a small step a tenth of a microsecond an operand.
   */
  ...rest: (StateMemory | OnDevice | DeviceHandle | number | null)[],
];

export type ClampArgs = [count: number, ...input: Operand, ...out: Operand, scale: number, shift: number];

export type ImageGridArgs = [
  count: number,
  channels: number,
  height: number,
  width: number,
  columns: number,
  ...images: Operand,
  out: Uint8Array | OnDevice,
];

declare const network: unique symbol;
/** A network that the addon holds. */
export interface Network {
  readonly [network]: never;
}

/** An input or output of a network: ONNX's number of its element type (0: no tensor), sizes, and names of free ones. */
export interface NetworkPort {
  name: string;
  type: number;
  shape: (number | string)[];
}

export interface LoadedNetwork {
  network: Network;
  inputs: NetworkPort[];
  outputs: NetworkPort[];
  /** The library that it runs in. */
  library: string;
  version: string;
}

export type LoadNetworkArgs = [
  library: string,
  /** Whether one that is loaded already comes first. */
  shared: boolean,
  ...source: [path: string] | [size: number, bytes: Uint8Array],
  intraOpThreads: number,
  interOpThreads: number,
  graphOptimization: number,
  parallel: boolean,
  memoryPattern: boolean,
  cpuArena: boolean,
  /** ONNX Runtime's number: 0 (verbose) to 4 (fatal). */
  logSeverity: number,
  sizeCount: number,
  /**
   * Name and size of each free dim. Where the rewritten graph goes, and how the profile's file begins; empty: nowhere. The
   * session's configuration. The number of files of weights; name, size and bytes of each. Null, or the device and options of
   * CUDA's provider.
   */
  ...rest: (string | number | Uint8Array | null | Record<string, string>)[],
];

/** A further input: its place, sizes, bytes, and whether each row has its part of it. */
export type NetworkInput = [port: number, dims: number[], bytes: number, data: Uint8Array, perRow: boolean];

export type RunNetworkArgs = [
  network: Network,
  /** The same with one thread to an operator, for runs beside others. */
  singleThreaded: Network | null,
  /** Calls of that one at once that the rows are divided among; 0 or 1: they are not. */
  atOnce: number,
  /** The caller's number for this run, to stop it by. */
  id: number,
  /** Rows to a call of the network at most; 0: all. */
  perCall: number,
  /** Rows that every call must have, filled up with copies; 0: as many as there are. */
  fill: number,
  dims: readonly number[],
  samplePort: number,
  ...sample: Operand,
  outputPort: number,
  ...out: Operand,
  further: number,
  ...inputs: unknown[], // NetworkInput, one after the other
];

/**
 * What the addon exports, and the only place where it is declared. The addon checks memory (bytes, alignment), not
 * meaning: shapes, ranges and aliasing are the callers' to check.
 */
export interface Native {
  /** A number for a call on this addon's threads. */
  nextCall(): number;

  /** `bytes` bytes, 64-byte aligned, not cleared. */
  allocate(bytes: number): ArrayBuffer;
  detach(buffer: ArrayBuffer): void;

  randn(...args: RandnArgs): void;
  randnAsync(order: Order, ...args: RandnArgs): Promise<void>;
  /**
   * One update of every row, each by its record. `out`, `mean` and `pushed` are memory of their own or exactly that of an
   * input. ERR_NATIVE where a record is out of range, or reads an operand or a stream that is not there.
   */
  step(...args: StepArgs): NonFinite;
  stepAsync(order: Order, ...args: StepArgs): Promise<NonFinite>;
  /** out = clamp(scale input + shift, 0, 1) */
  clamp(...args: ClampArgs): void;
  clampAsync(order: Order, ...args: ClampArgs): Promise<void>;
  imageGrid(...args: ImageGridArgs): void;
  imageGridAsync(order: Order, ...args: ImageGridArgs): Promise<void>;
  convert(count: number, ...args: [...input: Operand, ...out: Operand]): void;
  convertAsync(order: Order, count: number, ...args: [...input: Operand, ...out: Operand]): Promise<void>;

  linspace(count: number, out: Float32Array, start: number, end: number): void;
  discreteSigmas(count: number, out: Float32Array, sigmaMin: number, sigmaMax: number): void;
  sigmas(count: number, out: Float32Array, timesteps: Float32Array, sigmaMin: number, sigmaMax: number): void;

  torchSeed(state: Uint8Array, seed: bigint): void;
  torchStateIsSound(state: Uint8Array): boolean;
  philoxWords(counter: Uint32Array, key: Uint32Array): Uint32Array;

  /** Whether CUDA's provider lies beside a library and is of its version. ERR_CUDA_UNAVAILABLE, ERR_MODEL. */
  checkProviderAsync(library: string, shared: boolean): Promise<void>;
  /** ERR_MODEL, ERR_CONFIG, ERR_CUDA_UNAVAILABLE. */
  loadNetworkAsync(...args: LoadNetworkArgs): Promise<LoadedNetwork>;
  /** ERR_MODEL, ERR_ABORTED after stopNetwork. */
  runNetworkAsync(order: Order, ...args: RunNetworkArgs): Promise<void>;
  stopNetwork(network: Network, id: number): void;
  /** Gives the session back once no run uses it. */
  releaseNetworkAsync(network: Network): Promise<void>;

  /** The pools of threads in use, for other copies of the addon. `pools` are taken if this copy has used none yet. */
  sharePools(pools?: object): object;
  getNumThreads(): number;
  setNumThreads(count: number): void;
  /** Bytes a second of STREAM's copy and triad over float32 arrays of that length. */
  streamRate(elements: number): { copy: number; triad: number };
  /** Normals a second, into the cache: philox (1) on all threads, torch (2) on one. */
  normalRate(kind: number): number;
  instructionSet(): string;
  deviceAllocate(device: number, bytes: number): DeviceHandle;
  /** A part of a block, which keeps the block until it is released itself. ERR_SHAPE. */
  deviceSlice(memory: DeviceHandle, offset: number, bytes: number): DeviceHandle;
  deviceRelease(memory: DeviceHandle): void;
  deviceAddress(memory: DeviceHandle): number;
  deviceClear(memory: DeviceHandle): void;
  deviceClone(memory: DeviceHandle): DeviceHandle;
  /** Through pinned memory; the array is free when it is over. */
  deviceUpload(memory: DeviceHandle, from: ArrayBufferView): void;
  deviceUploadAsync(memory: DeviceHandle, from: ArrayBufferView): Promise<void>;
  /** What the memory holds after all that is enqueued now. */
  deviceDownloadAsync(memory: DeviceHandle, to: ArrayBufferView): Promise<void>;
  /** When all that is enqueued now is done. ERR_CUDA where it failed. */
  deviceDoneAsync(device: number): Promise<void>;
  /** A mark of so many rows. */
  deviceMark(device: number, rows: number): { handle: DeviceHandle; mark: object };
  /** The rows' words by now, without waiting: the least index of a call that had a value that is not finite, or 2^32 - 1. */
  deviceMarkSeen(mark: object): Uint32Array;
  deviceStream(device: number): bigint;
  /** What is enqueued from now on comes after what is on `stream` now; the other way round. */
  deviceWaitFor(device: number, stream: bigint): void;
  devicePrecede(device: number, stream: bigint): void;
  /** Bytes that tensors hold, and that are kept for the next ones. */
  deviceUsage(device: number): { used: number; kept: number };
  deviceTrim(device: number): void;
  deviceFromPointer(device: number, pointer: bigint, bytes: number, release: (() => void) | null): DeviceHandle;
  deviceToDlpack(memory: DeviceHandle, dims: readonly number[], code: number, bits: number, stream: bigint): object;
  /** `formats` are pairs of DLPack's code and bits, of which `format` counts. */
  deviceFromDlpack(
    tensor: object,
    formats: number[],
    stream: bigint,
  ): {
    handle: DeviceHandle;
    device: number;
    dims: number[];
    format: number;
    readOnly: boolean;
  };
  deviceToIpc(memory: DeviceHandle): Uint8Array;
  /** ERR_CUDA, ERR_CONFIG for memory of another device, ERR_SHAPE where the block is smaller. */
  deviceFromIpc(device: number, handle: Uint8Array, offset: number, bytes: number): DeviceHandle;

  /** `unusable` and `unavailable` say why, and are empty where all is well. */
  cudaDevices(): {
    devices: { name: string; memory: number; computeCapability: string; unusable: string }[];
    unavailable: string;
  };
}
