import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { isLosslessNumber, LosslessNumber, parse } from 'lossless-json';
import { ScoreSdeError } from '../errors';
import { isPlainObject, show } from '../options';
import { readTextIfFile, writeWhole } from '../files';

/** The parameters of a ScoreSdeVeScheduler: diffusers' names in camelCase. */
export interface SchedulerConfig {
  /** Entries of the tables that the constructor makes: an integer from 0 to 2^24. Default 2000. */
  readonly numTrainTimesteps: number;
  /** Signal-to-noise ratio of the corrector's step: finite, >= 0. Default 0.15. */
  readonly snr: number;
  /** Smallest noise level: finite, > 0; may exceed `sigmaMax`, as in the reference. Default 0.01. */
  readonly sigmaMin: number;
  /** Largest noise level: finite, > 0. Default 1348. */
  readonly sigmaMax: number;
  /** Last timestep: finite; outside 0 < eps < 1/(N-1) the tables that use it draw a warning. Default 1e-5. */
  readonly samplingEps: number;
  /** Corrector steps before each predictor step: an integer >= 0. Default 1. */
  readonly correctSteps: number;
}

/** A config read from elsewhere: the six fields, and what else the file held, so that it can be written back. `{ config }` alone is one too. */
export interface StoredConfig {
  readonly config: SchedulerConfig;
  /** @internal Entries that are no fields of this scheduler, by key, as Python would print their values. */
  readonly unknown?: ReadonlyMap<string, string>;
  /** @internal Digits of the float fields that the text spelled as integers: Python keeps 1348 and 1348.0 apart. */
  readonly integers?: ReadonlyMap<string, string>;
}

/** The defaults of diffusers' ScoreSdeVeScheduler. */
export const defaultConfig: SchedulerConfig = Object.freeze({
  numTrainTimesteps: 2000,
  snr: 0.15,
  sigmaMin: 0.01,
  sigmaMax: 1348.0,
  samplingEps: 1e-5,
  correctSteps: 1,
});

const className = 'ScoreSdeVeScheduler';
const diffusersVersion = '0.23.0';
const fileName = 'scheduler_config.json';
const maxLength = 2 ** 20;
const maxDepth = 64;
// step_pred computes a table index in float32, which tells integers apart only up to here.
const maxTimesteps = 2 ** 24;

interface Field {
  readonly name: keyof SchedulerConfig;
  readonly key: string;
  readonly integer: boolean;
  readonly expected: string;
  readonly valid: (value: number) => boolean;
}

const positive = (v: number) => v > 0 && Number.isFinite(v);
const fields: readonly Field[] = [
  {
    name: 'numTrainTimesteps',
    key: 'num_train_timesteps',
    integer: true,
    expected: `an integer from 0 to ${maxTimesteps}`,
    valid: (v) => Number.isInteger(v) && v >= 0 && v <= maxTimesteps,
  },
  {
    name: 'snr',
    key: 'snr',
    integer: false,
    expected: 'a finite number >= 0',
    valid: (v) => v >= 0 && Number.isFinite(v),
  },
  { name: 'sigmaMin', key: 'sigma_min', integer: false, expected: 'a finite number > 0', valid: positive },
  { name: 'sigmaMax', key: 'sigma_max', integer: false, expected: 'a finite number > 0', valid: positive },
  {
    name: 'samplingEps',
    key: 'sampling_eps',
    integer: false,
    expected: 'a finite number',
    valid: Number.isFinite,
  },
  {
    name: 'correctSteps',
    key: 'correct_steps',
    integer: true,
    expected: 'an integer >= 0',
    valid: (v) => Number.isSafeInteger(v) && v >= 0,
  },
];
const byName = new Map<string, Field>(fields.map((field) => [field.name, field]));
const byKey = new Map<string, Field>(fields.flatMap((field) => [[field.name, field] as const, [field.key, field]]));

// The reference drops these when it writes; the first two it writes itself.
const notWrittenBack = new Set(['_class_name', '_diffusers_version', '_ignore_files', '_use_default_values', 'kwargs']);

