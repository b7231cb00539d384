import { dirname, join } from 'node:path';
import { exportingPage, ScoreSdeError } from '../errors';
import { givenOptions, show } from '../options';
import { isFile, isFolder, isInlined, readTextIfFile, unpacked } from '../files';
import { inlinedError } from '../package';
import { parseJson } from '../scheduler/python-json';
import { ScoreSdeVeScheduler } from '../scheduler/scheduler';
import { assertContained } from './containment';
import type { ModelInputs } from '../models/model';
import { ranged } from '../models/network/conditioning';
import { checkedKind, type NetworkKind } from '../models/network/kind';
import { OnnxModel } from '../models/onnx/model';
import { loadOptions, type OnnxModelOptions } from '../models/onnx/options';
import { readProbed } from '../models/onnx/probe-cache';

/** Models that ship with this package, by name. */
const builtIn: Record<string, string> = { digits: join(__dirname, '..', '..', 'models', 'digits') };

const className = 'ScoreSdeVePipeline';
const maxBytes = 2 ** 20;
const maxSize = 2 ** 16;
/** Elements of one sample: a gibibyte of float32. */
const maxElements = 2 ** 28;

export interface Pretrained {
  readonly scheduler: ScoreSdeVeScheduler;
  readonly model: OnnxModel;
  /** The dims of one sample, [C, H, W]. */
  readonly sampleShape: readonly number[];
}

interface UnetConfig {
  readonly in_channels?: number | undefined;
  readonly sample_size?: number | readonly [number, number] | undefined;
  readonly default_inputs?: ModelInputs | undefined;
  readonly num_class_embeds?: number | null | undefined;
  readonly class_embed_type?: string | null | undefined;
  readonly prediction_kind?: NetworkKind['prediction'] | null;
  readonly conditioning?: NetworkKind['conditioning'] | null;
  readonly preconditioning?: NetworkKind['preconditioning'] | null;
  readonly data_range?: NetworkKind['dataRange'] | null;
}

/** The config's keys of a network's kind, by the options. */
const kindKeys = {
  prediction: 'prediction_kind',
  conditioning: 'conditioning',
  preconditioning: 'preconditioning',
  dataRange: 'data_range',
} as const;

/** What the networks of diffusers' other schedulers give, by their `prediction_type`. */
const predictionTypes: Record<string, NetworkKind['prediction']> = {
  epsilon: 'noise',
  sample: 'denoised',
  v_prediction: 'v_prediction',
};

/** The folder that a name or path stands for: a bare name of a built-in model is that model. */
export function folderOf(dir: unknown): string {
  if (typeof dir !== 'string' || dir === '')
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `dir must be the path of a folder, or the name of a built-in model, got ${show(dir)}`,
    );
  return Object.hasOwn(builtIn, dir) ? builtIn[dir]! : dir;
}

/** The network's file in a pipeline's folder as diffusers saves it now. */
export const networkOf = (folder: string): string => join(folder, 'unet', 'model.onnx');

/**
 * Reads a folder as diffusers saves it: model_index.json, scheduler/scheduler_config.json, unet/model.onnx and, if there,
 * unet/config.json (in_channels, sample_size, default_inputs, num_class_embeds; prediction_kind, conditioning,
 * preconditioning, data_range as the options of {@link OnnxModel.load}, which come first; null says nothing) and probe.json beside the network,
 * which `probeCache` made. Each of them may also lie in the folder itself, as in the first published checkpoints.
 * @throws ScoreSdeError ERR_CONFIG (a foreign or incomplete folder), ERR_IO (unreadable), ERR_MODEL (no network, or one that cannot be run)
 */
