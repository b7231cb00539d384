import { Buffer } from 'node:buffer';
import { ScoreSdeError, reasonOf } from '../errors';
import { isPlainObject, show } from '../options';
import { version as packageVersion } from '../package';
import { dataRangeOf, type ModelInputs } from '../models/model';
import { Generator } from '../random/generator';
import { solverOf } from '../solvers';
import type { Json, Levels, Solver } from '../solvers/solver';
import { partsOf, type NoiseSource, type Place } from './lane';
import { readSafetensors, writeSafetensors, type Stored } from './safetensors';
import { restoredInput, savedInput } from './saved-inputs';

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
  /** How many samples go at once; all of them where it is undefined. */
  readonly maxRows: number | undefined;
  /** Where the lanes stand, in the order of their samples: see {@link partsOf}. */
  readonly places: readonly Place[];
  /** x, [B, ...] float32; of samples that are there, the sample. */
  readonly x: Float32Array;
  /** D1, D2, ...: what the next stages combine beside the next call. */
  readonly history: readonly Float32Array[];
  /** X0, and the result of lower order of the last accepted step, of solvers that have them. */
  readonly base: Float32Array | undefined;
  readonly low: Float32Array | undefined;
}

const format = 'score-sde run';
const version = 1;

/** The members of Levels that are lists. */
const lists = ['sigma', 'next', 'label', 'time'] as const;

/**
 * The bytes of a safetensors file, whose `__metadata__` holds all but x, the history, and inputs that are tensors.
 * @throws ScoreSdeError ERR_CONFIG where a file cannot hold it: a solver of the caller's own, inputs that are no numbers
 */
export function encode(checkpoint: Checkpoint): Uint8Array {
  const { solver, levels, dims, noise, seed, inputs, dataRange, maxRows, places, x, history, base, low } = checkpoint;
  solverOf(solver.name, solver.options);
  const tensors = new Map<string, Stored>([['x', float32(x, dims)]]);
  history.forEach((values, i) => tensors.set(`history.${i + 1}`, float32(values, dims)));
  if (base) tensors.set('base', float32(base, dims));
  if (low) tensors.set('low', float32(low, dims));
  const saved = Object.entries(inputs)
    .filter(([, input]) => input !== undefined)
    .map(([name, input]) => [name, savedInput(input, name)] as const);
  for (const [name, { tensor }] of saved) if (tensor) tensors.set(`inputs.${name}`, tensor);
  const metadata: Record<string, unknown> = {
    version,
    solver: { name: solver.name, options: solver.options },
    levels: { ...levels, ...Object.fromEntries(lists.map((name) => [name, Array.from(levels[name])])) },
    // A place without a position is that of a sample that is there.
    places,
    ...(maxRows !== undefined && { maxRows }),
    streams: noise === 'sampler' || 'sampler' in noise ? 'sampler' : noise.generators.map(streamOf),
    seed: seed === undefined ? null : String(seed),
    inputs: Object.fromEntries(saved.map(([name, { json }]) => [name, json])),
    dataRange,
  };
  const texts = Object.entries(metadata).map(([key, value]) => [key, JSON.stringify(value)]);
  return writeSafetensors({
    tensors,
    metadata: { format, package: packageVersion, ...(Object.fromEntries(texts) as Record<string, string>) },
  });
}

