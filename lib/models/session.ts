import { reasonOf, ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { bufferOf, placeOf } from '../native/memory';
import { inOrder } from '../native/order';
import { numbersOf, type PerSample } from '../tensor/arguments';
import { operand, stateTypeOf } from '../tensor/operand';
import { typedData, widened, type TensorData } from '../tensor/data';
import { Tensor, type TensorLike } from '../tensor/tensor';
import { checkedNetwork, Contract, networkOptions, type NetworkOptions } from './network/contract';
import { scoreOf } from './network/score';
import { assertContext, assertInputs, behind, type ModelContext, type ModelInputs, type ScoreModel } from './model';
import { toFloat16, type Port } from './network/port';

/** The part of onnxruntime-node's InferenceSession that is used. 1.22 is the first version with the metadata. */
export interface SessionLike {
  /** The network's inputs. */
  readonly inputMetadata?: readonly object[] | undefined;
  /** The network's outputs. */
  readonly outputMetadata?: readonly object[] | undefined;
  run(feeds: never, fetches: readonly string[]): Promise<Record<string, unknown>>;
  release?(): Promise<void>;
}

export type SessionModelOptions = NetworkOptions;

/** A network that runs in an onnxruntime session. */
export interface SessionModel extends ScoreModel {
  /**
   * The score at `sample`.
   * @param sample The states, [B, ...], on the CPU
   * @param sigma The noise level, finite: one for all samples, or one for each
   * @param inputs Further inputs of the network
   * @param context `out` is not used, and `signal` only before the session runs: it cannot be stopped
   * @returns A new tensor with the dims of the network's output
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_CONFIG, ERR_MODEL, ERR_DISPOSED, ERR_ABORTED
   */
  (sample: TensorLike, sigma: PerSample, inputs?: ModelInputs, context?: ModelContext): Promise<Tensor<'float32'>>;
  /** The network's inputs and outputs, from its metadata. */
  readonly inputs: readonly Port[];
  /** The network's outputs, from its metadata. */
  readonly outputs: readonly Port[];
  /** The dims of one sample: sizes, and the names of free ones. */
  readonly sampleShape: readonly (number | string)[];
  /**
   * Checks further inputs for states of `dims` ([B, ...]), and converts them to the network's types.
   * @throws ScoreSdeError ERR_MODEL, ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_DISPOSED
   */
  prepare(dims: readonly number[], inputs: ModelInputs): ModelInputs;
  /** Releases the session. May be called repeatedly. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Whether a value is onnxruntime-node's metadata of an input or output. One that is no tensor has only a name. */
function isMetadata(value: unknown): value is Port & { isTensor?: boolean | undefined } {
  if (value === null || typeof value !== 'object') return false;
  const { name, isTensor, type, shape } = value as Record<string, unknown>;
  if (typeof name !== 'string') return false;
  if (isTensor === false) return true;
  const isDim = (dim: unknown) => typeof dim === 'number' || typeof dim === 'string';
  return typeof type === 'string' && Array.isArray(shape) && Array.from(shape).every(isDim);
}

function portsOf(metadata: unknown, what: string): Port[] {
  const ports: unknown[] = Array.isArray(metadata) ? Array.from(metadata) : [undefined];
  if (!ports.every(isMetadata))
    throw new ScoreSdeError(
      'ERR_MODEL',
      `session must be an InferenceSession of onnxruntime-node 1.22 or later, with ${what}, got ${show(metadata)}`,
    );
  return ports.map(({ name, type, shape, isTensor }) => ({
    name,
    type: isTensor === false ? 'not a tensor' : type,
    // onnxruntime-node gives a free size without a name as an empty string.
    shape: isTensor === false ? [] : shape.map((dim) => dim || '?'),
  }));
}

/** A session gets the whole batch in one call. */
const rules = { divisible: false };

/**
 * A score model from a session of onnxruntime-node. Names, types and ranks come from its metadata: a float16 network gets
 * float16 states, an integer `timestep` gets sigma truncated, and a scalar one needs the same sigma for all samples.
 * The session computes on the calling thread and blocks the event loop; {@link OnnxModel} does not.
 * @throws ScoreSdeError ERR_CONFIG (options), ERR_MODEL (no session, or metadata that do not tell sample, timestep and output apart)
 */
export function fromInferenceSession(session: SessionLike, options: SessionModelOptions = {}): SessionModel {
  assertOptions(options, networkOptions);
  const checked = checkedNetwork(options);
  if (session === null || typeof session !== 'object' || typeof session.run !== 'function')
    throw new ScoreSdeError(
      'ERR_MODEL',
      `session must be an InferenceSession of onnxruntime-node, got ${show(session)}`,
    );
  const inputs = portsOf(session.inputMetadata, 'inputMetadata');
  const outputs = portsOf(session.outputMetadata, 'outputMetadata');
  const contract = new Contract(inputs, outputs, checked);
  const { sample, timestep, output } = contract;
  contract.warnOfTruncation('the network');
  let released: Promise<void> | undefined;

  function prepare(dims: readonly number[], given: ModelInputs): ModelInputs {
    if (released !== undefined) throw new ScoreSdeError('ERR_DISPOSED', 'the model is disposed');
    return contract.prepare(dims, given, rules);
  }

  async function run(
    states: TensorLike,
    sigma: PerSample,
    given: ModelInputs = {},
    context: ModelContext = {},
  ): Promise<Tensor<'float32'>> {
    assertInputs(given, 'inputs');
    assertContext(context);
    const x = operand(states, 'sample');
    const { dims } = x;
    const place = placeOf(x.memory);
    if (place !== 'cpu')
      throw new ScoreSdeError('ERR_CONFIG', `sample lies on ${place}, and a session takes it on the CPU`);
    const further = prepare(dims, given);
    const levels = numbersOf(sigma, dims[0]!, 'sigma');
    const feedOfSigma = contract.feedSigma(levels, { ...rules, size: dims[0]! });
    const start = async () => {
      const type = stateTypeOf(x.type);
      const values = widened(x.memory as TensorData, type) as Float32Array;
      const bits = () => (type === 'float16' ? (x.memory as Uint16Array) : toFloat16(values));
      const data = sample.type === 'float16' ? bits() : values;
      const feedOfSample = { type: sample.type, data, dims: Array.from(dims), location: 'cpu' };
      const feeds = { ...further, [sample.name]: feedOfSample, [timestep.name]: feedOfSigma };
      try {
        return await session.run(feeds as never, [output.name]);
      } catch (cause) {
        throw new ScoreSdeError('ERR_MODEL', `the model failed: ${reasonOf(cause)}`, { cause });
      }
    };
    const outputs = await inOrder({ reads: [bufferOf(x.memory)], writes: [] }, start);
    try {
      return asFloat32(outputs[output.name] as TensorLike);
    } catch (cause) {
      throw new ScoreSdeError('ERR_MODEL', `the model gave no ${output.name}: ${reasonOf(cause)}`, { cause });
    }
  }

  const dispose = () => (released ??= Promise.resolve(session.release?.()));
  const { parameterization } = contract;
  const { dataRange } = contract.kind;
  const face = {
    inputs,
    outputs,
    sampleShape: contract.sampleShape,
    prepare,
    dispose,
    [Symbol.asyncDispose]: dispose,
    ...(dataRange && { dataRange }),
  };
  if (parameterization === undefined) return Object.assign(run, face);
  const network = Object.assign(run, { prepare });
  const score = scoreOf(network, parameterization) as typeof run;
  return Object.assign(score, face, { [behind]: { network, parameterization } });
}

/** A session's output as float32: the same memory if it is float32, else a copy. */
function asFloat32(output: TensorLike): Tensor<'float32'> {
  const { data, type } = typedData(output?.data, output?.type, 'the output');
  const values = widened(data, type) as Float32Array | Float64Array;
  return new Tensor('float32', type === 'float64' ? Float32Array.from(values) : (values as Float32Array), output.dims);
}
