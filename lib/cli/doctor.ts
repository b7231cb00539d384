import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DeviceInfo } from '../devices';
import { reasonOf, ScoreSdeError } from '../errors';
import type { OnnxModel } from '../models/onnx/model';
import type { Exactness } from '../models/onnx/probe';
import type { OnnxRuntime } from '../models/onnx/runtime';
import { say } from './output';

/** What does not work has an `error` in place of its other values. */
type Found<T> = T | { error: string };

interface Addon {
  path: string;
  threads: number;
  devices: readonly DeviceInfo[];
}

/** OnnxModel, by the built-in model. */
interface Network {
  device: string;
  library: { path: string; version: string };
  /** How the built-in model's batches are divided. */
  exact: Exactness;
  /** Why a CUDA device is not used. */
  fallback?: string | undefined;
}

interface Provider {
  name: string;
  bundled: boolean;
  /** Why the built-in model does not load on it. */
  reason?: string | undefined;
}

interface Runtime {
  path: string;
  version: string;
  providers: Provider[];
}

/** The model of a folder. */
interface Model {
  dir: string;
  /** [channels, height, width] */
  sampleShape: readonly number[];
  /** Its inputs and outputs with their types and sizes. */
  takes: string;
  gives: string;
  /** Whether it is what it is said to be; null where that cannot be told. */
  fits: boolean | null;
  why: string;
}

export interface DoctorOptions {
  json?: boolean;
  /** A pipeline's folder that is looked at, too. */
  model?: string;
  /** Whether its network is checked however slow it is. */
  check?: boolean;
}

/**
 * score-sde doctor: prints what is loaded from where, what works, why other things do not, and remedies. Exit code 1 if
 * `score-sde sample` cannot work: the addon does not load, or OnnxModel does not work, or the model that was named does not
 * load or is not what it is said to be.
 */
export async function doctor({ json = false, model: dir, check = false }: DoctorOptions): Promise<void> {
  if (check && dir === undefined)
    throw new ScoreSdeError('ERR_CONFIG', '--check is for the network of a folder: name it with --model');
  const tell = (topic: string, text: string) => void (json || say(`${topic.padEnd(18)}${text}`));
  const place = { node: process.version, platform: `${process.platform}-${process.arch}` };
  tell('node', `${place.node}, ${place.platform}`);

  const addon = await found(findAddon);
  if ('error' in addon) tell('addon', `does not load: ${addon.error}`);
  else tellAddon(addon, tell);
  // Without the addon nothing else can be tried.
  const network = 'error' in addon ? undefined : await found(tryNetwork);
  if (network !== undefined) tellNetwork(network, tell);
  const model = dir === undefined || 'error' in addon ? undefined : await found(() => tryModel(dir, check));
  if (model !== undefined) tellModel(dir!, model, tell);
  const runtime = 'error' in addon ? undefined : await found(() => tryRuntime(tell));

  if (runtime !== undefined && 'error' in runtime) tell('onnxruntime-node', runtime.error);
  const isRight = model === undefined || (!('error' in model) && model.fits !== false);
  const works = network !== undefined && !('error' in network) && isRight;
  if (!works) process.exitCode = 1;
  if (json)
    say(JSON.stringify({ works, ...place, addon, onnxModel: network, model, onnxruntimeNode: runtime }, null, 2));
}

type Tell = (topic: string, text: string) => void;

async function found<T>(find: () => Promise<T>): Promise<Found<T>> {
  try {
    return await find();
  } catch (error) {
    return { error: reasonOf(error) };
  }
}

async function findAddon(): Promise<Addon> {
  const { nativePath } = await import('../native/addon.js');
  const { devices, getNumThreads } = await import('../devices.js');
  return { path: nativePath(), threads: getNumThreads(), devices: devices() };
}

function tellAddon({ path, threads, devices }: Addon, tell: Tell): void {
  tell('addon', path);
  tell('threads', `${threads} (SCORE_SDE_NUM_THREADS or setNumThreads change it)`);
  for (const { device, name, available, architecture, reason } of devices)
    tell(device, available ? `works: ${name}, ${architecture}` : `not used: ${reason}`);
}