/** What was stored beside a config, so that fromConfig(scheduler.config) loses none of it, as in the reference. */
const storedWith = new WeakMap<object, StoredConfig>();

/** What was given for a field, by the field's name; the label is how errors call it. */
type Given = Map<string, { label: string; value: unknown }>;

/**
 * Checks and completes constructor options; what is missing or undefined takes its default.
 * @throws ScoreSdeError ERR_CONFIG on an unknown key, a value of another type, NaN, or a value out of the range that {@link SchedulerConfig} gives.
 */
export function resolveConfig(options: Partial<SchedulerConfig> = {}): SchedulerConfig {
  const given: Given = new Map();
  take(given, options, 'options');
  return complete(given);
}

/**
 * Reads a config from the text of a scheduler_config.json (up to 2^20 characters, nested up to 64 deep) or from an object,
 * with diffusers' snake_case keys or in camelCase. `overrides` win. Unknown keys are kept for {@link formatConfig} and
 * warned of once; keys that start with "_" are kept without a word (diffusers' ConfigMixin.from_config).
 * @throws ScoreSdeError ERR_CONFIG on text that is no JSON object, the config of another class, a field given twice, and as {@link resolveConfig}.
 */
export function parseConfig(json: string | object, overrides: Partial<SchedulerConfig> = {}): StoredConfig {
  return read(json, overrides, '');
}

/** The text of scheduler_config.json, byte for byte what diffusers 0.23.0 writes for the same config. */
export function formatConfig(stored: StoredConfig): string {
  const entries = new Map(stored.unknown);
  entries.set('_class_name', pythonString(className));
  entries.set('_diffusers_version', pythonString(diffusersVersion));
  for (const { name, key, integer } of fields) {
    const value = stored.config[name];
    const digits = stored.integers?.get(name);
    if (digits !== undefined && Number(digits) === value) entries.set(key, digits);
    else entries.set(key, integer ? String(value) : pythonFloat(value));
  }
  return `${pythonDict(entries, 0)}\n`;
}

/**
 * Reads DIR/SUBFOLDER/scheduler_config.json, or DIR/scheduler_config.json where there is none. As in diffusers, `dir` may also be the file itself.
 * @throws ScoreSdeError ERR_CONFIG when there is no such file and as {@link parseConfig}; ERR_IO when it cannot be read.
 */
export async function readConfig(
  dir: string,
  subfolder?: string,
  overrides: Partial<SchedulerConfig> = {},
): Promise<StoredConfig> {
  checkPath('dir', dir);
  if (subfolder !== undefined) checkPath('subfolder', subfolder);
  const candidates = [dir, ...(subfolder === undefined ? [] : [join(dir, subfolder, fileName)]), join(dir, fileName)];
  for (const file of candidates) {
    const text = await readTextIfFile(file, maxLength);
    if (text !== undefined) return read(text, overrides, `${file}: `);
  }
  throw new ScoreSdeError('ERR_CONFIG', `no file named ${fileName} found in directory ${dir}`);
}

/**
 * Writes DIR/scheduler_config.json, making the folder if need be. The file appears whole or not at all.
 * @throws ScoreSdeError ERR_IO when it cannot be written.
 */
export async function writeConfig(dir: string, stored: StoredConfig): Promise<void> {
  checkPath('dir', dir);
  await writeWhole(join(dir, fileName), formatConfig(stored));
}

