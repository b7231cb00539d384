import { getNumThreads, resolveDevice } from '../../devices';
import { reasonOf, ScoreSdeError } from '../../errors';
import { unpacked } from '../../files';
import { assertFunction, assertOptions, assertSignal, isPlainObject, show } from '../../options';
import { deviceIndex } from '../../native/memory';
import { sizeOfDims, unfixed } from '../../tensor/data';
import { checkedNetwork, networkOptions, type CheckedNetwork, type NetworkOptions } from '../network/contract';
import type { Signal } from '../../platform';
import type { LoadProgress, NetworkSource } from './weights';

const graphOptimizations = { disabled: 0, basic: 1, extended: 2, all: 99 } as const;

export interface OnnxModelOptions extends NetworkOptions {
  /** The device to run on: 'cpu', 'cuda' (cuda:0), 'cuda:N', or 'auto' (default): the first usable GPU, else the CPU. */
  device?: string | undefined;
  /** Threads of one operator, or of calls at once: an integer from 1 to 1024. Default getNumThreads(). */
  intraOpThreads?: number | undefined;
  /** Operators at once: an integer from 1 to 1024. Default 1. */
  interOpThreads?: number | undefined;
  /** The graph rewrites that ONNX Runtime may make. Default 'all'. */
  graphOptimization?: keyof typeof graphOptimizations | undefined;
  /**
   * Whether a sample's score must have the same bits alone and in any batch.
   * true: each call of the network gets one sample.
   * 'auto' (default): a probe at load compares the bits. Calls get up to 8 samples if those leave the bits as they are, else one.
   * Several calls run at once, on one thread each, if that leaves the bits as they are. On a GPU 'auto' is false.
   * false: each call gets the whole batch.
   * The model's `exact` tells what was chosen, and why.
   */
  exact?: 'auto' | boolean | undefined;
  /** The dims of one sample, for the probe: positive sizes. Needed where the network leaves some free. */
  sampleShape?: readonly number[] | undefined;
  /**
   * The path of ONNX Runtime's shared library. Default: SCORE_SDE_ONNXRUNTIME from the environment, else that of
   * onnxruntime-node. If onnxruntime-node is loaded later, the system may give it this library, which has the same name.
   */
  libraryPath?: string | undefined;
  /**
   * Weights that the network has in files beside it, as bytes by the files' names, { 'model.onnx_data': bytes }. They take the
   * place of the files, and need not be kept once the network is loaded. Of a network that is given by its bytes all must be
   * given; of a file's the others are read from its folder.
   */
  externalData?: Readonly<Record<string, Uint8Array | ArrayBuffer>> | undefined;
  /**
   * The most bytes of a network, weights elsewhere included, of which a second session is made. Default 2^28. Quick networks
   * have one, with one thread to an operator, for calls at once (see `exact`); it holds the weights again. What a probe of a
   * larger network finds is not kept (see `probeCache`), since its key would need all of the weights to be read.
   */
  maxCopyBytes?: number | undefined;
  /** Whether the network is called to see if it is of the kind that the options say (see {@link OnnxModel.checkKind}). Default true. */
  check?: boolean | undefined;
  /** Ends the load at once, with an error of code ERR_ABORTED. */
  signal?: Signal | undefined;
  /** Has the network's files read ahead of ONNX Runtime, and is told how many bytes of them were read. */
  onProgress?: ((progress: LoadProgress) => void) | undefined;
  /**
   * Whether ONNX Runtime plans the memory of a run from the run before. Default true; false takes less memory: a run at
   * 3x1024x1024 took that of 6 samples in place of 8.
   */
  memoryPattern?: boolean | undefined;
  /**
   * Whether ONNX Runtime keeps memory for the next run in an arena of its own. Default true; false takes more time, and less
   * memory only where the C library returns what is freed: with glibc's usual settings the same run took that of 11 samples.
   */
  cpuArena?: boolean | undefined;
  /** Whether operators that do not depend on each other run at once. Default: 'parallel' with more than one interOpThreads. */
  executionMode?: 'sequential' | 'parallel' | undefined;
  /** Sizes of the free dims of the network's inputs, by their names. */
  freeDimensionOverrides?: Readonly<Record<string, number>> | undefined;
  /** What ONNX Runtime writes to standard error: from 0, verbose, to 4, fatal errors. Default 4. */
  logSeverityLevel?: 0 | 1 | 2 | 3 | 4 | undefined;
  /** A file for the graph as ONNX Runtime rewrote it. */
  optimizedModelFilePath?: string | undefined;
  /** How the name of a file begins to which ONNX Runtime writes the times of operators, when the model is disposed. */
  profileFilePrefix?: string | undefined;
  /** ONNX Runtime's session configuration entries, such as { 'session.intra_op.allow_spinning': 0 }. A boolean is 0 or 1. */
  sessionConfig?: Readonly<Record<string, string | number | boolean>> | undefined;
  /** A JSON file that keeps what the probe of `exact` found, so that later processes need not probe. It is made where it is missing. */
  probeCache?: string | undefined;
  /** Options of the CUDA execution provider, as ONNX Runtime documents them. */
  providerOptions?: Readonly<Record<string, string | number | boolean>> | undefined;
}

