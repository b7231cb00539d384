import { dirname } from 'node:path';
import { AbortError, exportingPage, ScoreSdeError } from '../../errors';
import { isFile, isFolder, readHead, standIn } from '../../files';
import { Dtype, type LoadedNetwork, type NetworkInput, type NetworkPort, type Order } from '../../native/abi';
import { native } from '../../native/addon';
import { KernelCall } from '../../native/call';
import { bufferOf, placeOf } from '../../native/memory';
import { inOrder } from '../../native/order';
import { assertApart, assertOnePlace, operand, target, type Operand, type StateType } from '../../tensor/operand';
import { numbersOf, type PerSample } from '../../tensor/arguments';
import { Tensor, type TensorLike } from '../../tensor/tensor';
import { Contract } from '../network/contract';
import { scoreOf } from '../network/score';
import { assertOptions, assertSignal, extensionOf, show } from '../../options';
import type { Signal } from '../../platform';
import { assertGoesOn, onAbort, Wait } from '../../signals';
import { checkKind, leastSamples, type KindCheck } from '../network/check';
import { kindText } from '../network/kind-text';
import { sigmaRangeOf } from '../network/conditioning';
import { plain } from '../network/kind';
import {
  assertContext,
  assertInputs,
  behind,
  handOver,
  type Behind,
  type Handed,
  type ModelContext,
  type ModelInputs,
  type ScoreModel,
} from '../model';
import { settingsOf, type OnnxModelOptions, type Settings } from './options';
import { isInteger, isPerSample, type BatchRules, type Feed, type Port } from '../network/port';
import { isDivided, isQuick, probeExactness, type Exactness, type Probe, type RunDivided } from './probe';
import { addProbed, keepProbed, probedBefore, probeKeyOf, readProbed, type Probed } from './probe-cache';
import { modelError, Sessions } from './sessions';
import { Weights } from './weights';

/** onnxruntime's names of ONNX's element types, by number. */
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

/** Options of one run of a network. */
export interface RunContext extends Omit<ModelContext, 'out'> {
  /** Where the score goes: the dims of `sample`, float32, float16 or bfloat16. Default: a new float32 tensor. */
  readonly out?: TensorLike | undefined;
}

/** What is known of a network beside its file. */
export interface Known {
  /** What probes of it found elsewhere. */
  readonly probed?: readonly Probed[];
  /** The noise levels of its training. */
  readonly sigmaRange?: readonly [sigmaMin: number, sigmaMax: number];
}

/** A base class whose instances are functions, with the methods of functions. */
const Callable = function (call: object): unknown {
  return Object.setPrototypeOf(call, (new.target as unknown as { prototype: object }).prototype) as object;
} as unknown as { new (call: (...args: never[]) => unknown): object; prototype: object };
Object.setPrototypeOf(Callable.prototype, Function.prototype);

// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export interface OnnxModel extends ScoreModel {
  (sample: TensorLike, sigma: PerSample, inputs?: ModelInputs, context?: RunContext): Promise<Tensor>;
}

/** The most milliseconds that the check of a right kind may be expected to take at a load. Another kind takes ten times that. */
const maxCheckMilliseconds = 1000;

/**
 * A score network that this package runs in ONNX Runtime: off the event loop, on the tensors' own memory, and stoppable by a
 * signal. It is a ScoreModel: model(sample, sigma) is model.run(sample, sigma).
 */
