import { join } from 'node:path';
import { ScoreSdeError } from '../errors';
import { givenOptions, holdsOptions, isPlainObject, show, unknownOption } from '../options';
import { readTextIfFile, writeWhole } from '../files';
import {
  integerDigits,
  maxLength,
  parseJson,
  plain,
  pythonDict,
  pythonFloat,
  pythonString,
  pythonValue,
} from './python-json';

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

/** A config, and what else its file held, so that writing it loses nothing. */
export interface StoredConfig {
  readonly config: SchedulerConfig;
  /** @internal Other entries of the file: by key, the value as Python's JSON. */
  readonly unknown?: ReadonlyMap<string, string> | undefined;
  /** @internal Float fields that the file wrote as integers, and their digits: Python writes 1348 and 1348.0 differently. */
  readonly integers?: ReadonlyMap<string, string> | undefined;
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
// stepPred computes a table index in float32, where integers are exact only up to 2^24.
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
/** The names of the options. */
export const configNames = fields.map(({ name }) => name);
const byKey = new Map<string, Field>(fields.flatMap((field) => [[field.name, field] as const, [field.key, field]]));

// The reference does not keep these keys of a file. It writes the first two itself.
const droppedKeys = new Set(['_class_name', '_diffusers_version', '_ignore_files', '_use_default_values', 'kwargs']);

/** What a config's file held besides it, so that fromConfig(scheduler.config) keeps that, as in the reference. */
const storedOf = new WeakMap<object, StoredConfig>();

/** The values that were given, by field name. `label` names the field in errors. */
type Given = Map<string, { label: string; value: unknown }>;

/**
 * Checks constructor options. A missing or undefined field takes its default.
 * @throws ScoreSdeError ERR_CONFIG (an unknown key, a value that is no number or out of the range that {@link SchedulerConfig} gives)
 */
export function resolveConfig(options: Partial<SchedulerConfig> = {}): SchedulerConfig {
  const given: Given = new Map();
  collect(given, options, 'options');
  return withDefaults(given);
}

/**
 * Reads a config from the text of a scheduler_config.json (at most 2^20 characters and 64 levels) or from an object, with
 * diffusers' snake_case keys or in camelCase. `overrides` win. Unknown keys are kept for {@link formatConfig}; one warning
 * names those that do not start with "_" (diffusers' ConfigMixin.from_config).
 * @throws ScoreSdeError ERR_CONFIG (no JSON object, the config of another class, a field given twice), and as {@link resolveConfig}
 */
export function parseConfig(json: string | object, overrides: Partial<SchedulerConfig> = {}): StoredConfig {
  return read(json, overrides, '');
}

/** The text of scheduler_config.json: the bytes that diffusers 0.23.0 writes for the same config. */
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
 * Reads `dir` if it is a file, else DIR/SUBFOLDER/scheduler_config.json, else DIR/scheduler_config.json, as diffusers does.
 * @throws ScoreSdeError ERR_CONFIG (no such file, and as {@link parseConfig}), ERR_IO
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
 * Writes DIR/scheduler_config.json atomically, and makes the folder.
 * @throws ScoreSdeError ERR_IO
 */
export async function writeConfig(dir: string, stored: StoredConfig): Promise<void> {
  checkPath('dir', dir);
  await writeWhole(join(dir, fileName), formatConfig(stored));
}

function read(json: unknown, overrides: Partial<SchedulerConfig>, where: string): StoredConfig {
  const source = typeof json === 'string' ? parseJson(json, `${where}config`) : json;
  if (!isPlainObject(source)) {
    throw new ScoreSdeError('ERR_CONFIG', `${where}config: expected a JSON object, got ${show(plain(source))}`);
  }
  const entries = new Map((Object.entries(source) as [string, unknown][]).filter(([, value]) => value !== undefined));
  checkClass(entries, where);

  // The reference lists here the keys whose values were its defaults, not the user's choice. Its from_config drops their values.
  const defaulted = entries.get('_use_default_values');
  if (Array.isArray(defaulted)) for (const key of defaulted as string[]) entries.delete(key);

  const given: Given = new Map();
  const before = storedOf.get(source);
  const integers = new Map(before?.integers);
  const unknown = new Map(before?.unknown);
  for (const [key, value] of entries) {
    const field = byKey.get(key);
    if (!field) {
      if (!droppedKeys.has(key)) unknown.set(key, pythonValue(value, 1, `${where}${key}`));
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
    const digits = integerDigits(value);
    if (!field.integer && digits !== undefined) integers.set(field.name, digits);
  }
  collect(given, overrides, 'overrides');
  const config = withDefaults(given);
  warnOfUnknown(
    [...entries.keys()].filter((key) => !byKey.has(key) && !key.startsWith('_')),
    where,
  );
  const stored = { config, unknown, integers };
  storedOf.set(config, stored);
  return stored;
}

/** Puts options into `given`. ERR_CONFIG for an unknown key. */
function collect(given: Given, options: Partial<SchedulerConfig>, label: string): void {
  if (!holdsOptions(options, configNames))
    throw new ScoreSdeError('ERR_CONFIG', `${label}: expected an object, got ${show(options)}`);
  const unknown = unknownOption(options, configNames);
  if (unknown !== undefined)
    throw new ScoreSdeError('ERR_CONFIG', `${label}: expected only ${configNames.join(', ')}, got ${show(unknown)}`);
  for (const [name, value] of Object.entries(givenOptions(options, configNames)))
    given.set(name, { label: name, value });
}

/** The config of the given values. ERR_CONFIG for a value out of its range. */
function withDefaults(given: Given): SchedulerConfig {
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

/** ERR_CONFIG for another scheduler's config. diffusers takes it, with defaults for the missing fields, and samples noise. */
function checkClass(entries: ReadonlyMap<string, unknown>, where: string): void {
  const name = entries.get('_class_name');
  // The Flax class has the same six fields.
  if (name === undefined || name === className || name === `Flax${className}`) return;
  throw new ScoreSdeError('ERR_CONFIG', `${where}_class_name: expected "${className}", got ${show(plain(name))}`);
}

function warnOfUnknown(keys: readonly string[], where: string): void {
  if (keys.length === 0) return;
  const list = keys.slice(0, 8).map(show).join(', ') + (keys.length > 8 ? `, and ${keys.length - 8} more` : '');
  process.emitWarning(`${where}config: unknown keys are kept but not used: ${list}`, 'ScoreSdeWarning');
}

function checkPath(name: string, value: unknown): void {
  if (typeof value !== 'string') throw new ScoreSdeError('ERR_CONFIG', `${name}: expected a path, got ${show(value)}`);
}