export const loadOptions = [
  ...networkOptions,
  'device',
  'intraOpThreads',
  'interOpThreads',
  'graphOptimization',
  'exact',
  'sampleShape',
  'libraryPath',
  'externalData',
  'maxCopyBytes',
  'check',
  'signal',
  'onProgress',
  'memoryPattern',
  'cpuArena',
  'executionMode',
  'freeDimensionOverrides',
  'logSeverityLevel',
  'optimizedModelFilePath',
  'profileFilePrefix',
  'sessionConfig',
  'probeCache',
  'providerOptions',
] as const satisfies (keyof OnnxModelOptions)[];

/** The options of a load, checked and with their defaults. */
export interface Settings {
  readonly source: NetworkSource;
  readonly network: CheckedNetwork;
  readonly device: string;
  /** Whether the CPU may take the place of a device. */
  readonly isAuto: boolean;
  readonly intraOpThreads: number;
  readonly interOpThreads: number;
  /** What ONNX Runtime is told, in the words of LoadNetworkArgs. */
  readonly session: {
    readonly graphOptimization: number;
    readonly parallel: boolean;
    readonly memoryPattern: boolean;
    readonly cpuArena: boolean;
    readonly logSeverity: number;
    readonly sizes: readonly (readonly [name: string, size: number])[];
    readonly optimizedPath: string;
    readonly profilePrefix: string;
    readonly config: Record<string, string>;
  };
  readonly libraryPath: string | undefined;
  readonly exact: 'auto' | boolean;
  readonly sampleShape: readonly number[] | undefined;
  readonly probeCache: string | undefined;
  readonly maxCopyBytes: number;
  readonly isChecked: boolean;
  readonly signal: Signal | undefined;
  readonly onProgress: ((progress: LoadProgress) => void) | undefined;
  /** The CUDA provider's options: this device, and copies on the stream that the session is given. */
  readonly cudaOptions: () => Record<string, string>;
}