function read(json: unknown, overrides: Partial<SchedulerConfig>, where: string): StoredConfig {
  const source = typeof json === 'string' ? parseText(json, where) : json;
  if (!isPlainObject(source)) {
    throw new ScoreSdeError('ERR_CONFIG', `${where}config: expected a JSON object, got ${show(plain(source))}`);
  }
  const entries = new Map((Object.entries(source) as [string, unknown][]).filter(([, value]) => value !== undefined));
  checkClass(entries, where);

  // A live config of the reference lists here which of its values were nobody's choice; from_config drops them.
  const defaulted = entries.get('_use_default_values');
  if (Array.isArray(defaulted)) for (const key of defaulted as string[]) entries.delete(key);

  const given: Given = new Map();
  const before = storedWith.get(source);
  const integers = new Map(before?.integers);
  const unknown = new Map(before?.unknown);
  for (const [key, value] of entries) {
    const field = byKey.get(key);
    if (!field) {
      if (!notWrittenBack.has(key)) unknown.set(key, pythonValue(value, 1, `${where}${key}`));
      continue;
    }
    const twin = given.get(field.name);
    if (twin) {
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `${where}${key}: expected this field once, got ${field.key} and ${field.name}`,
      );
    }
    given.set(field.name, { label: `${where}${key}`, value: plain(value) });
    if (!field.integer && isLosslessNumber(value) && isInteger(value.value))
      integers.set(field.name, pythonValue(value, 1, key));
  }
  take(given, overrides, 'overrides');
  const config = complete(given);
  warnOf(
    [...entries.keys()].filter((key) => !byKey.has(key) && !key.startsWith('_')),
    where,
  );
  const stored = { config, unknown, integers };
  storedWith.set(config, stored);
  return stored;
}

function take(given: Given, options: Partial<SchedulerConfig>, label: string): void {
  if (!isPlainObject(options))
    throw new ScoreSdeError('ERR_CONFIG', `${label}: expected an object, got ${show(options)}`);
  for (const [name, value] of Object.entries(options)) {
    if (!byName.has(name)) {
      throw new ScoreSdeError(
        'ERR_CONFIG',
        `${label}: expected only ${[...byName.keys()].join(', ')}, got ${show(name)}`,
      );
    }
    if (value !== undefined) given.set(name, { label: name, value });
  }
}

function complete(given: Given): SchedulerConfig {
  const config: Record<keyof SchedulerConfig, number> = { ...defaultConfig };
  for (const { name, expected, valid } of fields) {
    const entry = given.get(name);
    if (!entry) continue;
    if (typeof entry.value !== 'number' || !valid(entry.value)) {
      throw new ScoreSdeError('ERR_CONFIG', `${entry.label}: expected ${expected}, got ${show(entry.value)}`);
    }
    config[name] = entry.value;
  }
  return Object.freeze(config);
}

/** Another scheduler's config would load as mostly defaults and sample noise: diffusers does that, this package refuses. */
function checkClass(entries: ReadonlyMap<string, unknown>, where: string): void {
  const name = entries.get('_class_name');
  // The Flax twin has the same six fields.
  if (name === undefined || name === className || name === `Flax${className}`) return;
  throw new ScoreSdeError('ERR_CONFIG', `${where}_class_name: expected "${className}", got ${show(plain(name))}`);
}

function warnOf(keys: readonly string[], where: string): void {
  if (keys.length === 0) return;
  const list = keys.slice(0, 8).map(show).join(', ') + (keys.length > 8 ? `, and ${keys.length - 8} more` : '');
  process.emitWarning(`${where}config: unknown keys are kept but not used: ${list}`, 'ScoreSdeWarning');
}

