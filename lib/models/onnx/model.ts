import { AbortError, reasonOf, ScoreSdeError } from '../../errors';
import { isFile } from '../../files';
import { Dtype, type LoadedNetwork, type NetworkInput, type NetworkPort, type Order } from '../../native/abi';
import { native } from '../../native/addon';
import { KernelCall } from '../../native/call';
import { bufferOf, deviceIndex, placeOf } from '../../native/memory';
import { inOrder } from '../../native/order';
import { assertApart, assertOnePlace, operand, target, type Operand, type StateType } from '../../tensor/operand';
import { numbersOf, type PerSample } from '../../tensor/arguments';
import { Tensor, unfixed, type TensorLike } from '../../tensor/tensor';
import { Contract } from '../network/contract';
import { onAbort } from '../../signals';
import { findLibrary } from './library';
import {
  assertContext,
  assertInputs,
  handOver,
  type Handed,
  type ModelContext,
  type ModelInputs,
  type ScoreModel,
} from '../model';
import { settingsOf, type OnnxModelOptions } from './options';
import { isPerSample, type BatchRules, type Feed, type Port } from '../network/port';
import { isDivided, probeWidth, type Exactness } from './probe';

/** ONNX's element types by their numbers, in onnxruntime's words. */
const types: Record<number, string> = {
  0: 'not a tensor',
  1: 'float32',
  2: 'uint8',
  3: 'int8',
  4: 'uint16',
  5: 'int16',
  6: 'int32',
  7: 'int64',
  8: 'string',
  9: 'bool',
  10: 'float16',
  11: 'float64',
  12: 'uint32',
  13: 'uint64',
  16: 'bfloat16',
};

const portOf = ({ name, type, shape }: NetworkPort): Port => ({
  name,
  type: types[type] ?? `type ${type}`,
  shape: shape.map((dim) => (dim === '' ? '?' : dim)),
});

/** What a run of the network may be told: where the score goes, float32, float16 or bfloat16, and what ends it. */
export interface RunContext extends Omit<ModelContext, 'out'> {
  readonly out?: TensorLike;
}

/** A function that is an object of its class. */
const Callable = function (call: object): unknown {
  return Object.setPrototypeOf(call, (new.target as unknown as { prototype: object }).prototype) as object;
} as unknown as new (call: (...args: never[]) => unknown) => object;

// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export interface OnnxModel extends ScoreModel {
  (sample: TensorLike, sigma: PerSample, inputs?: ModelInputs, context?: RunContext): Promise<Tensor>;
}

/**
 * A score network in ONNX Runtime, run by this package itself: off the event loop, on the memory of its tensors, and to be
 * ended by a signal. A ScoreModel: model(sample, sigma) is model.run(sample, sigma).
 */
// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export class OnnxModel extends Callable {
  /** The network's inputs and outputs, from its metadata. */
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
  /** The dims of one sample, free ones by name. */
  readonly sampleShape: readonly (number | string)[];
  /** Where the network runs. */
  readonly device: string;
  /** Where it takes states and leaves scores. */
  readonly devices: readonly string[];
  /** Why it does not run on the best device there is, where it was to choose. */
  readonly fallback: string | undefined;
  /** ONNX Runtime's library and its version. */
  readonly library: { readonly path: string; readonly version: string };
  readonly #contract: Contract;
  readonly #loaded: LoadedNetwork;
  /** The same with one thread to an operator, for calls at once. */
  #narrow: LoadedNetwork | undefined;
  #exact: Exactness = { holds: false, width: 'any', atOnce: 1, why: 'exact is false' };
  readonly #running = new Set<Promise<unknown>>();
  #runs = 0;
  #disposal: Promise<void> | undefined;

  private constructor(loaded: LoadedNetwork, contract: Contract, device: string, fallback: string | undefined) {
    super((...args: Parameters<OnnxModel['run']>) => self.run(...args));
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const self = this;
    this.#loaded = loaded;
    this.#contract = contract;
    this.inputs = contract.inputs;
    this.outputs = contract.outputs;
    this.sampleShape = contract.sampleShape;
    this.device = device;
    this.devices = [device];
    this.fallback = fallback;
    this.library = { path: loaded.library, version: loaded.version };
  }

  /**
   * Loads a network from a file (weights in other files are found beside it) or from its bytes, a Uint8Array or an ArrayBuffer.
   * @throws ScoreSdeError ERR_MODEL (no library, one that is of no use, no network, or none of a score), ERR_CONFIG, ERR_RANGE,
   *   ERR_CUDA_UNAVAILABLE, ERR_IO
   */
  static async load(
    pathOrBytes: string | Uint8Array | ArrayBuffer,
    options: OnnxModelOptions = {},
  ): Promise<OnnxModel> {
    const settings = settingsOf(pathOrBytes, options);
    const { given, device, intraOpThreads, interOpThreads, graphOptimization, sessionConfig, exact, sampleShape } =
      settings;
    const { path, shared } = findLibrary(options.libraryPath);
    const name = given ? 'the network' : (pathOrBytes as string);
    if (!given && !(await isFile(name)))
      throw new ScoreSdeError(
        'ERR_MODEL',
        `${name}: no such file; the network must be there as ONNX, other weights are not read`,
      );
    const bytes = given && unfixed(given.buffer) !== undefined ? Uint8Array.from(given) : given;
    type Cuda = [null] | [device: number, options: Record<string, string>];
    const start = (cuda: Cuda, intra: number, inter: number) =>
      native.loadNetworkAsync(
        path,
        shared,
        ...((bytes ? [bytes.length, bytes] : [name]) as [string]),
        intra,
        inter,
        graphOptimization,
        sessionConfig,
        ...cuda,
      );
    const load = (cuda: Cuda, intra = intraOpThreads, inter = interOpThreads) =>
      inOrder({ reads: bytes ? [bytes.buffer] : [], writes: [] }, () => start(cuda, intra, inter)).catch(
        (cause: unknown) => {
          throw modelError(cause, `${name} cannot be loaded`);
        },
      );
    const onCuda = async () => {
      await native.checkProviderAsync(path, shared);
      return load([deviceIndex(device), settings.cudaOptions()]);
    };
    let loaded: LoadedNetwork | undefined;
    let fallback: string | undefined;
    if (device !== 'cpu')
      loaded = await onCuda().catch((cause: unknown) => {
        const isAuto = options.device === undefined || options.device === 'auto';
        if (!isAuto || (cause as ScoreSdeError).code !== 'ERR_CUDA_UNAVAILABLE') throw cause;
        fallback = reasonOf(cause);
        return undefined;
      });
    loaded ??= await load([null]);
    let model: OnnxModel | undefined;
    try {
      const contract = new Contract(loaded.inputs.map(portOf), loaded.outputs.map(portOf), options);
      model = new OnnxModel(loaded, contract, fallback === undefined ? device : 'cpu', fallback);
      model.#exact = await model.#exactness(exact, sampleShape, async () => {
        if (intraOpThreads > 1) model!.#narrow = await load([null], 1, 1);
        return intraOpThreads;
      });
      if (model.#exact.atOnce === 1) await model.#releaseNarrow();
      return model;
    } catch (error) {
      await (model?.dispose() ?? native.releaseNetworkAsync(loaded.network));
      throw error;
    }
  }

  /** How samples go through the network, and what holds of their bits. */
  get exact(): Exactness {
    return this.#exact;
  }

  /**
   * The score of a batch.
   * @param sample The states, [B, ...]
   * @param sigma The noise level, of all samples or one of each
   * @param inputs The network's further inputs, as prepare takes them
   * @param context `out`: where the score goes, a new float32 tensor unless given; `signal`: ends the run, once the
   *   operator that is at work has done
   * @returns The score, with the dims of `sample`
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_MODEL, ERR_ALIAS, ERR_DISPOSED, ERR_ABORTED
   */
  async run(sample: TensorLike, sigma: PerSample, inputs: ModelInputs = {}, context: RunContext = {}): Promise<Tensor> {
    const { score, done } = this[handOver](sample, sigma, inputs, context);
    await done;
    return score;
  }

  /** @internal */
  [handOver](sample: TensorLike, sigma: PerSample, inputs: ModelInputs, context: RunContext): Handed {
    const { width, atOnce } = this.#exact;
    return this.#handOver(sample, sigma, inputs, context, width === 'any' ? 0 : width, atOnce);
  }

  /** Checks further inputs for states of these dims, and casts them: runs take what it returns without another look. ERR_MODEL, ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_DISPOSED. */
  prepare(dims: readonly number[], inputs: ModelInputs): ModelInputs {
    this.#assertAlive();
    return this.#contract.prepare(dims, inputs, this.#rules);
  }

  /** Gives the network back once the runs under way have ended. Safe to repeat. */
  dispose(): Promise<void> {
    return (this.#disposal ??= Promise.allSettled(this.#running).then(async () => {
      await this.#releaseNarrow();
      await native.releaseNetworkAsync(this.#loaded.network);
    }));
  }

  async #releaseNarrow(): Promise<void> {
    const narrow = this.#narrow;
    this.#narrow = undefined;
    if (narrow !== undefined) await native.releaseNetworkAsync(narrow.network);
  }

  get #rules(): Omit<BatchRules, 'size'> {
    const fixed = this.#contract.fixedBatch;
    return { fixed, divisible: fixed === undefined || fixed === 1 };
  }

  #assertAlive(): void {
    if (this.#disposal !== undefined) throw new ScoreSdeError('ERR_DISPOSED', 'the model is disposed');
  }

  async #exactness(
    exact: 'auto' | boolean,
    sizes: readonly number[] | undefined,
    narrow: () => Promise<number>,
  ): Promise<Exactness> {
    const fixed = this.#contract.fixedBatch;
    const alone = (why: string): Exactness => ({ holds: true, width: 1, atOnce: 1, why });
    const asGiven = (why: string): Exactness => ({ holds: false, width: fixed ?? 'any', atOnce: 1, why });
    const oneByOne = fixed === 1 ? 'the network takes one sample a call' : undefined;
    if (exact === true) return alone(oneByOne ?? 'exact is true');
    if (exact === false) return oneByOne === undefined ? asGiven('exact is false') : alone(oneByOne);
    if (this.device !== 'cpu')
      return oneByOne === undefined ? asGiven('the bits of a GPU depend on the batch') : alone(oneByOne);
    const dims = this.sampleShape.map((dim, axis) => (typeof dim === 'number' ? dim : sizes?.[axis]));
    if (!dims.every((dim): dim is number => dim !== undefined))
      return alone(oneByOne ?? 'the network leaves its sizes free: sampleShape would let it be probed');
    // What a run must give has no meaning here, but for its type and form.
    const further = this.#contract.further.filter((port) => isPerSample(port)).map(({ name }) => [name, 0] as const);
    return probeWidth({
      dims,
      fixed,
      oneByOne,
      sigmaEach: this.#sigmaEach,
      narrow,
      run: async (sample, sigma, width, atOnce) => {
        const { score, done } = this.#handOver(sample, sigma, Object.fromEntries(further), {}, width, atOnce);
        await done;
        return score;
      },
    });
  }

  /** Whether the network takes a sigma for each sample, and not one a call. */
  get #sigmaEach(): boolean {
    const { shape } = this.#contract.timestep;
    return shape.length > 0 && shape[0] !== 1;
  }

  #handOver(
    sample: TensorLike,
    sigma: PerSample,
    given: ModelInputs,
    context: RunContext,
    width: number,
    atOnce: number,
  ): Handed {
    this.#assertAlive();
    assertInputs(given, 'inputs');
    assertContext(context);
    const { out, signal } = context;
    const x = operand(sample, 'sample');
    const { inputs, outputs, sample: states, timestep, output } = this.#contract;
    const batch: BatchRules = { ...this.#rules, size: x.dims[0] ?? 0 };
    const further = this.#contract.prepare(x.dims, given, this.#rules) as Record<string, Feed>;
    const feeds = { ...further, [timestep.name]: this.#feedSigma(sigma, batch) };
    const place = placeOf(x.memory);
    if (place !== 'cpu' && place !== this.device)
      throw new ScoreSdeError('ERR_CONFIG', `sample lies on ${place}, and the model runs on ${this.device}`);
    if (place !== 'cpu' && batch.fixed !== undefined && batch.size % batch.fixed !== 0)
      throw new ScoreSdeError(
        'ERR_SHAPE',
        `sample must have a multiple of ${batch.fixed} samples on ${place}, got ${batch.size}: the network takes no other number`,
      );
    const score = target(out, x, 'out', { device: place });
    assertOnePlace([x, score.operand]);
    assertApart(score.operand, x);
    const levels = feeds[timestep.name]!.data as Float32Array;
    assertApart(score.operand, { ...x, name: 'sigma', memory: levels });
    // On a device, states of another type than the network's are converted there, before and after.
    const staged: Tensor[] = [];
    const ofType = (like: Operand, type: string): Operand => {
      if (place === 'cpu' || Dtype[type as StateType] === like.type) return like;
      staged.push(Tensor.empty(like.dims, { type: type as StateType, device: place }));
      return operand(staged.at(-1)!, like.name);
    };
    const [taken, made] = [ofType(x, states.type), ofType(score.operand, output.type)];
    if (taken !== x) convert(x, taken);
    const entries = Object.entries(feeds).map(([name, { data, dims, perSample }]): NetworkInput => {
      const port = inputs.findIndex((input) => input.name === name);
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return [port, [...dims], bytes.length, bytes, perSample];
    });
    // What takes one value a call has one for each sample only where they go one by one.
    const fill = batch.fixed ?? 0;
    const single = Object.values(feeds).some(({ perSample, dims }) => perSample && dims[0] !== x.dims[0]);
    const narrow = atOnce > 1 ? this.#narrow!.network : null;
    const id = this.#runs++ % 2 ** 32;
    const start = async (order: Order): Promise<void> => {
      if (signal?.aborted) throw new AbortError(signal);
      const forget = onAbort(signal, () => native.stopNetwork(this.#loaded.network, id));
      try {
        await native.runNetworkAsync(
          order,
          this.#loaded.network,
          narrow,
          isDivided(batch.size, atOnce) ? atOnce : 1,
          id,
          single ? 1 : width,
          fill,
          x.dims,
          inputs.indexOf(states),
          taken.memory,
          taken.type,
          outputs.indexOf(output),
          made.memory,
          made.type,
          entries.length,
          ...entries.flat(),
        );
      } finally {
        forget();
      }
    };
    const reads = [bufferOf(taken.memory), ...Object.values(feeds).map(({ data }) => data.buffer)];
    const running = inOrder({ reads, writes: [bufferOf(made.memory)] }, start, place === 'cpu');
    this.#running.add(running);
    const end = async (): Promise<void> => {
      try {
        await running;
        if (made !== score.operand) convert(made, score.operand);
      } catch (cause) {
        if (signal?.aborted) throw new AbortError(signal);
        throw modelError(cause, 'the model failed');
      } finally {
        this.#running.delete(running);
        for (const tensor of staged) tensor.dispose();
      }
    };
    return { score: score.tensor, done: end() };
  }

  /** Sigma where it lies, if the network takes it so. */
  #feedSigma(sigma: PerSample, batch: BatchRules): Feed {
    const levels = numbersOf(sigma, batch.size, 'sigma');
    const { timestep } = this.#contract;
    const data = typeof sigma === 'object' && 'data' in sigma ? sigma.data : sigma;
    const isFloat32 = Object.prototype.toString.call(data) === '[object Float32Array]';
    const own = isFloat32 && (data as Float32Array).buffer instanceof ArrayBuffer ? (data as Float32Array) : undefined;
    if (own?.length === batch.size && timestep.type === 'float32' && this.#sigmaEach) {
      const dims = [batch.size, ...timestep.shape.slice(1).map(() => 1)];
      return { type: 'float32', data: own, dims, location: 'cpu', perSample: true };
    }
    return this.#contract.feedSigma(levels, batch);
  }
}

/** Enqueues the rounding or widening of states. */
function convert(from: Operand, to: Operand): void {
  const access = { reads: [bufferOf(from.memory)], writes: [bufferOf(to.memory)] };
  new KernelCall('convert', () => [from.memory.length, from.memory, from.type, to.memory, to.type], access).run();
}

/** An error of the runtime says what failed; any other is its own. */
function modelError(cause: unknown, what: string): unknown {
  if (!(cause instanceof ScoreSdeError) || cause.code !== 'ERR_MODEL') return cause;
  return new ScoreSdeError('ERR_MODEL', `${what}: ${reasonOf(cause)}`, { cause });
}