/** The options of OnnxModel.load, checked and with defaults. ERR_CONFIG, ERR_SHAPE, ERR_RANGE, ERR_DISPOSED, ERR_CUDA_UNAVAILABLE. */
export function settingsOf(pathOrBytes: unknown, options: OnnxModelOptions): Settings {
  assertOptions(options, loadOptions);
  const { graphOptimization = 'all', exact = 'auto', sampleShape } = options;
  const given = networkBytes(pathOrBytes);
  if (given === undefined && (typeof pathOrBytes !== 'string' || pathOrBytes === ''))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `the network must be a path, or a Uint8Array or ArrayBuffer of its bytes, got ${show(pathOrBytes)}`,
    );
  const network = checkedNetwork(options);
  if (!Object.hasOwn(graphOptimizations, graphOptimization))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `graphOptimization must be 'disabled', 'basic', 'extended' or 'all', got ${show(graphOptimization)}`,
    );
  if (sampleShape !== undefined && (sizeOfDims(sampleShape, 'sampleShape') === 0 || sampleShape.length === 0))
    throw new ScoreSdeError('ERR_SHAPE', `sampleShape must hold positive sizes, got ${show(sampleShape)}`);
  if (exact !== 'auto' && typeof exact !== 'boolean')
    throw new ScoreSdeError('ERR_CONFIG', `exact must be 'auto', true or false, got ${show(exact)}`);
  const probeCache = pathOf(options.probeCache, 'probeCache');
  const { maxCopyBytes = 2 ** 28, executionMode, logSeverityLevel = 4, signal, onProgress } = options;
  if (typeof maxCopyBytes !== 'number' || !(maxCopyBytes >= 0))
    throw new ScoreSdeError('ERR_RANGE', `maxCopyBytes must be a number >= 0, got ${show(maxCopyBytes)}`);
  if (executionMode !== undefined && executionMode !== 'sequential' && executionMode !== 'parallel')
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `executionMode must be 'sequential' or 'parallel', got ${show(executionMode)}`,
    );
  if (!Number.isInteger(logSeverityLevel) || logSeverityLevel < 0 || logSeverityLevel > 4)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `logSeverityLevel must be an integer from 0 to 4, got ${show(logSeverityLevel)}`,
    );
  assertSignal(signal);
  assertFunction(onProgress, 'onProgress');
  const { intraOpThreads = getNumThreads(), interOpThreads = 1 } = options;
  assertThreads(intraOpThreads, 'intraOpThreads');
  assertThreads(interOpThreads, 'interOpThreads');
  const sessionConfig = textsOf(options.sessionConfig, 'sessionConfig');
  const { device: wanted = 'auto' } = options;
  const device = resolveDevice(wanted);
  const provider = textsOf(options.providerOptions, 'providerOptions');
  if (!/^(0|false)$/i.test(provider.enable_cuda_graph ?? '0'))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      'providerOptions.enable_cuda_graph: the network shares its stream with the steps, which a graph of it would capture, too',
    );
  const external = externalOf(options.externalData);
  const isGiven = given !== undefined || external.size > 0;
  const keeping = isGiven && keepBytes.find((key) => Number(sessionConfig[key] ?? 0) !== 0);
  if (keeping)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `sessionConfig['${keeping}']: the bytes of a network are not kept once it is loaded`,
    );
  return {
    network,
    source: {
      path: given ? undefined : unpacked(pathOrBytes as string),
      bytes: given && own(given),
      size: given?.length,
      external,
    },
    device,
    isAuto: options.device === undefined || options.device === 'auto',
    intraOpThreads,
    interOpThreads,
    session: {
      graphOptimization: graphOptimizations[graphOptimization],
      parallel: executionMode === undefined ? interOpThreads > 1 : executionMode === 'parallel',
      memoryPattern: flag(options.memoryPattern, 'memoryPattern'),
      cpuArena: flag(options.cpuArena, 'cpuArena'),
      logSeverity: logSeverityLevel,
      sizes: sizesOf(options.freeDimensionOverrides),
      optimizedPath: pathOf(options.optimizedModelFilePath, 'optimizedModelFilePath') ?? '',
      profilePrefix: pathOf(options.profileFilePrefix, 'profileFilePrefix') ?? '',
      config: sessionConfig,
    },
    libraryPath: pathOf(options.libraryPath, 'libraryPath'),
    exact,
    sampleShape,
    probeCache,
    maxCopyBytes,
    isChecked: flag(options.check, 'check'),
    signal,
    onProgress,
    cudaOptions: () => ({ ...provider, device_id: String(deviceIndex(device)), do_copy_in_default_stream: '1' }),
  };
}

