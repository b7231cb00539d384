import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ScoreSdeError } from '../errors';
import { isInside } from '../files';

/** What is read of a pipeline's folder; a network in the folder itself may read further files of any name. */
const usualParts = ['model_index.json', 'scheduler', 'unet', 'scheduler_config.json', 'config.json', 'model.onnx'];
const maxEntries = 10_000;

/**
 * A folder from elsewhere must not make the loader read what lies outside of it. Links may lead to the folder's own files
 * and, in Hugging Face's cache, from snapshots/REVISION to the blobs beside it.
 * @param parts What of the folder is looked at
 * @throws ScoreSdeError ERR_CONFIG: a link that leads out, what is neither file nor folder, or too many files
 */
export async function assertContained(folder: string, parts: readonly string[] = usualParts): Promise<void> {
  const root = await realpath(folder).catch(() => undefined);
  if (root === undefined) return; // there is nothing to read
  const allowed = basename(dirname(root)) === 'snapshots' ? [root, join(root, '..', '..', 'blobs')] : [root];
  const seen = new Set<string>();

  const visit = async (path: string): Promise<void> => {
    const target = await realpath(path).catch(() => undefined);
    if (target === undefined || seen.has(target)) return; // what leads nowhere reads nothing
    if (!allowed.some((place) => isInside(place, target)))
      throw new ScoreSdeError('ERR_CONFIG', `${path}: the link leads out of the model's folder; copy the file there`);
    if (seen.add(target).size > maxEntries)
      throw new ScoreSdeError('ERR_CONFIG', `${folder}: expected at most ${maxEntries} files in a model's folder`);
    const found = await stat(target);
    if (found.isDirectory()) for (const name of await readdir(target)) await visit(join(target, name));
    else if (!found.isFile()) throw new ScoreSdeError('ERR_CONFIG', `${path}: expected a file or a folder`);
  };
  try {
    for (const name of parts) await visit(join(root, name));
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).syscall === undefined) throw cause;
    throw new ScoreSdeError('ERR_IO', `cannot read ${folder}: ${(cause as Error).message}`, { cause });
  }
}