// eslint-disable-next-line @typescript-eslint/no-unsafe-declaration-merging
export class OnnxModel extends Callable {
  /** The network's inputs and outputs, from its metadata. */
  readonly inputs: readonly Port[];
  /** The network's outputs, from its metadata. */
  readonly outputs: readonly Port[];
  /** The dims of one sample: sizes, and the names of free ones. */
  readonly sampleShape: readonly (number | string)[];
  /** The device that the network runs on: 'cpu' or 'cuda:N'. */
  readonly device: string;
  /** The devices whose tensors it takes (see ScoreModel): its own. */
  readonly devices: readonly string[];
  /** With device 'auto': why the network runs on the CPU although there is a GPU. */
  readonly fallback: string | undefined;
  /** ONNX Runtime's library and its version. */
  readonly library: { readonly path: string; readonly version: string };
  /** The values of the data that the network was trained on, as the option dataRange says. */
  declare readonly dataRange?: readonly [low: number, high: number] | undefined;
  /** @internal The network as it is, where it gives no score that takes sigma. */
  declare readonly [behind]?: Behind | undefined;
  readonly #contract: Contract;
  readonly #loaded: LoadedNetwork;
  readonly #label: (sigma: number) => number;
  /** A second session of the network, whose operators use one thread. Several calls of it run at once. */
  #singleThreaded: LoadedNetwork | undefined;
  #exact: Exactness = { holds: false, width: 'any', atOnce: 1, why: 'exact is false' };
  /** The dims of one sample; undefined where sizes are free. */
  #dims: readonly number[] | undefined;
  /** What the probe found, now or before. */
  #probed: Probed | undefined;
  readonly #running = new Set<Promise<unknown>>();
  #runs = 0;
  #disposal: Promise<void> | undefined;