async function tryNetwork(): Promise<Network> {
  const { OnnxModel } = await import('../models/onnx/model.js');
  const { folderOf, networkOf } = await import('../sampling/pretrained.js');
  const model = await OnnxModel.load(networkOf(folderOf('digits')));
  const { library, device, fallback, exact } = model;
  await model.dispose();
  return { device, library, exact, fallback };
}

function tellNetwork(network: Found<Network>, tell: Tell): void {
  if ('error' in network) return tell('OnnxModel', `does not work: ${network.error}`);
  const { library, device, fallback, exact } = network;
  tell('OnnxModel', `works on ${device}, with ONNX Runtime ${library.version}, ${library.path}`);
  tell('  digits', `${callsText(exact)}: ${exact.why}`);
  if (fallback !== undefined) tell('  cuda', `not used: ${fallback}`);
}

function callsText({ width, atOnce }: Exactness): string {
  const each = width === 'any' ? 'batches as they are' : `up to ${width} in a call`;
  return atOnce > 1 ? `${each}, ${atOnce} calls at once` : each;
}

async function tryModel(dir: string, check: boolean): Promise<Model> {
  const { ScoreSdeVePipeline } = await import('../sampling/pipeline.js');
  const { portsText } = await import('../models/network/port.js');
  const pipeline = await ScoreSdeVePipeline.fromPretrained(dir, { device: 'cpu', check: false });
  try {
    const { scheduler, sampleShape } = pipeline;
    const model = pipeline.model as OnnxModel;
    const [takes, gives] = [model.inputs, model.outputs].map(portsText) as [string, string];
    const { sigmaMin, sigmaMax } = scheduler.config;
    const found = await model.checkKind({ sigmaRange: [sigmaMin, sigmaMax], slow: check });
    const why =
      found?.why ??
      'its kind was not checked: it is large or slow (--check calls it nevertheless), or has inputs of unknown meaning';
    return { dir, sampleShape, takes, gives, fits: found?.fits ?? null, why };
  } finally {
    await pipeline.dispose();
  }
}

function tellModel(dir: string, model: Found<Model>, tell: Tell): void {
  if ('error' in model) return tell('model', `${dir} does not load: ${model.error}`);
  tell('model', `${dir}: samples of [${model.sampleShape.join(', ')}]; takes ${model.takes}; gives ${model.gives}`);
  tell('  kind', model.why);
}

/** onnxruntime-node, and each execution provider that it lists; told one by one, as each takes a process of its own. */
async function tryRuntime(tell: Tell): Promise<Runtime> {
  const { onnxRuntime } = await import('../models/onnx/runtime.js');
  const ort: OnnxRuntime = onnxRuntime();
  const path = require.resolve('onnxruntime-node');
  const version = String(ort.env.versions.node ?? ort.env.versions.common);
  tell('onnxruntime-node', `${version}, ${path}`);
  const providers: Provider[] = [];
  for (const { name, bundled } of ort.listSupportedBackends?.() ?? [{ name: 'cpu', bundled: true }]) {
    const provider = { name, bundled, reason: await tryProvider(name) };
    tell(`  ${name}`, providerText(provider));
    providers.push(provider);
  }
  return { path, version, providers };
}

/** Why the built-in model does not load on an execution provider; undefined where it does. */
async function tryProvider(name: string): Promise<string | undefined> {
  const probe = promisify(execFile)(process.execPath, [join(__dirname, 'probe.js'), name], { timeout: 60_000 });
  const reason = await probe.then(
    ({ stdout }) => stdout.replace(/^.* was false\. /, ''), // ONNX Runtime puts the source line and the failed condition before the reason
    (error: Error & { signal?: string }) => `loading it ended the process (${error.signal ?? reasonOf(error)})`,
  );
  return reason === '' ? undefined : reason;
}

function providerText({ name, bundled, reason }: Provider): string {
  if (reason === undefined) return name === 'cpu' ? 'works' : 'works, through fromInferenceSession';
  return bundled
    ? `not there, and only sessions on it need it: ${reason}`
    : `not there, and only sessions on it need it: its library must lie beside ONNX Runtime's, of the same version (npm rebuild onnxruntime-node fetches it on Linux): ${reason}`;
}
