import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DeviceInfo } from '../devices';
import { reasonOf } from '../errors';
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

/**
 * score-sde doctor: prints what is loaded from where, what works, why other things do not, and remedies. Exit code 1 if
 * `score-sde sample` cannot work: the addon does not load, or OnnxModel does not work.
 */
export async function doctor({ json = false }: { json?: boolean }): Promise<void> {
  const tell = (topic: string, text: string) => void (json || say(`${topic.padEnd(18)}${text}`));
  const place = { node: process.version, platform: `${process.platform}-${process.arch}` };
  tell('node', `${place.node}, ${place.platform}`);

  const addon = await found(findAddon);
  if ('error' in addon) tell('addon', `does not load: ${addon.error}`);
  else tellAddon(addon, tell);
  // Without the addon nothing else can be tried.
  const network = 'error' in addon ? undefined : await found(tryNetwork);
  if (network !== undefined) tellNetwork(network, tell);
  const runtime = 'error' in addon ? undefined : await found(() => tryRuntime(tell));

  if (runtime !== undefined && 'error' in runtime) tell('onnxruntime-node', runtime.error);
  const works = network !== undefined && !('error' in network);
  if (!works) process.exitCode = 1;
  if (json) say(JSON.stringify({ works, ...place, addon, onnxModel: network, onnxruntimeNode: runtime }, null, 2));
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
    ? `does not work: ${reason}; only sessions on it need it`
    : `does not work, its library must lie beside ONNX Runtime's, of the same version (npm rebuild onnxruntime-node fetches it on Linux): ${reason}`;
}
