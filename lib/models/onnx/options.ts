import { getNumThreads, resolveDevice } from '../../devices';
import { reasonOf, ScoreSdeError } from '../../errors';
import { assertOptions, show } from '../../options';
import { deviceIndex } from '../../native/memory';
import { sizeOfDims } from '../../tensor/tensor';
import { networkOptions, type NetworkOptions } from '../network/contract';

const graphOptimizations = { disabled: 0, basic: 1, extended: 2, all: 99 } as const;

export interface OnnxModelOptions extends NetworkOptions {
  /** Where the network runs: 'cpu', 'cuda', 'cuda:1', or 'auto' (default), the best there is that works. */
  device?: string;
  /** Threads within an operator, or calls at once, 1 to 1024: the kernels' number (getNumThreads) unless given. */
  intraOpThreads?: number;
  /** Operators at once, 1 to 1024. Default 1. */
  interOpThreads?: number;
  /** How far the runtime rewrites the graph. Default 'all'. */
  graphOptimization?: keyof typeof graphOptimizations;
  /**
   * Whether a sample's score has the same bits alone and in any batch. true: samples go through the network one by one.
   * 'auto' (default): so they do where a probe at load finds that it makes a difference, else in small calls, of every
   * size that was probed, and several at once where it finds that a call on one thread makes none. false: batches go as
   * they are, which on a GPU is what 'auto' does, too: its kernels, and with them the bits, depend on the batch.
   */
  exact?: 'auto' | boolean;
  /** The dims of one sample, for the probe, where the network leaves them free. */
  sampleShape?: readonly number[];
  /**
   * ONNX Runtime's shared library; that of onnxruntime-node unless given here or in SCORE_SDE_ONNXRUNTIME. Where
   * onnxruntime-node is loaded later, the system's loader may take another library of the same name for its own.
   */
  libraryPath?: string;
  /**
   * ONNX Runtime's session configuration entries, as { 'session.intra_op.allow_spinning': 0 } where other work shares the
   * cores.
   */
  sessionConfig?: Readonly<Record<string, string | number | boolean>>;
  /** Options of the execution provider, as ONNX Runtime documents them. */
  providerOptions?: Readonly<Record<string, string | number | boolean>>;
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
  'sessionConfig',
  'providerOptions',
] as const satisfies (keyof OnnxModelOptions)[];

/** What a network is loaded with, checked. ERR_CONFIG, ERR_SHAPE, ERR_RANGE, ERR_DISPOSED, ERR_CUDA_UNAVAILABLE. */
export function settingsOf(pathOrBytes: unknown, options: OnnxModelOptions) {
  assertOptions(options, loadOptions);
  const { graphOptimization = 'all', exact = 'auto', sampleShape } = options;
  const given = bytesOf(pathOrBytes);
  if (given === undefined && (typeof pathOrBytes !== 'string' || pathOrBytes === ''))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `the network must be a path, or a Uint8Array or ArrayBuffer of its bytes, got ${show(pathOrBytes)}`,
    );
  if (!Object.hasOwn(graphOptimizations, graphOptimization))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `graphOptimization must be 'disabled', 'basic', 'extended' or 'all', got ${show(graphOptimization)}`,
    );
  if (sampleShape !== undefined && (sizeOfDims(sampleShape, 'sampleShape') === 0 || sampleShape.length === 0))
    throw new ScoreSdeError('ERR_SHAPE', `sampleShape must hold positive sizes, got ${show(sampleShape)}`);
  if (exact !== 'auto' && typeof exact !== 'boolean')
    throw new ScoreSdeError('ERR_CONFIG', `exact must be 'auto', true or false, got ${show(exact)}`);
  const intraOpThreads = threadsOf(options.intraOpThreads ?? getNumThreads(), 'intraOpThreads');
  const interOpThreads = threadsOf(options.interOpThreads ?? 1, 'interOpThreads');
  const sessionConfig = textsOf(options.sessionConfig, 'sessionConfig');
  const device = resolveDevice(options.device ?? 'auto');
  const provider = textsOf(options.providerOptions, 'providerOptions');
  if (!/^(0|false)$/i.test(provider.enable_cuda_graph ?? '0'))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      'providerOptions.enable_cuda_graph: the network shares its stream with the steps, which a graph of it would capture, too',
    );
  const borrows = given && borrowed.find((key) => Number(sessionConfig[key] ?? 0) !== 0);
  if (borrows)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `sessionConfig['${borrows}']: the bytes of a network are not kept once it is loaded`,
    );
  return {
    /** The network's bytes, unless it is a file. */
    given,
    device,
    intraOpThreads,
    interOpThreads,
    graphOptimization: graphOptimizations[graphOptimization],
    sessionConfig,
    exact,
    sampleShape,
    /** The provider's: on this device, and in the order of the stream that it is given. */
    cudaOptions: () => ({ ...provider, device_id: String(deviceIndex(device)), do_copy_in_default_stream: '1' }),
  };
}

/** The bytes that a network was given as, if it was: arrays of other realms are known by their names. */
function bytesOf(given: unknown): Uint8Array | undefined {
  const kind = Object.prototype.toString.call(given);
  if (kind !== '[object ArrayBuffer]') return kind === '[object Uint8Array]' ? (given as Uint8Array) : undefined;
  try {
    return new Uint8Array(given as ArrayBuffer);
  } catch (cause) {
    throw new ScoreSdeError('ERR_DISPOSED', `the network's bytes cannot be read: ${reasonOf(cause)}`, { cause });
  }
}

/** The settings by which a session reads its weights where the given bytes lie. */
const borrowed = ['session.use_ort_model_bytes_directly', 'session.use_ort_model_bytes_for_initializers'];

/** Settings as the runtime takes them. ERR_CONFIG. */
function textsOf(settings: OnnxModelOptions['sessionConfig'], name: string): Record<string, string> {
  const entries = Object.entries(settings ?? {});
  const isSetting = (value: unknown) => ['string', 'number', 'boolean'].includes(typeof value);
  if (
    typeof (settings ?? {}) !== 'object' ||
    Array.isArray(settings) ||
    !entries.every(([, value]) => isSetting(value))
  )
    throw new ScoreSdeError('ERR_CONFIG', `${name} must be an object of strings and numbers, got ${show(settings)}`);
  const text = (value: unknown) => String(typeof value === 'boolean' ? Number(value) : value);
  return Object.fromEntries(entries.map(([key, value]) => [key, text(value)]));
}

function threadsOf(count: unknown, name: string): number {
  if (!Number.isInteger(count) || (count as number) < 1 || (count as number) > 1024)
    throw new ScoreSdeError('ERR_RANGE', `${name} must be an integer from 1 to 1024, got ${show(count)}`);
  return count as number;
}
