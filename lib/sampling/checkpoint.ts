import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ScoreSdeError } from '../errors';
import { show } from '../options';
import type { ModelInput, ModelInputs } from '../models/model';
import { Generator } from '../random/generator';
import { solverOf } from '../solvers';
import type { Json, Levels, Solver } from '../solvers/solver';
import { typedData } from '../tensor/data';
import type { TensorLike, TensorType } from '../tensor/tensor';
import type { NoiseSource } from './lane';
import { readSafetensors, writeSafetensors, type Stored } from './safetensors';

/** A run between two stages: all that it needs to go on anywhere, to the same bits. */
export interface Checkpoint {
  readonly solver: Solver;
  readonly levels: Levels;
  /** The dims of x, [B, ...]. */
  readonly dims: readonly number[];
  readonly noise: NoiseSource | 'sampler';
  readonly seed: bigint | undefined;
  readonly inputs: ModelInputs;
  readonly dataRange: readonly [low: number, high: number];
  /** One for all samples, or one for each, of adaptive solvers; null for samples that are there. */
  readonly lanes: readonly { readonly position: Json; readonly calls: number }[];
  /** x, [B, ...] float32. */
  readonly x: Float32Array;
  /** D1, D2, ...: what the next stages combine beside the next call. */
  readonly history: readonly Float32Array[];
  /** X0, and the result of lower order of the last accepted step, of solvers that have them. */
  readonly base: Float32Array | undefined;
  readonly low: Float32Array | undefined;
}

const format = 'score-sde run';
const version = 1;

/** The bytes of a safetensors file, whose `__metadata__` holds all but x, the history, and inputs that are tensors. */
export function encode(checkpoint: Checkpoint): Uint8Array {
  const { solver, levels, dims, noise, seed, inputs, dataRange, lanes, x, history, base, low } = checkpoint;
  const tensors = new Map<string, Stored>([['x', float32(x, dims)]]);
  history.forEach((values, i) => tensors.set(`history.${i + 1}`, float32(values, dims)));
  if (base) tensors.set('base', float32(base, dims));
  if (low) tensors.set('low', float32(low, dims));
  const plain: Record<string, Json> = {};
  for (const [name, input] of Object.entries(inputs)) {
    const stored = storedInput(input, name);
    if ('dtype' in stored) tensors.set(`inputs.${name}`, stored);
    else plain[name] = stored.json;
  }
  const { sigma, next, label, time, start, centred, calls } = levels;
  const numbers = (list: ArrayLike<number>): number[] => Array.from(list);
  const metadata: Record<string, Json> = {
    format,
    version,
    package: packageVersion(),
    solver: { name: solver.name, options: solver.options },
    levels: {
      sigma: numbers(sigma),
      next: numbers(next),
      label: numbers(label),
      time: numbers(time),
      start,
      centred,
      ...(calls === undefined ? {} : { calls }),
    },
    lanes: lanes as unknown as Json,
    streams: noise === 'sampler' || 'sampler' in noise ? 'sampler' : noise.generators.map(streamOf),
    seed: seed === undefined ? null : String(seed),
    inputs: plain,
    dataRange: dataRange as unknown as Json,
  };
  const texts = Object.entries(metadata).map(([key, value]) => [
    key,
    typeof value === 'string' ? value : JSON.stringify(value),
  ]);
  return writeSafetensors({ tensors, metadata: Object.fromEntries(texts) as Record<string, string> });
}