/** @throws ScoreSdeError ERR_CONFIG: a foreign file, one that is cut or damaged, of a later format, or that names an unknown solver */
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
  /** A part of the metadata. */
  const part = <T>(key: string, read: (json: Json) => T | undefined): T => {
    let cause: unknown;
    try {
      const value = read(JSON.parse(metadata[key]!) as Json);
      if (value !== undefined) return value;
    } catch (error) {
      cause = error;
    }
    const why = cause === undefined ? `got ${show(metadata[key])}` : reasonOf(cause);
    throw new ScoreSdeError('ERR_CONFIG', `the saved run's ${key} cannot be read: ${why}`, { cause });
  };
  const x = tensors.get('x');
  if (x === undefined || x.shape.length < 2) throw new ScoreSdeError('ERR_CONFIG', 'the saved run has no samples x');
  const floats = (name: string): Float32Array | undefined => {
    const found = tensors.get(name);
    if (found === undefined) return undefined;
    if (found.dtype !== 'F32' || String(found.shape) !== String(x.shape))
      throw new ScoreSdeError('ERR_CONFIG', `the saved run's tensor ${name} must be F32 [${x.shape.join(', ')}]`);
    return new Float32Array(found.data.buffer, found.data.byteOffset, found.data.byteLength / 4);
  };
  const rows = x.shape[0]!;
  const solver = part('solver', (json) => {
    const { name, options } = json as { name: string; options: object };
    return typeof name === 'string' && isPlainObject(options) ? solverOf(name, options) : undefined;
  });
  const levels = part('levels', levelsOfJson);
  const maxRows = 'maxRows' in metadata ? part('maxRows', rowsOfJson) : undefined;
  const count = partsOf(rows, maxRows, solver).length;
  const places = part('places', (json) => placesOf(json, count, solver, levels));
  const going = places.filter(({ position }) => position !== undefined);
  const calls = Math.max(0, ...going.map((place) => place.calls));
  const needed = (name: string): Float32Array => {
    const values = floats(name);
    if (values === undefined) throw new ScoreSdeError('ERR_CONFIG', `the saved run has no tensor ${name}`);
    return values;
  };
  const isMeasured = solver.tolerance !== undefined && calls > 0;
  return {
    solver,
    levels,
    dims: x.shape,
    noise: part('streams', (json) => (json === 'sampler' ? json : generatorsOf(json, rows))),
    // null stands for none, as undefined does for what cannot be read.
    seed: part('seed', (json) => (json === null ? json : BigInt(json as string))) ?? undefined,
    inputs: part('inputs', (json) =>
      isPlainObject(json)
        ? Object.fromEntries(
            Object.entries(json).map(([name, value]) => [name, restoredInput(value, tensors.get(`inputs.${name}`))]),
          )
        : undefined,
    ),
    dataRange: part('dataRange', dataRangeOf),
    maxRows,
    places,
    x: needed('x'),
    history: Array.from({ length: Math.min(calls, solver.history) }, (_, i) => needed(`history.${i + 1}`)),
    base: isMeasured ? needed('base') : floats('base'),
    low: isMeasured ? needed('low') : floats('low'),
  };
}

function float32(data: Float32Array, shape: readonly number[]): Stored {
  return { dtype: 'F32', shape, data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}

function levelsOfJson(json: Json): Levels | undefined {
  const levels = json as unknown as Levels & Record<(typeof lists)[number], number[]>;
  const { start, sigmaMin, sigmaMax, total, centred, calls = 1 } = levels;
  const isSound =
    lists.every((name) => Array.isArray(levels[name]) && levels[name].every(Number.isFinite)) &&
    lists.every((name) => levels[name].length === levels.sigma.length) &&
    levels.sigma.length > 0 &&
    [start, sigmaMin, sigmaMax].every((value) => Number.isFinite(value) && value > 0) &&
    [total, calls].every((value) => Number.isSafeInteger(value) && value > 0) &&
    typeof centred === 'boolean';
  return isSound ? levels : undefined;
}

function rowsOfJson(json: Json): number | undefined {
  return Number.isSafeInteger(json) && (json as number) > 0 ? (json as number) : undefined;
}

function placesOf(json: Json, count: number, solver: Solver, levels: Levels): Place[] | undefined {
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!Array.isArray(json) || json.length !== count) return undefined;
  return (json as unknown[]).map((place) => {
    const { position, calls, steps, waits } = place as Place;
    if (!isCount(calls) || !isCount(steps)) throw new Error(`got ${show(calls)} calls and ${show(steps)} steps`);
    const at = position === undefined ? position : solver.restore(levels, position);
    return { position: at, calls, steps, ...(waits === true && { waits }) };
  });
}

/** Where a stream stands: philox's seed and offset as decimals, or torch's state in base64. */
type Stream = { readonly seed: string; readonly offset: string } | { readonly torch: string };

function streamOf(generator: Generator): Stream {
  const state = generator.getState();
  return state instanceof Uint8Array
    ? { torch: Buffer.from(state).toString('base64') }
    : { seed: String(state.seed), offset: String(state.offset) };
}

function generatorsOf(json: Json, rows: number): NoiseSource | undefined {
  if (!Array.isArray(json) || (json.length !== 1 && json.length !== rows)) return undefined;
  const generators = (json as unknown[]).map((stream) => generatorOf(stream as Stream));
  return generators.every(({ engine }) => engine === generators[0]!.engine) ? { generators } : undefined;
}

function generatorOf(stream: Stream): Generator {
  if ('torch' in stream)
    return new Generator(0, { engine: 'torch' }).setState(new Uint8Array(Buffer.from(stream.torch, 'base64')));
  return new Generator(0).setState({ engine: 'philox', seed: BigInt(stream.seed), offset: BigInt(stream.offset) });
}