/** The network's bytes, if the argument is a Uint8Array or an ArrayBuffer, also of another realm. ERR_DISPOSED. */
function networkBytes(given: unknown): Uint8Array | undefined {
  const kind = Object.prototype.toString.call(given);
  if (kind !== '[object ArrayBuffer]' && kind !== '[object Uint8Array]') return undefined;
  try {
    if (kind === '[object ArrayBuffer]') return new Uint8Array(given as ArrayBuffer);
    const { buffer, byteOffset, byteLength } = given as Uint8Array;
    return new Uint8Array(buffer, byteOffset, byteLength);
  } catch (cause) {
    throw new ScoreSdeError('ERR_DISPOSED', `the network's bytes cannot be read: ${reasonOf(cause)}`, { cause });
  }
}

/** Bytes that stay as they are: memory that may shrink is copied. */
function own(bytes: Uint8Array): Uint8Array {
  return unfixed(bytes.buffer) === undefined ? bytes : Uint8Array.from(bytes);
}

/** ERR_CONFIG, ERR_DISPOSED. */
function externalOf(given: OnnxModelOptions['externalData']): ReadonlyMap<string, Uint8Array> {
  if (given !== undefined && !isPlainObject(given))
    throw new ScoreSdeError('ERR_CONFIG', `externalData must be an object of bytes by file name, got ${show(given)}`);
  return new Map(
    Object.entries(given ?? {}).map(([name, data]) => {
      const bytes = networkBytes(data);
      if (name === '' || bytes === undefined || bytes.length === 0)
        throw new ScoreSdeError(
          'ERR_CONFIG',
          `externalData[${show(name)}] must be a Uint8Array or ArrayBuffer of that file's bytes, got ${show(data)}`,
        );
      return [name, own(bytes)];
    }),
  );
}

function flag(value: unknown, name: string): boolean {
  if (value !== undefined && typeof value !== 'boolean')
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be a boolean, got ${show(value)}`);
  return value ?? true;
}

function pathOf(value: unknown, name: string): string | undefined {
  if (value !== undefined && (typeof value !== 'string' || value === ''))
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be the path of a file, got ${show(value)}`);
  return value;
}

/** ERR_CONFIG. */
function sizesOf(given: OnnxModelOptions['freeDimensionOverrides'] = {}): [name: string, size: number][] {
  const refused = (value: unknown) =>
    new ScoreSdeError(
      'ERR_CONFIG',
      `freeDimensionOverrides must be an object of positive integers by name, got ${show(value)}`,
    );
  if (!isPlainObject(given)) throw refused(given);
  const sizes = Object.entries(given);
  for (const [, size] of sizes) if (!Number.isSafeInteger(size) || size < 1) throw refused(size);
  return sizes;
}

/** Session settings with which a session reads its weights in the given bytes, without a copy, as long as it lives. */
const keepBytes = ['session.use_ort_model_bytes_directly', 'session.use_ort_model_bytes_for_initializers'];

/** Settings as ONNX Runtime takes them: text by name. ERR_CONFIG. */
function textsOf(settings: OnnxModelOptions['sessionConfig'] = {}, name: string): Record<string, string> {
  const entries = Object.entries(settings ?? {});
  const isSetting = (value: unknown) => ['string', 'number', 'boolean'].includes(typeof value);
  if (
    settings === null ||
    typeof settings !== 'object' ||
    Array.isArray(settings) ||
    !entries.every(([, value]) => isSetting(value))
  )
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be an object of strings and numbers, got ${show(settings)}`);
  const text = (value: unknown) => String(typeof value === 'boolean' ? Number(value) : value);
  return Object.fromEntries(entries.map(([key, value]) => [key, text(value)]));
}

function assertThreads(count: unknown, name: string): void {
  if (!Number.isInteger(count) || (count as number) < 1 || (count as number) > 1024)
    throw new ScoreSdeError('ERR_RANGE', `${name} must be an integer from 1 to 1024, got ${show(count)}`);
}