/** @throws ScoreSdeError ERR_CONFIG: a foreign file, one that is cut, of a later format, or that names an unknown solver */
export function decode(bytes: Uint8Array): Checkpoint {
  const { tensors, metadata } = readSafetensors(bytes);
  if (metadata.format !== format)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `the file must be a saved run of this package, got a safetensors file of ${show(metadata.format ?? 'another kind')}`,
    );
  if (!(Number(metadata.version) <= version))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `the file must be of format ${version} at most, got ${metadata.version}, which score-sde ${metadata.package} wrote`,
    );
  const json = <T>(key: string): T => {
    try {
      return JSON.parse(metadata[key]!) as T;
    } catch (cause) {
      throw new ScoreSdeError('ERR_CONFIG', `the saved run's ${key} cannot be read`, { cause });
    }
  };
  const tensor = (name: string): Stored => {
    const found = tensors.get(name);
    if (found === undefined) throw new ScoreSdeError('ERR_CONFIG', `the saved run has no tensor ${name}`);
    return found;
  };
  const { name, options } = json<{ name: string; options: Record<string, Json> }>('solver');
  const levels = json<Omit<Levels, 'sigma'> & { sigma: number[] }>('levels');
  const solver = solverOf(name, options);
  const x = tensor('x');
  const streams = metadata.streams === 'sampler' ? 'sampler' : json<Stream[]>('streams');
  const inputs = json<Record<string, Json>>('inputs');
  const seed = json<string | null>('seed');
  const stored = [...tensors].filter(([key]) => key.startsWith('inputs.'));
  return {
    solver,
    levels,
    dims: x.shape,
    noise: streams === 'sampler' ? streams : { generators: streams.map(generatorOf) },
    seed: seed === null ? undefined : BigInt(seed),
    inputs: {
      ...Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key, inputOf(value)])),
      ...Object.fromEntries(stored.map(([key, value]) => [key.slice('inputs.'.length), tensorOf(value)])),
    },
    dataRange: json('dataRange'),
    lanes: json('lanes'),
    x: floatsOf(x),
    history: Array.from({ length: solver.history }, (_, i) => `history.${i + 1}`)
      .filter((key) => tensors.has(key))
      .map((key) => floatsOf(tensor(key))),
    base: tensors.has('base') ? floatsOf(tensor('base')) : undefined,
    low: tensors.has('low') ? floatsOf(tensor('low')) : undefined,
  };
}

function packageVersion(): string {
  const file = join(__dirname, '..', '..', 'package.json');
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

function float32(data: Float32Array, shape: readonly number[]): Stored {
  return { dtype: 'F32', shape, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}

function floatsOf({ data }: Stored): Float32Array {
  return new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
}

/** Where a stream stands: philox's seed and offset as decimals, or torch's state in base64. */
type Stream = { readonly seed: string; readonly offset: string } | { readonly torch: string };

function streamOf(generator: Generator): Stream {
  const state = generator.getState();
  return state instanceof Uint8Array
    ? { torch: Buffer.from(state).toString('base64') }
    : { seed: String(state.seed), offset: String(state.offset) };
}

function generatorOf(stream: Stream): Generator {
  if ('torch' in stream)
    return new Generator(0, { engine: 'torch' }).setState(new Uint8Array(Buffer.from(stream.torch, 'base64')));
  return new Generator(0).setState({ engine: 'philox', seed: BigInt(stream.seed), offset: BigInt(stream.offset) });
}

const dtypes: Partial<Record<TensorType, string>> = {
  float64: 'F64',
  float32: 'F32',
  float16: 'F16',
  bfloat16: 'BF16',
  int64: 'I64',
  int32: 'I32',
  uint8: 'U8',
};

/** An input as a tensor of the file, or as JSON, in which a bigint is an object of its digits. */
function storedInput(input: ModelInput, name: string): Stored | { json: Json } {
  const json = (value: unknown): Json => (typeof value === 'bigint' ? { bigint: String(value) } : (value as Json));
  if (input === null || typeof input !== 'object') return { json: json(input) };
  if (Array.isArray(input)) return { json: input.map(json) };
  const like = ArrayBuffer.isView(input) ? { data: input, dims: [(input as unknown as Float32Array).length] } : input;
  const { data, dims, type: named } = like as TensorLike;
  const { data: elements, type } = typedData(data, named, `modelInputs.${name}`);
  const { buffer, byteOffset, byteLength } = elements;
  return { dtype: dtypes[type as TensorType]!, shape: dims, data: new Uint8Array(buffer, byteOffset, byteLength) };
}

function inputOf(value: Json): ModelInput {
  const plain = (item: Json): unknown =>
    item !== null && typeof item === 'object' && 'bigint' in item ? BigInt(item.bigint as string) : item;
  return (Array.isArray(value) ? value.map(plain) : plain(value)) as ModelInput;
}

const arrays = {
  F64: Float64Array,
  F32: Float32Array,
  F16: Uint16Array,
  BF16: Uint16Array,
  I64: BigInt64Array,
  I32: Int32Array,
  U8: Uint8Array,
};

function tensorOf({ dtype, shape, data }: Stored): ModelInput {
  const type = (Object.keys(dtypes) as TensorType[]).find((key) => dtypes[key] === dtype)!;
  const elements = new arrays[dtype as keyof typeof arrays](data.buffer as ArrayBuffer, data.byteOffset);
  return { type, data: elements, dims: shape } as ModelInput;
}
