import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { scoreGraph } from './onnx';

const folders: string[] = [];

export async function temporaryFolder(): Promise<string> {
  folders.push(await mkdtemp(join(tmpdir(), 'score-sde-')));
  return folders.at(-1)!;
}

export const removeFolders = () => Promise.all(folders.splice(0).map((path) => rm(path, { recursive: true })));

/** What cannot be read: root may read any file, but nobody a link to itself. */
export const unreadable = Symbol('unreadable');
/** A folder where a file should be. */
export const aFolder = Symbol('a folder');

/** What to write to a file: text, bytes, or an object as JSON. undefined: no such file. */
export type Content = string | Uint8Array | object | typeof unreadable | typeof aFolder | undefined;

/** A pipeline's folder as diffusers saves it: of a network for 1x2x2 states, and a schedule of 4 steps up to sigma 5. */
const usual: Record<string, () => Content> = {
  'model_index.json': () => ({
    _class_name: 'ScoreSdeVePipeline',
    _diffusers_version: '0.23.0',
    scheduler: ['diffusers', 'ScoreSdeVeScheduler'],
    unet: ['diffusers', 'UNet2DModel'],
  }),
  'scheduler/scheduler_config.json': () => ({
    _class_name: 'ScoreSdeVeScheduler',
    num_train_timesteps: 4,
    sigma_max: 5,
  }),
  'unet/model.onnx': () => scoreGraph(),
  'unet/config.json': () => undefined,
};

/** Makes such a folder, with these files in place of its own. */
export async function pipelineFolder(files: Record<string, Content> = {}, name = ''): Promise<string> {
  const folder = join(await temporaryFolder(), name);
  const own = Object.keys(usual).filter((path) => !(path in files));
  const contents = { ...files, ...Object.fromEntries(own.map((path) => [path, usual[path]!()])) };
  for (const [path, content] of Object.entries(contents)) {
    const file = join(folder, path);
    await mkdir(dirname(file), { recursive: true });
    if (content === undefined) continue;
    if (content === unreadable) await symlink(basename(file), file);
    else if (content === aFolder) await mkdir(file);
    else if (typeof content === 'string' || content instanceof Uint8Array) await writeFile(file, content);
    else await writeFile(file, JSON.stringify(content));
  }
  return folder;
}