  private constructor(loaded: LoadedNetwork, contract: Contract, device: string, fallback: string | undefined) {
    super((...args: Parameters<OnnxModel['run']>) => self.run(...args));
    // eslint-disable-next-line @typescript-eslint/no-this-alias
    const self = this;
    const { parameterization } = contract;
    const { dataRange } = contract.kind;
    if (dataRange !== undefined) this.dataRange = dataRange;
    if (parameterization !== undefined) this[behind] = { network: this.#network(), parameterization };
    this.#label = (parameterization ?? plain).label;
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
   * Loads a network.
   * @param pathOrBytes An ONNX file (its external weights beside it), or the bytes of one
   * @throws ScoreSdeError ERR_MODEL (no usable ONNX Runtime, no network, or no score network), ERR_CONFIG, ERR_SHAPE, ERR_RANGE,
   *   ERR_DISPOSED (detached bytes), ERR_CUDA_UNAVAILABLE, ERR_IO
   */
  static load(pathOrBytes: string | Uint8Array | ArrayBuffer, options: OnnxModelOptions = {}): Promise<OnnxModel> {
    return OnnxModel.loadKnown.call(this, pathOrBytes, options, {});
  }

  /** @internal load, of a network of which something is known. */
  static async loadKnown(
    pathOrBytes: string | Uint8Array | ArrayBuffer,
    options: OnnxModelOptions,
    known: Known,
  ): Promise<OnnxModel> {
    const settings = settingsOf(pathOrBytes, options);
    const { signal } = settings;
    const loading = OnnxModel.#load(extensionOf(this, OnnxModel), settings, known);
    if (signal === undefined) return loading;
    const wait = new Wait(signal);
    try {
      return await wait.for(loading);
    } catch (error) {
      // ONNX Runtime does not stop loading.
      loading.then((model) => model.dispose()).catch(() => {});
      throw error;
    } finally {
      wait.end();
    }
  }

  static async #load(Class: typeof OnnxModel, settings: Settings, known: Known): Promise<OnnxModel> {
    const { source, device, signal, onProgress } = settings;
    const name = source.path ?? 'the network';
    assertGoesOn(signal);
    if (source.path !== undefined && !(await isFile(name)))
      throw new ScoreSdeError(
        'ERR_MODEL',
        `${name}: no such file; the network must be there as ONNX, other weights are not read (${exportingPage})`,
      );
    const instead = standIn(source.bytes ?? (await readHead(name)));
    if (instead !== undefined) throw new ScoreSdeError('ERR_MODEL', `${name}: ${instead}`);
    const { session } = settings;
    await assertFolder(session.optimizedPath, 'optimizedModelFilePath');
    await assertFolder(session.profilePrefix, 'profileFilePrefix');
    const weights = new Weights(source, name);
    await weights.assertFit(session.sizes);
    if (onProgress !== undefined) await weights.readAhead(onProgress, signal);
    const sessions = new Sessions(settings, name, await weights.table(signal));
    const { loaded, fallback } = await sessions.load();
    let model: OnnxModel | undefined;
    try {
      assertGoesOn(signal);
      const contract = new Contract(loaded.inputs.map(portOf), loaded.outputs.map(portOf), settings.network);
      model = new Class(loaded, contract, fallback === undefined ? device : 'cpu', fallback);
      model.#exact = await model.#exactness(settings, (probe) =>
        model!.#probe(probe, settings, { sessions, weights, known: known.probed ?? [] }),
      );
      if (model.#exact.atOnce === 1) await model.#releaseSingleThreaded();
      assertGoesOn(signal);
      contract.warnOfTruncation(name);
      const { kind } = contract;
      if (settings.isChecked && model.#probed?.kind !== kindText(kind)) {
        // What a call of it throws is told by the first run.
        const found = await model.#checkedKind(known.sigmaRange, false, signal).catch(() => undefined);
        assertGoesOn(signal);
        if (found?.fits === false) process.emitWarning(`${name}: ${found.why}`, 'ScoreSdeWarning');
        else if (found !== undefined && model.#probed) model.#probed.kind = kindText(kind);
      }
      if (settings.probeCache !== undefined && model.#probed)
        await addProbed(settings.probeCache, model.#probed).catch(({ message }: Error) =>
          process.emitWarning(`probeCache: ${message}`, 'ScoreSdeWarning'),
        );
      return model;
    } catch (error) {
      await (model?.dispose() ?? native.releaseNetworkAsync(loaded.network));
      throw error;
    }
  }

  /** How the samples of a batch are divided into calls of the network, and whether their bits depend on the batch. */
  get exact(): Exactness {
    return this.#exact;
  }

  /**
   * The score of a batch.
   * @param sample The states, [B, ...]
   * @param sigma The noise level, finite: one for all samples, or one for each
   * @param inputs The network's further inputs, or what `prepare` returned for them
   * @param context `out`: where the score goes; `signal`: stops the run after the operator at work
   * @returns The score, with the dims of `sample`: `out`, or a new float32 tensor
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_CONFIG, ERR_MODEL, ERR_ALIAS, ERR_DISPOSED, ERR_ABORTED
   */
  async run(sample: TensorLike, sigma: PerSample, inputs: ModelInputs = {}, context: RunContext = {}): Promise<Tensor> {
    const raw = this[behind];
    if (raw !== undefined) return scoreOf(raw.network, raw.parameterization)(sample, sigma, inputs, context);
    const { score, done } = this.#handOver(sample, sigma, inputs, context);
    await done;
    return score;
  }

  /** @internal */
  get [handOver]() {
    if (this[behind] !== undefined) return undefined; // what is handed over must be the score
    return (...args: Parameters<OnnxModel['run']>) => this.#handOver(args[0], args[1], args[2] ?? {}, args[3] ?? {});
  }

  #handOver(sample: TensorLike, sigma: PerSample, inputs: ModelInputs, context: RunContext): Handed {
    const { width: perCall, atOnce } = this.#exact;
    return this.#queue(sample, sigma, inputs, context, perCall === 'any' ? 0 : perCall, atOnce);
  }

  /**
   * Draws a few samples from the network, to tell whether it gives what `prediction` says and is told what `conditioning` says,
   * and what would fit in their place.
   * @param options sigmaRange: the lowest and the highest noise level of its training, where they are known. slow: whether a
   *   network is called, too, that is too large or too slow to be called at each load; default false. signal: ends the check
   * @returns undefined where it was not called: sizes are free, it runs on a device, it is large or slow, it takes sigma
   *   truncated, or it has further inputs whose values matter and that have no default
   * @throws ScoreSdeError ERR_CONFIG, ERR_RANGE, ERR_MODEL, ERR_DISPOSED, ERR_ABORTED
   */
  async checkKind(
    options: { sigmaRange?: readonly [number, number]; slow?: boolean; signal?: Signal } = {},
  ): Promise<KindCheck | undefined> {
    assertOptions(options, ['sigmaRange', 'slow', 'signal']);
    const { sigmaRange, slow = false, signal } = options;
    if (typeof slow !== 'boolean') throw new ScoreSdeError('ERR_CONFIG', `slow must be a boolean, got ${show(slow)}`);
    assertSignal(signal);
    assertGoesOn(signal);
    return this.#checkedKind(
      sigmaRange === undefined ? undefined : sigmaRangeOf(sigmaRange, 'sigmaRange'),
      slow,
      signal,
    );
  }

  async #checkedKind(
    sigmaRange: readonly [number, number] | undefined,
    slow: boolean,
    signal: AbortSignal | undefined,
  ): Promise<KindCheck | undefined> {
    this.#assertNotDisposed();
    const dims = this.#dims;
    const { truncates, unspecified, kind } = this.#contract;
    // A class may be any, a number may not: a guidance scale of 0 would be another network.
    const isOpen = unspecified.some((port) => !isInteger(port) || !isPerSample(port));
    if (dims === undefined || this.device !== 'cpu' || truncates || isOpen) return undefined;
    const run = (seen: Tensor, told: Tensor) => this.#told(seen, told, signal);
    if (!slow && !(await isQuick(dims, run, leastSamples(dims), maxCheckMilliseconds))) return undefined;
    return checkKind({ dims, kind, sigmaRange, run });
  }

