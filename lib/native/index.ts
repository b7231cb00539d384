import { join } from 'node:path';
import { ScoreSdeError, type ErrorCode } from '../errors';

/** Element types of states, numbered as in native/core/dtype.hpp. */
export const Dtype = { float32: 0, float16: 1, bfloat16: 2 } as const;
export type Dtype = (typeof Dtype)[keyof typeof Dtype];
export type StateMemory = Float32Array | Uint16Array;

/** Kinds of noise, numbered as in native/core/params.hpp. */
export const NoiseKind = { given: 0, philox: 1, torch: 2 } as const;

/** Kind, source, Dtype: memory of rows x cols values; (key, counter) pairs, one or one a row; torch states, one or one a row. */
export type Noise =
  | [kind: 0, given: StateMemory, type: Dtype]
  | [kind: 1, streams: readonly [key: bigint, counter: bigint] | BigUint64Array, type: Dtype]
  | [kind: 2, states: Uint8Array[], type: Dtype];

/** How the corrector chooses its step, numbered as in native/core/params.hpp. */
export const StepSizeCode = { batch: 0, sample: 1, dim: 2, ald: 3 } as const;
export type StepSize = keyof typeof StepSizeCode;

type Batch = [rows: number, cols: number];
type Operand = [memory: StateMemory, type: Dtype];
/** One number for all rows, or one each. A number is cheaper: Node takes a microsecond to hand out a new array's memory. */
export type PerRow = number | Float32Array;

export type RandnArgs = [...Batch, ...Noise, scale: number, ...out: Operand];
export type StepPredArgs = [
  ...Batch,
  ...modelOutput: Operand,
  ...sample: Operand,
  ...Noise,
  sigma: PerRow,
  adjacentSigma: PerRow,
  ...out: Operand,
  mean: StateMemory | null,
  meanType: Dtype,
];
export type StepCorrectArgs = [
  ...Batch,
  ...modelOutput: Operand,
  ...sample: Operand,
  ...Noise,
  stepSize: number,
  snr: PerRow,
  sigma: PerRow | null,
  ...out: Operand,
];
export type AddNoiseArgs = [...Batch, ...sample: Operand, ...Noise, sigma: PerRow, ...out: Operand];

export type ImageGridArgs = [
  count: number,
  channels: number,
  height: number,
  width: number,
  columns: number,
  ...images: Operand,
  out: Uint8Array,
];

/**
 * What the addon exports, and the only place where it is declared. The addon checks memory (bytes, alignment), not
 * meaning: shapes, ranges and aliasing are the callers' to check. The steps return whether all of `out` is finite.
 */
export interface Native {
  /** `bytes` bytes, 64-byte aligned, not cleared. */
  allocate(bytes: number): ArrayBuffer;
  detach(buffer: ArrayBuffer): void;

  randn(...args: RandnArgs): void;
  randnAsync(...args: RandnArgs): Promise<void>;
  stepPred(...args: StepPredArgs): boolean;
  stepPredAsync(...args: StepPredArgs): Promise<boolean>;
  stepCorrect(...args: StepCorrectArgs): boolean;
  stepCorrectAsync(...args: StepCorrectArgs): Promise<boolean>;
  addNoise(...args: AddNoiseArgs): void;
  addNoiseAsync(...args: AddNoiseArgs): Promise<void>;
  clamp(count: number, ...args: [...input: Operand, ...out: Operand]): void;
  clampAsync(count: number, ...args: [...input: Operand, ...out: Operand]): Promise<void>;
  imageGrid(...args: ImageGridArgs): void;
  imageGridAsync(...args: ImageGridArgs): Promise<void>;
  convert(count: number, ...args: [...input: Operand, ...out: Operand]): void;

  linspace(count: number, out: Float32Array, start: number, end: number): void;
  discreteSigmas(count: number, out: Float32Array, sigmaMin: number, sigmaMax: number): void;
  sigmas(count: number, out: Float32Array, timesteps: Float32Array, sigmaMin: number, sigmaMax: number): void;

  torchSeed(state: Uint8Array, seed: bigint): void;
  torchStateIsSound(state: Uint8Array): boolean;
  philoxWords(counter: Uint32Array, key: Uint32Array): Uint32Array;

  getNumThreads(): number;
  setNumThreads(count: number): void;
  /** Bytes a second of STREAM's copy and triad over float32 arrays of that length. */
  streamRate(elements: number): { copy: number; triad: number };
  /** Normals a second, into the cache: philox (1) on all threads, torch (2) on one. */
  normalRate(kind: number): number;
  instructionSet(): string;
  cudaDevices(): { devices: { name: string; memory: number; computeCapability: string }[]; unavailable: string };
}

const root = join(__dirname, '..', '..');
// The package ships no types, and a bundler must not follow it: it looks for binaries at run time.
// eslint-disable-next-line @typescript-eslint/no-require-imports
const nodeGypBuild = require('node-gyp-build') as ((dir: string) => Native) & { resolve(dir: string): string };

/** The file that the addon is loaded from. */
export function nativePath(): string {
  return nodeGypBuild.resolve(root);
}

function load(): Native {
  try {
    return nodeGypBuild(root);
  } catch (cause) {
    throw new ScoreSdeError(
      'ERR_NATIVE',
      `score-sde has no working binary for ${process.platform}-${process.arch}; ` +
        `"npm rebuild score-sde" compiles one where CMake and a C++20 compiler are found (${(cause as Error).message})`,
      { cause },
    );
  }
}

/** The addon's errors carry a code; they become errors of this package (and of this realm). */
function translate(error: unknown): unknown {
  const { code, message } = error as { code?: ErrorCode; message: string };
  return code === undefined ? error : new ScoreSdeError(code, message);
}

type AnyFunction = (...args: unknown[]) => unknown;

function guard(call: AnyFunction, isAsync: boolean): AnyFunction {
  if (isAsync)
    return async (...args) => {
      try {
        return await call(...args);
      } catch (error) {
        throw translate(error);
      }
    };
  return (...args) => {
    try {
      return call(...args);
    } catch (error) {
      throw translate(error);
    }
  };
}

export const native = Object.fromEntries(
  Object.entries(load()).map(([name, call]) => [name, guard(call as AnyFunction, name.endsWith('Async'))]),
) as unknown as Native;
