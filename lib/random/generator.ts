import { randomBytes } from 'node:crypto';
import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, markCopy, show } from '../options';
import { Dtype, NoiseKind, type Noise, type StateMemory } from '../native/abi';
import { native } from '../native/addon';
import { KernelCall, type Call } from '../native/call';
import { bufferOf, DeviceMemory } from '../native/memory';
import { assertIdle, inOrder, isBusy } from '../native/order';
import { stateDtype, target, type Operand, type StateType } from '../tensor/operand';
import { sizeOfDims } from '../tensor/data';
import type { Tensor, TensorLike } from '../tensor/tensor';
import { seedOf, type GeneratorKind, type PhiloxState } from './kind';
import { PhiloxStream } from './philox';
import { TorchStream } from './torch';

export interface GeneratorOptions {
  /**
   * 'philox' (default): counter-based, the same bits on every machine, thread count and device.
   * 'torch': the stream of torch.Generator().manual_seed(seed) on the CPU, bit for bit in float32.
   */
  engine?: GeneratorKind | undefined;
}

export interface RandnOptions {
  /** Element type: 'float32', 'float16' or 'bfloat16'. Default: that of `out`, else 'float32'. */
  type?: StateType | undefined;
  /** Where a new tensor is: 'cpu' (default), 'cuda' (cuda:0), 'cuda:N', or 'auto' (the first usable GPU, else the CPU). */
  device?: string | undefined;
  /** A tensor with these dims, which is filled and returned in place of a new one. */
  out?: TensorLike | undefined;
}

/** The options of a draw to a new tensor. */
type NewRandn<T extends StateType | undefined> = RandnOptions & { out?: undefined } & (T extends undefined
    ? { type?: undefined }
    : { type: T });

const randnOptions = ['type', 'device', 'out'];

/** The seed of an unseeded torch.Generator. */
const defaultSeed = 67280421310721n;

const streams = { philox: PhiloxStream, torch: TorchStream };

/**
 * A stream of standard normals, as torch.Generator. Each draw continues where the last one ended: n values use ceil(n/4)
 * counters of a philox stream, or the words that torch.randn uses of a torch stream.
 */
export class Generator {
  // Not a #private field: deepStrictEqual, structuredClone and console.log see what it holds, and a Proxy can reach it.
  private readonly stream: PhiloxStream | TorchStream;

  /**
   * @param seed An integer, -2^63 <= seed < 2^64. Default: torch's default seed, 67280421310721
   * @throws ScoreSdeError ERR_RANGE (seed), ERR_CONFIG (engine)
   */
  constructor(seed: number | bigint = defaultSeed, options: GeneratorOptions = {}) {
    assertOptions(options, ['engine']);
    const { engine = 'philox' } = options;
    if (!Object.hasOwn(streams, engine))
      throw new ScoreSdeError('ERR_CONFIG', `engine must be 'philox' or 'torch', got ${show(engine)}`);
    this.stream = new streams[engine](seedOf(seed));
  }

  /** The kind of generator. */
  get engine(): GeneratorKind {
    return this.stream.name;
  }

  /** The seed as an unsigned 64-bit integer, as torch's initial_seed(). */
  get initialSeed(): bigint {
    return this.stream.seed;
  }

  /**
   * Goes to the beginning of the stream of `seed`.
   * @param seed An integer, -2^63 <= seed < 2^64
   * @throws ScoreSdeError ERR_RANGE, ERR_BUSY (an asynchronous draw of a torch stream is under way)
   */
  manualSeed(seed: number | bigint): this {
    const checked = seedOf(seed);
    this.assertIdle('manualSeed');
    this.stream.reseed(checked);
    return this;
  }

  /**
   * Draws standard normals.
   * @param dims The shape of the result
   * @throws ScoreSdeError ERR_SHAPE, ERR_DTYPE, ERR_CONFIG, ERR_DISPOSED, ERR_BUSY, ERR_MEMORY, ERR_CUDA, ERR_CUDA_UNAVAILABLE
   */
  randn(dims: readonly number[], options?: NewRandn<undefined>): Tensor<'float32'>;
  randn<T extends StateType>(dims: readonly number[], options: NewRandn<T>): Tensor<T>;
  randn(dims: readonly number[], options: RandnOptions): Tensor;
  randn(dims: readonly number[], options: RandnOptions = {}): Tensor {
    const { tensor, call } = this.prepare(dims, options);
    call.run();
    return tensor;
  }

  /** As randn, off the event loop. */
  randnAsync(dims: readonly number[], options?: NewRandn<undefined>): Promise<Tensor<'float32'>>;
  randnAsync<T extends StateType>(dims: readonly number[], options: NewRandn<T>): Promise<Tensor<T>>;
  randnAsync(dims: readonly number[], options: RandnOptions): Promise<Tensor>;
  async randnAsync(dims: readonly number[], options: RandnOptions = {}): Promise<Tensor> {
    const { tensor, call } = this.prepare(dims, options);
    await call.runAsync();
    return tensor;
  }

  /**
   * The position: of a philox stream { engine, seed, offset }, of a torch stream the 5056 bytes of torch's get_state().
   * @throws ScoreSdeError ERR_BUSY (an asynchronous draw of a torch stream is under way)
   */
  getState(): PhiloxState | Uint8Array {
    this.assertIdle('getState');
    return this.stream.getState();
  }

  /**
   * Goes to a position that getState() of the same kind of generator gave.
   * @throws ScoreSdeError ERR_STATE (no such state), ERR_BUSY (an asynchronous draw of a torch stream is under way)
   */
  setState(state: PhiloxState | Uint8Array): this {
    this.assertIdle('setState');
    this.stream.setState(state);
    return this;
  }

