import { ScoreSdeError } from '../../errors';
import { isPlainObject, show, unknownOption } from '../../options';

/** Numbers in order. */
type Numbers = readonly number[] | Float32Array | Float64Array;

/**
 * What a network is told of the noise level:
 * - 'sigma', 'log_sigma', 'log_sigma_quarter': sigma, ln sigma, ln(sigma) / 4 (EDM's c_noise)
 * - 't', or { t: [sigmaMin, sigmaMax] }: the time of the VE SDE, sigma(t) = sigmaMin (sigmaMax / sigmaMin)^t. A
 *   pipeline's folder tells the range, elsewhere it is to be given
 * - { tutorial: s }: the time of the SDE dx = s^t dw, t = ln(1 + 2 sigma^2 ln s) / (2 ln s)
 * - { index: N, sigmas, descending }: the place of the nearest of N levels (SMLD), 2^16 at most: `sigmas` are the levels in
 *   order, or { geometric: [sigmaMin, sigmaMax] }, or 'geometric' where a pipeline's folder tells the range; index 0 is the
 *   highest of geometric levels unless `descending` is false
 * - { alphasCumprod }: a DDPM's step, by interpolation in ln sigma between sigma_t = sqrt((1 - a_t) / a_t); the network sees
 *   x / sqrt(sigma^2 + 1)
 */
export type Conditioning =
  | 'sigma'
  | 'log_sigma'
  | 'log_sigma_quarter'
  | 't'
  | { readonly t: readonly [sigmaMin: number, sigmaMax: number] }
  | { readonly tutorial: number }
  | {
      readonly index: number;
      readonly sigmas: 'geometric' | { readonly geometric: readonly [number, number] } | Numbers;
      readonly descending?: boolean | undefined;
    }
  | { readonly alphasCumprod: Numbers };

/** A conditioning in which sigmaMin and sigmaMax stand where it leaves them to a pipeline's folder. */
export function ranged(conditioning: Conditioning, range: readonly [sigmaMin: number, sigmaMax: number]): Conditioning {
  if (conditioning === 't') return { t: range };
  if (isPlainObject(conditioning) && 'index' in conditioning && conditioning.sigmas === 'geometric')
    return { ...conditioning, sigmas: { geometric: range } };
  return conditioning;
}

/** What a network is told, by a conditioning that was checked. */
export interface Told {
  /** The conditioning, copied: what is changed in the given one later changes nothing. */
  readonly conditioning: Conditioning;
  readonly label: (sigma: number) => number;
  /** Whether the network sees x / sqrt(sigma^2 + 1). */
  readonly seesAlpha?: boolean | undefined;
}

/** The most levels of a table. */
const maxLevels = 2 ** 16;

const words: Record<string, (sigma: number) => number> = {
  sigma: (sigma) => sigma,
  log_sigma: Math.log,
  log_sigma_quarter: (sigma) => Math.log(sigma) / 4,
};

type Given = Readonly<Record<string, unknown>>;

/** The keys of the objects, each with what reads it. The first key tells an object from the others. */
const forms: [keys: string[], read: (given: Given, name: string) => Told][] = [
  [['t'], timeOfRange],
  [['tutorial'], timeOfTutorial],
  [['index', 'sigmas', 'descending'], indexOfLevel],
  [['alphasCumprod'], stepOfAlphas],
];

/**
 * Checks a conditioning.
 * @param name What it is called in messages
 * @throws ScoreSdeError ERR_CONFIG, ERR_RANGE
 */