export async function loadPretrained(dir: unknown, options: OnnxModelOptions): Promise<Pretrained> {
  const folder = folderOf(dir);
  const expected = `expected a pipeline's folder, or one of the built-in models (${Object.keys(builtIn).join(', ')})`;
  if (!(await isFolder(folder))) {
    if (folder !== dir && isInlined()) throw inlinedError();
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${folder} is no folder: ${expected}; nothing is downloaded, and ${exportingPage} says how to make a folder of a checkpoint`,
    );
  }
  await assertContained(folder);
  const index = await readObject<{ _class_name?: unknown }>(join(folder, 'model_index.json'));
  if (index === undefined) throw new ScoreSdeError('ERR_CONFIG', `${folder} holds no model_index.json: ${expected}`);
  if (index._class_name !== className)
    throw new ScoreSdeError(
      'ERR_CONFIG',
      `${join(folder, 'model_index.json')}: _class_name: expected "${className}", got ${show(index._class_name)}: ${exportingPage} says how networks of other pipelines are loaded`,
    );
  const scheduler = await ScoreSdeVeScheduler.fromPretrained(folder, { subfolder: 'scheduler' });
  const network = await firstFile(networkOf(folder), join(folder, 'model.onnx'));
  if (network !== networkOf(folder)) await assertContained(folder, ['.']); // its weights may be any file there
  const configFile = await firstFile(join(folder, 'unet', 'config.json'), join(folder, 'config.json'));
  const config = checked((await readObject<UnetConfig>(configFile)) ?? {}, configFile);
  const { sigmaMin, sigmaMax } = scheduler.config;
  const range = [sigmaMin, sigmaMax] as const;
  const kind = kindOf(config, range, configFile);
  const isSaid = [kind, options].some((each) => (each.prediction ?? each.preconditioning) !== undefined);
  const scheduleName = 'scheduler_config.json';
  const schedule = await firstFile(join(folder, 'scheduler', scheduleName), join(folder, scheduleName));
  if (!isSaid) for (const file of [configFile, schedule]) await assertNoPredictionType(file, configFile);
  const { conditioning = kind.conditioning } = options;
  const probed = await readProbed(join(dirname(network), 'probe.json'));
  const given: OnnxModelOptions = {
    defaultInputs: config.default_inputs,
    classes: classesOf(config),
    sampleShape: sizesOf(config).every((size) => typeof size === 'number') ? sizesOf(config) : undefined,
    // A network has one of them: an option of either stands in place of the config's other.
    prediction: options.preconditioning === undefined ? kind.prediction : undefined,
    preconditioning: options.prediction === undefined ? kind.preconditioning : undefined,
    dataRange: kind.dataRange,
    ...givenOptions(options, loadOptions),
    conditioning: conditioning && ranged(conditioning, range),
  };
  const known = { probed, sigmaRange: range };
  const model = await OnnxModel.loadKnown(network, given, known);
  try {
    return { scheduler, model, sampleShape: sampleShapeOf(config, model, configFile) };
  } catch (error) {
    await model.dispose();
    throw error;
  }
}

/** The first of the files that is there; the first of all if none is. */
async function firstFile(usual: string, other: string): Promise<string> {
  return !(await isFile(unpacked(usual))) && (await isFile(unpacked(other))) ? other : usual;
}

async function readObject<T extends object>(file: string): Promise<T | undefined> {
  const text = await readTextIfFile(file, maxBytes);
  if (text === undefined) return undefined;
  const value = parseJson(text, file, Number);
  if (value === null || typeof value !== 'object' || Array.isArray(value))
    throw new ScoreSdeError('ERR_CONFIG', `${file}: expected a JSON object, got ${show(value)}`);
  return value as T;
}

function checked(config: UnetConfig, file: string): UnetConfig {
  const fail = (key: string, expected: string, value: unknown): never => {
    throw new ScoreSdeError('ERR_CONFIG', `${file}: ${key}: expected ${expected}, got ${show(value)}`);
  };
  const isSize = (v: unknown) => Number.isInteger(v) && (v as number) > 0 && (v as number) <= maxSize;
  const { in_channels: channels, sample_size: size, default_inputs: inputs } = config;
  if (channels !== undefined && !isSize(channels)) fail('in_channels', `an integer from 1 to ${maxSize}`, channels);
  const isPair = Array.isArray(size) && size.length === 2 && size.every(isSize);
  // diffusers writes null where the size is free.
  if (size !== undefined && size !== null && !isSize(size) && !isPair)
    fail('sample_size', `an integer from 1 to ${maxSize}, or two`, size);
  const classes = classesOf(config);
  if (classes !== undefined && !(Number.isSafeInteger(classes) && classes > 0))
    fail('num_class_embeds', 'an integer from 1 on', classes);
  if (inputs !== undefined && (inputs === null || typeof inputs !== 'object' || Array.isArray(inputs)))
    fail('default_inputs', 'an object', inputs);
  const isNumber = (value: unknown) => typeof value === 'number' || typeof value === 'boolean';
  if (sizesOf(config).every(isSize)) assertModest(sizesOf(config));
  for (const [name, value] of Object.entries(inputs ?? {}))
    if (!isNumber(value) && !(Array.isArray(value) && value.every(isNumber)))
      fail(`default_inputs.${name}`, 'a number, a boolean, or an array of them', value);
  return config;
}

/** The kind that a config says. null, which diffusers writes for what is not set, says nothing. ERR_CONFIG, ERR_RANGE. */
function kindOf(config: UnetConfig, range: readonly [number, number], file: string): Readonly<NetworkKind> {
  const bare = (key: string) => key.replace(/[-_ ]/g, '').toLowerCase();
  for (const [key, value] of Object.entries(config) as [string, unknown][]) {
    const [, meant = key] =
      Object.entries(kindKeys).find((names) => names.some((name) => bare(name) === bare(key))) ?? [];
    // What is not read would leave the network taken for a score.
    if (meant !== key && value !== null)
      throw new ScoreSdeError('ERR_CONFIG', `${file}: expected the key ${show(meant)}, got ${show(key)}`);
  }
  const given: NetworkKind = Object.fromEntries(
    Object.entries(kindKeys).map(([option, key]) => [option, config[key] ?? undefined]),
  );
  const { conditioning } = given;
  const whole = { ...given, conditioning: conditioning && ranged(conditioning, range) };
  return checkedKind(whole, `${file}: `, kindKeys).kind;
}

/**
 * ERR_CONFIG where a file says in the word of diffusers' other schedulers what the network gives. diffusers' ScoreSdeVeScheduler
 * takes the network for a score all the same, which it is not. The word is not translated: networks of those schedulers are told
 * a step and see x scaled, too, which it does not say.
 */
async function assertNoPredictionType(file: string, configFile: string): Promise<void> {
  const { prediction_type: type } = (await readObject<{ prediction_type?: unknown }>(file)) ?? {};
  if (type === undefined || type === null) return;
  const meant =
    typeof type === 'string' && Object.hasOwn(predictionTypes, type) ? ` ${show(predictionTypes[type])}` : '';
  throw new ScoreSdeError(
    'ERR_CONFIG',
    `${file}: prediction_type: expected none, since the network would be taken for a score, got ${show(type)}: ` +
      `say prediction_kind${meant}, or "score" if it gives that, in ${configFile}, and its conditioning if it does not take sigma (${exportingPage})`,
  );
}

/** A folder's numbers are not to take all memory. */
function assertModest(shape: readonly number[]): void {
  if (shape.reduce((size, dim) => size * dim, 1) > maxElements)
    throw new ScoreSdeError('ERR_MODEL', `one sample of [${shape.join(', ')}] has more than ${maxElements} elements`);
}

/** The dims of one sample by the config; what it does not say is undefined. */
function sizesOf({ in_channels: channels, sample_size: size }: UnetConfig): number[] {
  const [height, width] = typeof size === 'object' && size !== null ? size : [size, size];
  return [channels, height, width] as number[];
}

/** How many classes a network tells apart by an embedding of each, as diffusers has it where no other embedding is named. */
function classesOf({ num_class_embeds: count, class_embed_type: type }: UnetConfig): number | undefined {
  return (type ?? undefined) === undefined ? (count ?? undefined) : undefined;
}

/** What the network's metadata leave free, its config says. */
function sampleShapeOf(config: UnetConfig, model: OnnxModel, file: string): number[] {
  const named = sizesOf(config);
  const shape = model.sampleShape.map((dim, i) => {
    const known = typeof dim === 'number' ? dim : named[i];
    if (typeof known !== 'number')
      throw new ScoreSdeError(
        'ERR_MODEL',
        `the model leaves the size ${dim} of its states free: say it in ${file}, as in_channels and sample_size`,
      );
    return known;
  });
  assertModest(shape);
  return shape;
}
