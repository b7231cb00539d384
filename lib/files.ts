import { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import {
  access,
  constants,
  mkdir,
  open,
  readFile,
  realpath,
  rename,
  rm,
  stat,
  type FileHandle,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TextDecoder } from 'node:util';
import { reasonOf, ScoreSdeError } from './errors';

/** The text of a UTF-8 file, or undefined where there is no such file. ERR_CONFIG (more than `limit` bytes, no UTF-8), ERR_IO. */
export async function readTextIfFile(file: string, limit: number): Promise<string | undefined> {
  const bytes = await readIfFile(file, limit);
  if (bytes === undefined) return undefined;
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_ENCODING_INVALID_ENCODED_DATA') throw cause;
    throw new ScoreSdeError('ERR_CONFIG', `${file}: not valid UTF-8`, { cause });
  }
}

async function readIfFile(file: string, limit: number): Promise<Buffer | undefined> {
  const stats = await statIfThere(file);
  if (!stats?.isFile()) return undefined;
  if (stats.size > limit) throw new ScoreSdeError('ERR_CONFIG', `${file}: expected at most ${limit} bytes`);
  return readFile(file).catch((cause) => {
    throw unreadable(file, cause);
  });
}

/** Whether a path is that of a file. ERR_IO where the system does not answer. */
export async function isFile(file: string): Promise<boolean> {
  return (await statIfThere(file))?.isFile() ?? false;
}

async function statIfThere(file: string): Promise<Stats | undefined> {
  try {
    return await stat(file);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw unreadable(file, cause);
  }
}

function unreadable(file: string, cause: unknown): ScoreSdeError {
  return new ScoreSdeError('ERR_IO', `cannot read ${file}: ${reasonOf(cause)}`, { cause });
}

/** Writes a file atomically, and makes its folder. The target of a symbolic link is replaced, not the link. ERR_IO. */
export async function writeWhole(path: string, data: string | Uint8Array): Promise<void> {
  const file = await realpath(path).catch(() => path);
  // In the same folder: a rename is atomic only within one file system.
  const temporary = join(dirname(file), `.${basename(file)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    await mkdir(dirname(file), { recursive: true });
    const mode = (await stat(file).catch(() => undefined))?.mode;
    const handle = await open(temporary, 'wx', mode);
    try {
      // open() takes the umask from the mode.
      if (mode !== undefined) await handle.chmod(mode).catch(() => {});
      await handle.writeFile(data);
      await sync(handle);
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => {});
    throw new ScoreSdeError('ERR_IO', `cannot write ${file}: ${reasonOf(cause)}`, { cause });
  }
}

/** Yarn's Plug'n'Play has a file system of its own, whose files have no sync: they are written whole by the rename alone. */
async function sync(handle: FileHandle): Promise<void> {
  try {
    await handle.sync();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).syscall !== undefined) throw cause;
  }
}

/** ERR_IO unless the file can be written: asked before long work whose result goes there. */
export async function assertWritable(file: string): Promise<void> {
  const fail = (reason: string) => new ScoreSdeError('ERR_IO', `cannot write ${file}: ${reason}`);
  if ((await stat(file).catch(() => undefined))?.isDirectory()) throw fail('it is a folder');
  for (let folder = dirname(file); ; folder = dirname(folder)) {
    const found = await stat(folder).catch(() => undefined);
    if (found === undefined && folder !== dirname(folder)) continue; // writeWhole makes it
    if (!found?.isDirectory()) throw fail(`${folder} is no folder`);
    await access(folder, constants.W_OK).catch(() => {
      throw fail(`the folder ${folder} is not writable`);
    });
    return;
  }
}