  /** The network's output for what it sees and is told. */
  async #told(seen: Tensor, told: Tensor, signal: AbortSignal | undefined): Promise<Float32Array> {
    const { score, done } = this.#handOver(seen, told, this.#zeros, signal ? { signal } : {});
    await done;
    return score.data as Float32Array;
  }

  /** The network as it is: its output, of what it is told. */
  #network(): ScoreModel {
    const handed = (...args: Parameters<OnnxModel['run']>) =>
      this.#handOver(args[0], args[1], args[2] ?? {}, args[3] ?? {});
    const call = async (...args: Parameters<OnnxModel['run']>): Promise<Tensor> => {
      const { score, done } = handed(...args);
      await done;
      return score;
    };
    const prepare = (dims: readonly number[], inputs: ModelInputs) => this.prepare(dims, inputs);
    return Object.assign(call, { [handOver]: handed, prepare, devices: [this.device] });
  }

  /**
   * Checks further inputs for states of `dims` ([B, ...]), and converts them to the network's types. Runs do not check what it
   * returns again.
   * @throws ScoreSdeError ERR_MODEL, ERR_SHAPE, ERR_DTYPE, ERR_RANGE, ERR_DISPOSED
   */
  prepare(dims: readonly number[], inputs: ModelInputs): ModelInputs {
    this.#assertNotDisposed();
    return this.#contract.prepare(dims, inputs, this.#rules);
  }

  /** Frees the network once its runs have ended. May be called repeatedly. */
  dispose(): Promise<void> {
    return (this.#disposal ??= Promise.allSettled(this.#running).then(async () => {
      await this.#releaseSingleThreaded();
      await native.releaseNetworkAsync(this.#loaded.network);
    }));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #releaseSingleThreaded(): Promise<void> {
    const session = this.#singleThreaded;
    this.#singleThreaded = undefined;
    if (session !== undefined) await native.releaseNetworkAsync(session.network);
  }

  get #rules(): Omit<BatchRules, 'size'> {
    const fixed = this.#contract.fixedBatch;
    return { fixed, divisible: fixed === undefined || fixed === 1 };
  }

  #assertNotDisposed(): void {
    if (this.#disposal !== undefined) throw new ScoreSdeError('ERR_DISPOSED', 'the model is disposed');
  }

  async #exactness(
    { exact, sampleShape, signal }: Settings,
    probed: (probe: Omit<Probe, 'loadSingleThreaded'>) => Promise<Exactness>,
  ): Promise<Exactness> {
    const fixed = this.#contract.fixedBatch;
    const alone = (why: string): Exactness => ({ holds: true, width: 1, atOnce: 1, why });
    const asGiven = (why: string): Exactness => ({ holds: false, width: fixed ?? 'any', atOnce: 1, why });
    const oneByOne = fixed === 1 ? 'the network takes one sample a call' : undefined;
    const dims = (this.#dims = this.#dimsOf(sampleShape));
    if (exact === true) return alone(oneByOne ?? 'exact is true');
    if (exact === false) return oneByOne === undefined ? asGiven('exact is false') : alone(oneByOne);
    if (this.device !== 'cpu')
      return oneByOne === undefined ? asGiven('the bits of a GPU depend on the batch') : alone(oneByOne);
    if (dims === undefined)
      return alone(oneByOne ?? 'the network leaves its sizes free: sampleShape would let it be probed');
    const run: RunDivided = async (sample, sigma, perCall, atOnce) => {
      const told = (sigma.data as Float32Array).map(this.#label);
      const { score, done } = this.#queue(sample, told, this.#zeros, signal ? { signal } : {}, perCall, atOnce);
      await done;
      return score;
    };
    return probed({ dims, fixed, oneByOne, sigmaEach: this.#sigmaEach, run });
  }

  /** What a probe finds, or what one found before. */
  async #probe(
    probe: Omit<Probe, 'loadSingleThreaded'>,
    { session, intraOpThreads, interOpThreads, probeCache, maxCopyBytes, signal }: Settings,
    { sessions, weights, known }: { sessions: Sessions; weights: Weights; known: readonly Probed[] },
  ): Promise<Exactness> {
    const isSmall = await weights.areAtMost(maxCopyBytes);
    const loadSingleThreaded = async () => {
      if (intraOpThreads === 1 || !isSmall) return 1;
      this.#singleThreaded = await sessions.loadSingleThreaded();
      return intraOpThreads;
    };
    // A network whose weights are many is not read once more for its key.
    const probed = async () => {
      const { isSlow = false, ...exact } = await probeExactness({ ...probe, loadSingleThreaded });
      return { isSlow, exact };
    };
    if (!isSmall) return (await probed()).exact;
    const key = probeKeyOf(await weights.hash(signal), {
      library: this.library.version,
      threads: intraOpThreads,
      options: sessionKeyOf(session, interOpThreads),
      dims: probe.dims,
    });
    const kept = probeCache === undefined ? [] : await readProbed(probeCache);
    this.#probed = probedBefore(key, [...known, ...kept]);
    if (this.#probed !== undefined) {
      const { width, why, isDivided } = this.#probed;
      return { holds: true, width, atOnce: isDivided ? await loadSingleThreaded() : 1, why };
    }
    const { isSlow, exact } = await probed();
    if (!isSlow) this.#probed = keepProbed(key, exact);
    return exact;
  }

  /** The dims of one sample; undefined where sizes are free that nobody named. */
  #dimsOf(sizes: readonly number[] | undefined): readonly number[] | undefined {
    const dims = this.sampleShape.map((dim, axis) => (typeof dim === 'number' ? dim : sizes?.[axis]));
    return dims.every((dim): dim is number => dim !== undefined) ? dims : undefined;
  }

  /** Zeros for the inputs that a run must give. */
  get #zeros(): ModelInputs {
    const further = this.#contract.unspecified.filter((port) => isPerSample(port));
    return Object.fromEntries(further.map(({ name }) => [name, 0]));
  }

  /** Whether the network takes a sigma for each sample, rather than one a call. */
  get #sigmaEach(): boolean {
    const { shape } = this.#contract.timestep;
    return shape.length > 0 && shape[0] !== 1;
  }

  /** Queues a run. `perCall`: samples in one call at most, 0 for all. `atOnce`: calls of the single-threaded session at once at most. */
  #queue(
    sample: TensorLike,
    sigma: PerSample,
    given: ModelInputs,
    context: RunContext,
    perCall: number,
    atOnce: number,
  ): Handed {
    this.#assertNotDisposed();
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
    // On the CPU the addon converts states to the network's type. On a device kernels do, through tensors that end with the run.
    const converted: Tensor[] = [];
    const ofType = (like: Operand, type: string): Operand => {
      if (place === 'cpu' || Dtype[type as StateType] === like.type) return like;
      converted.push(Tensor.empty(like.dims, { type: type as StateType, device: place }));
      return operand(converted.at(-1)!, like.name);
    };
    const [read, written] = [ofType(x, states.type), ofType(score.operand, output.type)];
    if (read !== x) convert(x, read);
    const entries = Object.entries(feeds).map(([name, { data, dims, perSample }]): NetworkInput => {
      const port = inputs.findIndex((input) => input.name === name);
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      return [port, [...dims], bytes.length, bytes, perSample];
    });
    const fill = batch.fixed ?? 0;
    // An input that takes one value a call, and has one for each sample: then each sample needs a call of its own.
    const oneByOne = Object.values(feeds).some(({ perSample, dims }) => perSample && dims[0] !== x.dims[0]);
    const singleThreaded = atOnce > 1 ? this.#singleThreaded!.network : null;
    const id = this.#runs++ % 2 ** 32;
    const start = async (order: Order): Promise<void> => {
      if (signal?.aborted) throw new AbortError(signal);
      const endListening = onAbort(signal, () => native.stopNetwork(this.#loaded.network, id));
      try {
        await native.runNetworkAsync(
          order,
          this.#loaded.network,
          singleThreaded,
          isDivided(batch.size, atOnce) ? atOnce : 1,
          id,
          oneByOne ? 1 : perCall,
          fill,
          x.dims,
          inputs.indexOf(states),
          read.memory,
          read.type,
          outputs.indexOf(output),
          written.memory,
          written.type,
          entries.length,
          ...entries.flat(),
        );
      } finally {
        endListening();
      }
    };
    const reads = [bufferOf(read.memory), ...Object.values(feeds).map(({ data }) => data.buffer)];
    const running = inOrder({ reads, writes: [bufferOf(written.memory)] }, start, place === 'cpu');
    this.#running.add(running);
    const end = async (): Promise<void> => {
      try {
        await running;
        if (written !== score.operand) convert(written, score.operand);
      } catch (cause) {
        if (signal?.aborted) throw new AbortError(signal);
        throw modelError(cause, 'the model failed');
      } finally {
        this.#running.delete(running);
        for (const tensor of converted) tensor.dispose();
      }
    };
    return { score: score.tensor, done: end() };
  }

  /** The feed of sigma: the caller's own Float32Array if the network takes it as it is. */
  #feedSigma(sigma: PerSample, batch: BatchRules): Feed {
    const levels = numbersOf(sigma, batch.size, 'sigma');
    const { timestep } = this.#contract;
    const data = typeof sigma === 'object' && 'data' in sigma ? sigma.data : sigma;
    const isFloat32 = Object.prototype.toString.call(data) === '[object Float32Array]';
    const inPlace =
      isFloat32 && (data as Float32Array).buffer instanceof ArrayBuffer ? (data as Float32Array) : undefined;
    if (inPlace?.length === batch.size && timestep.type === 'float32' && this.#sigmaEach) {
      const dims = [batch.size, ...timestep.shape.slice(1).map(() => 1)];
      return { type: 'float32', data: inPlace, dims, location: 'cpu', perSample: true };
    }
    return this.#contract.feedSigma(levels, batch);
  }
}

/** ERR_IO where ONNX Runtime is to write a file in a folder that is not there. */
async function assertFolder(file: string, option: string): Promise<void> {
  if (file !== '' && !(await isFolder(dirname(file))))
    throw new ScoreSdeError('ERR_IO', `${option}: cannot write ${file}, as there is no folder ${dirname(file)}`);
}

/** Enqueues the conversion of states from one type to another. */
function convert(from: Operand, to: Operand): void {
  const access = { reads: [bufferOf(from.memory)], writes: [bufferOf(to.memory)] };
  new KernelCall('convert', () => [from.memory.length, from.memory, from.type, to.memory, to.type], access).run();
}

/** Session options on which a network's bits may depend, as text. */
function sessionKeyOf(
  { graphOptimization, config, sizes, ...rest }: Settings['session'],
  interOpThreads: number,
): string {
  const others = sizes.length > 0 || rest.parallel !== interOpThreads > 1 ? [sizes, rest.parallel] : [];
  return JSON.stringify([interOpThreads, graphOptimization, config, ...others]);
}