  /**
   * An independent generator at the same position.
   * @throws ScoreSdeError as getState
   */
  clone(): Generator {
    const copy = new Generator(0, { engine: this.engine });
    return copy.setState(this.getState());
  }

  /** @internal The next draw of rows x cols normals, from one generator for the batch or one a row. Philox streams advance at once. */
  static reserve(generators: readonly Generator[], rows: number, cols: number, type: Dtype): Noise {
    if (generators[0]!.engine === 'torch')
      return [NoiseKind.torch, generators.map((g) => (g.stream as TorchStream).state), type];
    const each = generators.length === 1 ? rows * cols : cols;
    const pairs = generators.map((g) => (g.stream as PhiloxStream).reserve(each));
    return [NoiseKind.philox, pairs.length === 1 ? pairs[0]! : BigUint64Array.from(pairs.flat()), type];
  }

  /** @internal The buffers that a draw from these generators changes: the states of torch streams. */
  static memory(generators: readonly Generator[]): object[] {
    return generators.flatMap((g) => (g.stream instanceof TorchStream ? [g.stream.state.buffer] : []));
  }

  private assertIdle(method: string): void {
    if (this.stream instanceof TorchStream) assertIdle({ reads: [], writes: Generator.memory([this]) }, method);
  }

  private prepare(dims: readonly number[], options: RandnOptions) {
    assertOptions(options, randnOptions);
    const { type, device, out } = options;
    sizeOfDims(dims, 'dims');
    const wanted = type === undefined ? undefined : stateDtype(type, 'type');
    const like = { name: 'randn', dims: Array.from(dims) };
    const { operand: drawn, tensor } = target(out, like, 'out', { type: type ?? 'float32', device });
    if (out !== undefined && device !== 'auto' && device !== undefined && resolveDevice(device) !== tensor.device)
      throw new ScoreSdeError('ERR_CONFIG', `device is ${device}, and out lies on ${tensor.device}`);
    if (wanted !== undefined && wanted !== drawn.type)
      throw new ScoreSdeError('ERR_DTYPE', `type is ${type}, and out is of ${tensor.type}`);
    return { tensor, call: planRandn([this], drawn, { rows: 1, cols: drawn.memory.length }) };
  }
}

markCopy(Generator);

/** A call that fills `out` with normals times `scale`, rounded to float32: one draw, or one a row where each has a generator. */
export function planRandn(
  generators: readonly Generator[],
  out: Operand,
  { rows, cols }: { rows: number; cols: number },
  scale = 1,
): Call<void> {
  if (out.memory instanceof DeviceMemory && generators[0]!.engine === 'torch') {
    const memory = new (out.type === Dtype.float32 ? Float32Array : Uint16Array)(out.memory.length);
    return new UploadedDraw(planRandn(generators, { ...out, memory }, { rows, cols }, scale), memory, out.memory);
  }
  return new KernelCall(
    'randn',
    () => [rows, cols, ...Generator.reserve(generators, rows, cols, out.type), scale, out.memory, out.type],
    { reads: [], writes: [bufferOf(out.memory), ...Generator.memory(generators)] },
  );
}

/** A torch stream's draw for a device. A torch stream is serial: it is drawn on the host, then copied. */
class UploadedDraw implements Call<void> {
  constructor(
    private readonly draw: Call<void>,
    private readonly from: StateMemory,
    private readonly to: DeviceMemory,
  ) {}

  get busy(): boolean {
    return this.draw.busy || isBusy({ reads: [], writes: [this.to] });
  }

  run(): void {
    assertIdle({ reads: [], writes: [this.to] }, 'randn', true);
    this.draw.run();
    native.deviceUpload(this.to.handle, this.from);
  }

  async runAsync(): Promise<void> {
    const { from, to } = this;
    const drawn = this.draw.runAsync();
    drawn.catch(() => {}); // the promise below rejects with it, perhaps later
    return inOrder({ reads: [], writes: [to] }, () => drawn.then(() => native.deviceUploadAsync(to.handle, from)));
  }
}

let shared: Generator | undefined;

/** The generator of calls that are given none, as torch's global generator. Its seed is random until manualSeed. */
export function defaultGenerator(): Generator {
  return (shared ??= new Generator(randomBytes(8).readBigUInt64LE()));
}

/**
 * Replaces the generator of calls that are given none, and returns it.
 * @param seed An integer, -2^63 <= seed < 2^64
 * @throws ScoreSdeError ERR_RANGE (seed), ERR_CONFIG (engine)
 */
export function manualSeed(seed: number | bigint, options?: GeneratorOptions): Generator {
  return (shared = new Generator(seed, options));
}

/** A generator option, checked: one generator for the batch, or one a row, all of one kind. ERR_SHAPE, ERR_CONFIG. */
export function generatorsOf(value: unknown, rows: number): readonly Generator[] {
  if (value === undefined) return [defaultGenerator()];
  const list: readonly unknown[] = Array.isArray(value) ? value : [value];
  for (const generator of list)
    if (!(generator instanceof Generator))
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `generator must be a Generator or an array of them, got ${show(generator)}`,
      );
  const generators = list as readonly Generator[];
  if (generators.length !== 1 && generators.length !== rows)
    throw new ScoreSdeError(
      'ERR_SHAPE',
      `generator must be one Generator or one for each of the ${rows} samples, got an array of ${generators.length}`,
    );
  const engine = generators[0]?.engine;
  if (generators.length === 0) return [defaultGenerator()]; // an empty batch draws nothing
  if (generators.some((g) => g.engine !== engine))
    throw new ScoreSdeError('ERR_CONFIG', 'the generators of one call must all be of one engine, got philox and torch');
  return generators;
}
