import { copyFile, cp, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { nativePath } from '../../lib/native/addon';
import { temporaryFolder } from './folders';
import { root } from './paths';

/** Where node-gyp-build looks for a binary of this platform. */
export const prebuild = `prebuilds/${process.platform}-${process.arch}/score-sde.node`;

/** Whether a path of onnxruntime-node is of a binary for another platform. */
const isOther = (path: string) => {
  const [, platform, arch = process.arch] = /[\\/]bin[\\/]napi-v\d+[\\/](\w+)(?:[\\/](\w+))?/.exec(path) ?? [];
  return platform !== undefined && (platform !== process.platform || arch !== process.arch);
};

/** The folder of an application that has this package, as published, and what it needs as files of its own. */
export async function project({ onnxruntime = true } = {}): Promise<string> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'package.json'), '{ "name": "application", "private": true }');
  const modules = join(folder, 'node_modules');
  const own = join(modules, 'score-sde');
  await mkdir(dirname(join(own, prebuild)), { recursive: true });
  await copyFile(nativePath(), join(own, prebuild));
  for (const name of ['dist', 'models', 'package.json'])
    await cp(join(root, name), join(own, name), { recursive: true });
  const needed = ['node-gyp-build', 'pngjs', 'lossless-json'];
  for (const name of onnxruntime ? [...needed, 'onnxruntime-node', 'onnxruntime-common'] : needed) {
    const filter = (path: string) => !isOther(path);
    await cp(join(root, 'node_modules', name), join(modules, name), { recursive: true, filter });
  }
  return folder;
}