function parseText(text: string, where: string): unknown {
  if (text.length > maxLength) {
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${where}config: expected at most ${maxLength} characters, got ${text.length}`,
    );
  }
  // A number that nobody can have written stands for NaN, which JSON cannot spell.
  const nan = `0.${randomBytes(8).readBigUInt64BE()}`;
  try {
    return parse(prepare(text, nan, where), undefined, {
      parseNumber: (digits) => (digits === nan ? Number.NaN : new LosslessNumber(digits)),
      // Python keeps the last.
      onDuplicateKey: ({ newValue }) => newValue,
    });
  } catch (cause) {
    if (cause instanceof ScoreSdeError) throw cause;
    throw new ScoreSdeError('ERR_CONFIG', `${where}config: not valid JSON: ${(cause as Error).message}`, { cause });
  }
}

/** Refuses what would overflow the parser's stack, and spells the literals that only Python's JSON knows as numbers. */
function prepare(text: string, nan: string, where: string): string {
  let depth = 0;
  // A string's closing quote is optional: without it, text full of escaped quotes would take quadratic time.
  const tokens = /"(?:[^"\\]|\\.)*"?|[[\]{}]|(?<![\w.+-])(?:NaN|-?Infinity)(?![\w.+-])/gs;
  return text.replace(tokens, (token) => {
    if (token === '[' || token === '{') {
      if (++depth > maxDepth) throw tooDeep(`${where}config`);
    } else if (token === ']' || token === '}') depth--;
    else if (token === 'NaN') return nan;
    else if (token.endsWith('Infinity')) return token.replace('Infinity', '1e999');
    return token;
  });
}

function tooDeep(label: string): ScoreSdeError {
  return new ScoreSdeError('ERR_CONFIG', `${label}: expected at most ${maxDepth} levels of nesting, got more`);
}

function isInteger(digits: string): boolean {
  return /^-?\d+$/.test(digits);
}

function plain(value: unknown): unknown {
  return isLosslessNumber(value) ? Number(value.value) : value;
}

/** json.dumps(value, indent=2, sort_keys=True) as it stands `depth` levels deep. */
function pythonValue(value: unknown, depth: number, label: string): string {
  if (value === null || typeof value === 'boolean') return String(value);
  if (typeof value === 'string') return pythonString(value);
  if (typeof value === 'bigint') return String(value);
  if (typeof value === 'number') return Number.isInteger(value) ? String(BigInt(value)) : pythonFloat(value);
  if (isLosslessNumber(value)) {
    if (!isInteger(value.value)) return pythonFloat(Number(value.value));
    return value.value === '-0' ? '0' : value.value;
  }
  if (!Array.isArray(value) && !isPlainObject(value)) {
    throw new ScoreSdeError('ERR_CONFIG', `${label}: expected a JSON value, got ${show(value)}`);
  }
  if (depth >= maxDepth) throw tooDeep(label);
  if (Array.isArray(value)) {
    const items = Array.from(value, (item, i) => pythonValue(item, depth + 1, `${label}[${i}]`));
    return pythonBlock('[', items, ']', depth);
  }
  const entries = new Map<string, string>();
  for (const [key, item] of Object.entries(value)) {
    if (item !== undefined) entries.set(key, pythonValue(item, depth + 1, `${label}.${key}`));
  }
  return pythonDict(entries, depth);
}

function pythonDict(entries: ReadonlyMap<string, string>, depth: number): string {
  const items = [...entries]
    .sort(([a], [b]) => byCodePoint(a, b))
    .map(([key, text]) => `${pythonString(key)}: ${text}`);
  return pythonBlock('{', items, '}', depth);
}

function pythonBlock(left: string, items: readonly string[], right: string, depth: number): string {
  if (items.length === 0) return left + right;
  const line = `\n${'  '.repeat(depth)}`;
  return `${left}${line}  ${items.join(`,${line}  `)}${line}${right}`;
}

/** A string under json.dumps's ensure_ascii. */
function pythonString(text: string): string {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

/** Python's repr of a float: the shortest digits that read back, as JS, but with its own choice of notation. */
function pythonFloat(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const [digits, exponent] = value.toExponential().split('e') as [string, string];
  if (Number(exponent) < -4 || Number(exponent) >= 16)
    return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
  const text = Object.is(value, -0) ? '-0' : String(value);
  return text.includes('.') ? text : `${text}.0`;
}

/** Python's order of strings; JS compares UTF-16 units, which puts U+1F600 before U+FF5E. */
function byCodePoint(a: string, b: string): number {
  const left = Array.from(a, (c) => c.codePointAt(0)!);
  const right = Array.from(b, (c) => c.codePointAt(0)!);
  const i = left.findIndex((c, i) => c !== right[i]);
  return i < 0 ? left.length - right.length : left[i]! - (right[i] ?? -1);
}

function checkPath(name: string, value: unknown): void {
  if (typeof value !== 'string') throw new ScoreSdeError('ERR_CONFIG', `${name}: expected a path, got ${show(value)}`);
}
