import { reasonOf, ScoreSdeError, show } from '../errors';
import { elementsOf } from '../tensor/numbers';
import { Tensor, typedData, type TensorLike } from '../tensor/tensor';
import type { ModelInput, ModelInputs, ScoreModel } from './model';
import { assertFits, feed, feedPerSample, isFloat, isInteger, isPerSample, portsText, toFloat16, type Feed, type Port } from './port';

/** What is used of an onnxruntime-node InferenceSession (1.22 or later, for its metadata). */
export interface SessionLike {
  readonly inputMetadata?: readonly object[];
  readonly outputMetadata?: readonly object[];
  run(feeds: never, fetches: readonly string[]): Promise<Record<string, unknown>>;
  release?(): Promise<void>;
}

export interface SessionModelOptions {
  /** Name of the input for the states; 'sample', or the only one that can be it, unless given. */
  sample?: string;
  /** Name of the input for sigma; 'timestep', or the only one that can be it, unless given. */
  timestep?: string;
  /** Name of the output with the score; 'out_sample', or the only one, unless given. */
  output?: string;
  /** Values of further inputs that a run does not give. */
  defaultInputs?: ModelInputs;
}

/** A network that runs in an onnxruntime session. */
export interface SessionModel extends ScoreModel {
  /** The network's inputs and outputs, from its metadata. */
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** The dims of its states, free ones by name. */
  readonly sampleShape: readonly (number | string)[];
  prepare(dims: readonly number[], inputs: ModelInputs): ModelInputs;
  dispose(): Promise<void>;
}

function portsOf(metadata: readonly object[] | undefined, what: string): Port[] {
  if (!Array.isArray(metadata))
    throw new ScoreSdeError(
      'ERR_MODEL',
      `session must be an InferenceSession of onnxruntime-node 1.22 or later, with ${what}, got ${show(metadata)}`,
    );
  return (metadata as (Partial<Port> & { isTensor?: boolean })[]).map(({ name, type, shape, isTensor }) => ({
    name: String(name),
    type: isTensor === false ? 'not a tensor' : String(type),
    // A free size without a name comes as an empty string.
    shape: (shape ?? []).map((dim) => dim || '?'),
  }));
}

function choose(ports: readonly Port[], role: keyof SessionModelOptions, named: string | undefined, usual: string, rules: ((port: Port) => boolean)[]): Port {
  const found = ports.find((port) => port.name === (named ?? usual));
  if (found) return found;
  for (const rule of named === undefined ? rules : []) {
    const fitting = ports.filter(rule);
    if (fitting.length === 1) return fitting[0]!;
  }
  throw new ScoreSdeError(
    'ERR_MODEL',
    `the model has no ${named === undefined ? `recognisable ${role}` : `${role} named ${show(named)}`} among ${portsText(ports)}; ` +
      `name it with the option ${role}`,
  );
}

/**
 * Adapts a session of onnxruntime-node. Names, types and ranks come from its metadata: a float16 network gets float16
 * states, an integer `timestep` gets sigma truncated, a scalar one needs the same sigma for all samples.
 * The session computes on the calling thread: the event loop waits for each of its runs.
 * @throws ScoreSdeError ERR_MODEL where the metadata does not tell sample, timestep and output apart
 */
export function fromInferenceSession(session: SessionLike, options: SessionModelOptions = {}): SessionModel {
  if (session === null || typeof session !== 'object' || typeof session.run !== 'function')
    throw new ScoreSdeError('ERR_MODEL', `session must be an InferenceSession of onnxruntime-node, got ${show(session)}`);
  const inputs = portsOf(session.inputMetadata, 'inputMetadata');
  const outputs = portsOf(session.outputMetadata, 'outputMetadata');
  const sample = choose(inputs, 'sample', options.sample, 'sample', [
    (p) => isFloat(p) && p.shape.length > 1 && !isPerSample(p),
    (p) => isFloat(p) && p.shape.length > 1,
  ]);
  const others = inputs.filter((port) => port !== sample);
  const timestep = choose(others, 'timestep', options.timestep, 'timestep', [
    (p) => isFloat(p) && isPerSample(p),
    (p) => isInteger(p) && isPerSample(p),
  ]);
  const output = choose(outputs, 'output', options.output, 'out_sample', [() => true]);
  if (!['float32', 'float16'].includes(sample.type) || !isFloat(output))
    throw new ScoreSdeError(
      'ERR_MODEL',
      `the model must take and give float32 or float16 states, got ${portsText([sample])} and ${portsText([output])}`,
    );
  const further = others.filter((port) => port !== timestep);
  const prepared = new WeakSet<ModelInputs>();

  function prepare(dims: readonly number[], given: ModelInputs): ModelInputs {
    if (prepared.has(given)) return given;
    assertFits(sample, dims, 'sample');
    const unknown = Object.keys(given).find((name) => !further.some((port) => port.name === name));
    if (unknown !== undefined)
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model has no input ${show(unknown)}; its further inputs are: ${portsText(further)}`,
      );
    const feeds: Record<string, Feed> = {};
    for (const port of further) {
      const value: ModelInput | undefined = given[port.name] ?? options.defaultInputs?.[port.name];
      if (value === undefined)
        throw new ScoreSdeError('ERR_MODEL', `the model needs ${portsText([port])}: give it as modelInputs.${port.name}`);
      feeds[port.name] = feed(port, value, dims[0]!);
    }
    prepared.add(feeds);
    return feeds;
  }

  async function run(x: Tensor, sigma: Tensor, given: ModelInputs = {}): Promise<Tensor> {
    const further = prepare(x.dims, given);
    const levels = sigma.data as Float32Array;
    const feeds = {
      ...further,
      [sample.name]: sample.type === 'float16' ? { type: 'float16', data: toFloat16(x.data as Float32Array), dims: x.dims, location: 'cpu' } : x,
      [timestep.name]: feedPerSample(timestep, isInteger(timestep) ? levels.map(Math.trunc) : levels, x.dims[0]!, 'sigma'),
    };
    let outputs: Record<string, unknown>;
    try {
      outputs = await session.run(feeds as never, [output.name]);
    } catch (cause) {
      throw new ScoreSdeError('ERR_MODEL', `the model failed: ${reasonOf(cause)}`, { cause });
    }
    try {
      return asFloat32(outputs[output.name] as TensorLike);
    } catch (cause) {
      throw new ScoreSdeError('ERR_MODEL', `the model gave no ${output.name}: ${reasonOf(cause)}`, { cause });
    }
  }

  return Object.assign(run, {
    inputs,
    outputs,
    sampleShape: sample.shape.slice(1),
    prepare,
    dispose: async () => session.release?.(),
  });
}

/** A session's output as float32, where it lies if it is. */
function asFloat32(output: TensorLike): Tensor {
  const { data, type } = typedData(output?.data, output?.type, 'the output');
  if (type === 'float32') return new Tensor('float32', data as Float32Array, output.dims);
  return new Tensor('float32', Float32Array.from(elementsOf(output, 'the output') as ArrayLike<number>), output.dims);
}
