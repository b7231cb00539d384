import { randomBytes } from 'node:crypto';
import { resolveDevice } from '../devices';
import { ScoreSdeError } from '../errors';
import { assertOptions, show } from '../options';
import { Dtype, NoiseKind, type Noise, type StateMemory } from '../native/abi';
import { native } from '../native/addon';
import { KernelCall, type Call } from '../native/call';
import { bufferOf, DeviceMemory } from '../native/memory';
import { assertIdle, inOrder, isBusy } from '../native/order';
import { stateDtype, target, type Operand, type StateType } from '../tensor/operand';
import { sizeOfDims, type Tensor, type TensorLike } from '../tensor/tensor';
import { seedOf, type GeneratorKind, type PhiloxState } from './kind';
import { PhiloxEngine } from './philox';
import { TorchEngine } from './torch';

export interface GeneratorOptions {
  /**
   * 'philox' (default): counter-based, the same bits on every machine, thread count and device.
   * 'torch': the stream of torch.Generator().manual_seed(seed) on the CPU, bit for bit in float32.
   */
  engine?: GeneratorKind;
}

export interface RandnOptions {
  /** Element type: that of `out`, else 'float32' (default), 'float16' or 'bfloat16'. */
  type?: StateType;
  /** Where a new tensor lies. */
  device?: string;
  /** A tensor to fill instead of a new one. */
  out?: TensorLike;
}

/** Of a draw to a new tensor. */
type NewRandn<T extends StateType | undefined> = RandnOptions & { out?: undefined } & (T extends undefined
    ? { type?: undefined }
    : { type: T });

const randnOptions = ['type', 'device', 'out'];

/** torch's seed of a generator that never was seeded. */
const defaultSeed = 67280421310721n;

const engines = { philox: PhiloxEngine, torch: TorchEngine };

/**
 * A stream of standard normals, as torch.Generator is. Draws follow one another; a draw of n values takes ceil(n/4)
 * counters of a philox stream, or the words that torch.randn takes of a torch stream.
 */
export class Generator {
  readonly #engine: PhiloxEngine | TorchEngine;

  /**
   * @param seed -2^63 <= seed < 2^64, a number or a bigint
   * @throws ScoreSdeError ERR_RANGE (seed), ERR_CONFIG (engine)
   */
  constructor(seed: number | bigint = defaultSeed, options: GeneratorOptions = {}) {
    assertOptions(options, ['engine']);
    const { engine = 'philox' } = options;
    if (!Object.hasOwn(engines, engine))
      throw new ScoreSdeError('ERR_CONFIG', `engine must be 'philox' or 'torch', got ${show(engine)}`);
    this.#engine = new engines[engine](seedOf(seed));
  }

  get engine(): GeneratorKind {
    return this.#engine.name;
  }

  /** The seed as an unsigned 64-bit value, as torch reports it. */
  get initialSeed(): bigint {
    return this.#engine.seed;
  }

  /** Starts the stream of `seed` from its beginning. */
  manualSeed(seed: number | bigint): this {
    const checked = seedOf(seed);
    this.#assertIdle('manualSeed');
    this.#engine.reseed(checked);
    return this;
  }

  /** Draws standard normals of the given shape. */
  randn(dims: readonly number[], options?: NewRandn<undefined>): Tensor<'float32'>;
  randn<T extends StateType>(dims: readonly number[], options: NewRandn<T>): Tensor<T>;
  randn(dims: readonly number[], options: RandnOptions): Tensor;
  randn(dims: readonly number[], options: RandnOptions = {}): Tensor {
    const { tensor, call } = this.#prepare(dims, options);
    call.run();
    return tensor;
  }

  /** As randn, off the event loop. */
  randnAsync(dims: readonly number[], options?: NewRandn<undefined>): Promise<Tensor<'float32'>>;
  randnAsync<T extends StateType>(dims: readonly number[], options: NewRandn<T>): Promise<Tensor<T>>;
  randnAsync(dims: readonly number[], options: RandnOptions): Promise<Tensor>;
  async randnAsync(dims: readonly number[], options: RandnOptions = {}): Promise<Tensor> {
    const { tensor, call } = this.#prepare(dims, options);
    await call.runAsync();
    return tensor;
  }

  /** philox: { engine, seed, offset }. torch: the 5056 bytes of torch's get_state(). */
  getState(): PhiloxState | Uint8Array {
    this.#assertIdle('getState');
    return this.#engine.getState();
  }

  /** Takes a state of the same engine; ERR_STATE where it is not one. */
  setState(state: PhiloxState | Uint8Array): this {
    this.#assertIdle('setState');
    this.#engine.setState(state);
    return this;
  }

  /** An independent generator at the same position. */
  clone(): Generator {
    const copy = new Generator(0, { engine: this.engine });
    return copy.setState(this.getState());
  }

  /** @internal Takes the next draws of a batch from its generators: one for all of it, or one a row. */
  static reserve(generators: readonly Generator[], rows: number, cols: number, type: Dtype): Noise {
    if (generators[0]!.engine === 'torch')
      return [NoiseKind.torch, generators.map((g) => (g.#engine as TorchEngine).state), type];
    const each = generators.length === 1 ? rows * cols : cols;
    const pairs = generators.map((g) => (g.#engine as PhiloxEngine).reserve(each));
    return [NoiseKind.philox, pairs.length === 1 ? pairs[0]! : BigUint64Array.from(pairs.flat()), type];
  }

  /** @internal The memory that draws from these generators write to. */
  static memory(generators: readonly Generator[]): object[] {
    return generators.flatMap((g) => (g.#engine instanceof TorchEngine ? [g.#engine.state.buffer] : []));
  }

  #assertIdle(method: string): void {
    if (this.#engine instanceof TorchEngine) assertIdle({ reads: [], writes: Generator.memory([this]) }, method);
  }

  #prepare(dims: readonly number[], options: RandnOptions) {
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

/** Fills `out` with standard normals times `scale` (rounded to float32): one draw, or one a row where there is a generator for each. */
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

/** The draw of a serial stream, which is made on the host, for a device. */
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
    drawn.catch(() => {}); // told in its turn
    return inOrder({ reads: [], writes: [to] }, () => drawn.then(() => native.deviceUploadAsync(to.handle, from)));
  }
}

let shared: Generator | undefined;

/** The generator that is used where none is given: torch's global generator. A random seed until manualSeed is called. */
export function defaultGenerator(): Generator {
  return (shared ??= new Generator(randomBytes(8).readBigUInt64LE()));
}

/** Seeds the generator that is used where none is given, and returns it. */
export function manualSeed(seed: number | bigint, options?: GeneratorOptions): Generator {
  return (shared = new Generator(seed, options));
}

/** One generator for the batch or one a row, all of one engine. ERR_SHAPE, ERR_CONFIG. */
export function generatorsOf(value: unknown, rows: number): readonly Generator[] {
  if (value === undefined || value === null) return [defaultGenerator()];
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