export function toldBy(given: unknown, name: string): Told {
  if (typeof given === 'string' && Object.hasOwn(words, given))
    return { conditioning: given as Conditioning, label: words[given]! };
  if (given === 't') throw withoutRange(`${name} 't'`, '{ t: [sigmaMin, sigmaMax] }');
  const parts = isPlainObject(given) ? (given as Given) : {};
  const form = forms.find(([[first]]) => parts[first!] !== undefined);
  if (form === undefined)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${name} must be 'sigma', 'log_sigma', 'log_sigma_quarter', 't', { t }, { tutorial }, { index, sigmas } or ` +
        `{ alphasCumprod }, got ${show(given)}`,
    );
  const [keys, read] = form;
  assertKeys(parts, keys, name);
  return read(parts, name);
}

/** ERR_CONFIG for a key that an object of these keys does not have: a second form, or a misspelt part. */
export function assertKeys(given: object, keys: readonly string[], name: string): void {
  const unknown = unknownOption(given, keys);
  if (unknown !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', `${name} { ${keys.join(', ')} } takes no ${show(unknown)}`);
}

/** The numbers of an array, a Float32Array or a Float64Array, copied; undefined for another value, number of numbers or element. */
function numbersOf(given: unknown, min: number, max = min): readonly number[] | undefined {
  const kind = Object.prototype.toString.call(given).slice(8, -1);
  if (!['Array', 'Float32Array', 'Float64Array'].includes(kind)) return undefined;
  const { length } = given as ArrayLike<unknown>;
  if (length < min || length > max) return undefined;
  const numbers = Array.from(given as ArrayLike<unknown>); // a hole is then undefined
  return numbers.every((value): value is number => Number.isFinite(value)) ? numbers : undefined;
}

function withoutRange(what: string, instead: string): ScoreSdeError {
  return new ScoreSdeError('ERR_CONFIG', `${what} needs a range that only a pipeline's folder tells: say ${instead}`);
}

/** A range of noise levels that was given. ERR_RANGE. */
export function sigmaRangeOf(range: unknown, name: string): readonly [sigmaMin: number, sigmaMax: number] {
  const [low = 0, high = 0] = numbersOf(range, 2) ?? [];
  if (!(low > 0 && high > low))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `${name} must be [sigmaMin, sigmaMax], 0 < sigmaMin < sigmaMax, got ${show(range)}`,
    );
  return [low, high];
}

function timeOfRange({ t }: Given, name: string): Told {
  const [low, high] = sigmaRangeOf(t, `${name}.t`);
  return { conditioning: { t: [low, high] }, label: (sigma) => Math.log(sigma / low) / Math.log(high / low) };
}

function timeOfTutorial({ tutorial: s }: Given, name: string): Told {
  if (typeof s !== 'number' || !(s > 1 && s < Infinity))
    throw new ScoreSdeError('ERR_RANGE', `${name}.tutorial must be a number above 1, got ${show(s)}`);
  return {
    conditioning: { tutorial: s },
    label: (sigma) => Math.log1p(2 * sigma * sigma * Math.log(s)) / (2 * Math.log(s)),
  };
}

