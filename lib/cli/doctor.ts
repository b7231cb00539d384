import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { reasonOf } from '../errors';
import type { OnnxRuntime } from '../models/onnx/runtime';
import type { Exactness } from '../models/onnx/probe';

type Line = [topic: string, text: string];

/** score-sde doctor: prints what is loaded from where, what works, why other things do not, and remedies. Exit code 1 if the addon does not load. */
export async function doctor(): Promise<void> {
  const say = (lines: Line[]) => lines.forEach(([topic, text]) => process.stdout.write(`${topic.padEnd(18)}${text}\n`));
  say([['node', `${process.version}, ${process.platform}-${process.arch}`]]);
  try {
    say(await addon());
  } catch (error) {
    process.exitCode = 1;
    return say([['addon', `does not load: ${(error as Error).message}`]]);
  }
  say(await network());
  say(await runtime());
}

/** Whether OnnxModel works, by the built-in model. */
async function network(): Promise<Line[]> {
  const { OnnxModel } = await import('../models/onnx/model.js');
  const { folderOf, networkOf } = await import('../sampling/pretrained.js');
  try {
    const model = await OnnxModel.load(networkOf(folderOf('digits')));
    const { library, device, fallback, exact } = model;
    await model.dispose();
    return [
      ['OnnxModel', `works on ${device}, with ONNX Runtime ${library.version}, ${library.path}`],
      ['  digits', `${callsText(exact)}: ${exact.why}`],
      ...(fallback === undefined ? [] : [['  cuda', `not used: ${fallback}`] as Line]),
    ];
  } catch (error) {
    return [['OnnxModel', `does not work: ${reasonOf(error)}`]];
  }
}

function callsText({ width, atOnce }: Exactness): string {
  const each = width === 'any' ? 'batches as they are' : `up to ${width} in a call`;
  return atOnce > 1 ? `${each}, ${atOnce} calls at once` : each;
}

async function addon(): Promise<Line[]> {
  const { nativePath } = await import('../native/addon.js');
  const { devices, getNumThreads } = await import('../devices.js');
  return [
    ['addon', nativePath()],
    ['threads', `${getNumThreads()} (SCORE_SDE_NUM_THREADS or setNumThreads change it)`],
    ...devices().map(({ device, name, available, architecture, reason }): Line => [
      device,
      available ? `works: ${name}, ${architecture}` : `not used: ${reason}`,
    ]),
  ];
}

async function runtime(): Promise<Line[]> {
  const { onnxRuntime } = await import('../models/onnx/runtime.js');
  let ort: OnnxRuntime;
  try {
    ort = onnxRuntime();
  } catch (error) {
    return [['onnxruntime-node', (error as Error).message]];
  }
  const lines: Line[] = [
    ['onnxruntime-node', `${ort.env.versions.node ?? ort.env.versions.common}, ${require.resolve('onnxruntime-node')}`],
  ];
  for (const { name, bundled } of ort.listSupportedBackends?.() ?? [{ name: 'cpu', bundled: true }])
    lines.push([`  ${name}`, await tryProvider(name, bundled)]);
  return lines;
}

/** Whether the built-in model loads on an execution provider, and why not. */
async function tryProvider(name: string, bundled: boolean): Promise<string> {
  const probe = promisify(execFile)(process.execPath, [join(__dirname, 'probe.js'), name], { timeout: 60_000 });
  const reason = await probe.then(
    ({ stdout }) => stdout.replace(/^.* was false\. /, ''), // ONNX Runtime puts the source line and the failed condition before the reason
    (error: Error & { signal?: string }) => `loading it ended the process (${error.signal ?? reasonOf(error)})`,
  );
  if (reason === '') return name === 'cpu' ? 'works' : 'works, through fromInferenceSession';
  return bundled
    ? `does not work: ${reason}; only sessions on it need it`
    : `does not work, its library must lie beside ONNX Runtime's, of the same version (npm rebuild onnxruntime-node fetches it on Linux): ${reason}`;
}