function indexOfLevel({ index: count, sigmas, descending }: Given, name: string): Told {
  if (typeof count !== 'number' || !(Number.isInteger(count) && count > 0 && count <= maxLevels))
    throw new ScoreSdeError('ERR_RANGE', `${name}.index must be an integer from 1 to ${maxLevels}, got ${show(count)}`);
  if (descending !== undefined && typeof descending !== 'boolean')
    throw new ScoreSdeError('ERR_CONFIG', `${name}.descending must be a boolean, got ${show(descending)}`);
  const rangeText = '{ geometric: [sigmaMin, sigmaMax] }';
  if (sigmas === 'geometric') throw withoutRange(`${name} { sigmas: 'geometric' }`, `{ sigmas: ${rangeText} }`);
  if (isPlainObject(sigmas)) {
    assertKeys(sigmas, ['geometric'], `${name}.sigmas`);
    const { geometric } = sigmas as Given;
    const range = sigmaRangeOf(geometric, `${name}.sigmas.geometric`);
    return {
      conditioning: { index: count, sigmas: { geometric: range }, descending },
      label: nearestOfGeometric(count, range, descending ?? true),
    };
  }
  if (!Array.isArray(sigmas) && !ArrayBuffer.isView(sigmas))
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${name}.sigmas must be 'geometric', ${rangeText} or the levels, got ${show(sigmas)}`,
    );
  if (descending !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', `${name}.descending is of geometric levels: those given have their order`);
  const levels = numbersOf(sigmas, count);
  if (levels === undefined || !levels.every((level) => level > 0) || new Set(levels).size < count)
    throw new ScoreSdeError(
      'ERR_RANGE',
      `${name}.sigmas must be ${count} numbers above 0, no two the same, got ${show(sigmas)}`,
    );
  return { conditioning: { index: count, sigmas: levels }, label: nearestOf(levels) };
}

/** As {@link nearestOf}, without a table. */
function nearestOfGeometric(count: number, [low, high]: readonly [number, number], descending: boolean) {
  const logOf = (index: number): number => {
    const u = count === 1 ? 0 : index / (count - 1);
    return Math.log(low * (high / low) ** (descending ? 1 - u : u));
  };
  return (sigma: number): number => {
    const u = Math.log(sigma / low) / Math.log(high / low);
    const place = Math.round((descending ? 1 - u : u) * (count - 1));
    const last = Math.min(Math.max(place + 1, 0), count - 1);
    // Half way between two levels rounding tells which is nearer: their own logarithms are compared.
    return nearest([Math.max(last - 2, 0), Math.max(last - 1, 0), last], logOf, Math.log(sigma));
  };
}

/** The index of the level that is nearest in ln sigma; of two that are as near, the first. */
function nearestOf(levels: readonly number[]): (sigma: number) => number {
  const logs = Float64Array.from(levels, Math.log);
  const indices = new Map<number, number>();
  logs.forEach((log, index) => indices.has(log) || indices.set(log, index));
  const ascending = logs.slice().sort();
  return (sigma) => {
    const log = Math.log(sigma);
    const place = placeOf(ascending, log);
    const beside = [ascending[Math.max(place - 1, 0)]!, ascending[Math.min(place, logs.length - 1)]!];
    const found = beside.map((each) => indices.get(each)!).sort((i, j) => i - j);
    return nearest(found, (index) => logs[index]!, log);
  };
}

/** Of ascending indices the first whose logarithm is nearest. */
function nearest(indices: readonly number[], logOf: (index: number) => number, log: number): number {
  const away = indices.map((index) => Math.abs(logOf(index) - log));
  return indices[away.indexOf(Math.min(...away))]!;
}

/** The step of a DDPM at which the noise has level sigma, relative to the signal: k-diffusion's sigma_to_t. */
function stepOfAlphas({ alphasCumprod }: Given, name: string): Told {
  const alphas = numbersOf(alphasCumprod, 2, maxLevels);
  const isDecreasing = (value: number, i: number) => value > 0 && value < 1 && (i === 0 || value < alphas![i - 1]!);
  if (alphas === undefined || !alphas.every(isDecreasing))
    throw new ScoreSdeError(
      'ERR_RANGE',
      `${name}.alphasCumprod must be from 2 to ${maxLevels} numbers between 0 and 1 that decrease, got ${show(alphasCumprod)}`,
    );
  const logs = alphas.map((a) => Math.log((1 - a) / a) / 2);
  const label = (sigma: number) => {
    const log = Math.log(sigma);
    const high = Math.min(Math.max(placeOf(logs, log), 1), logs.length - 1);
    const part = (log - logs[high - 1]!) / (logs[high]! - logs[high - 1]!);
    return high - 1 + Math.min(Math.max(part, 0), 1);
  };
  return { conditioning: { alphasCumprod: alphas }, label, seesAlpha: true };
}

/** The place of the first of ascending numbers that is no less than a value; their count where none is. */
function placeOf(ascending: ArrayLike<number>, value: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ascending[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
