import { Buffer } from 'node:buffer';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, type Stats } from 'node:fs';
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
import { basename, dirname, isAbsolute, join, relative, sep } from 'node:path';
import { TextDecoder } from 'node:util';
import { reasonOf, ScoreSdeError } from './errors';

/**
 * The text of a UTF-8 file without its byte order mark, or undefined where there is no such file.
 * @throws ScoreSdeError ERR_CONFIG (more than `limit` bytes, no UTF-8, a {@link standIn}), ERR_IO
 */
export async function readTextIfFile(file: string, limit: number): Promise<string | undefined> {
  const bytes = await readIfFile(file, limit);
  if (bytes === undefined) return undefined;
  const instead = standIn(bytes);
  if (instead !== undefined) throw new ScoreSdeError('ERR_CONFIG', `${file}: ${instead}`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
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

/** Bytes of a file that {@link standIn} looks at. */
const headBytes = 256;

/** What a file's first bytes show it to be that has come in place of the file itself; undefined where they show nothing. */
export function standIn(bytes: Uint8Array): string | undefined {
  const head = Buffer.from(bytes.subarray(0, headBytes)).toString('utf8');
  if (head.startsWith('version https://git-lfs.github.com/'))
    return 'this is a git-lfs pointer, not the file itself: "git lfs pull" fetches that';
  if (/^\ufeff?\s*<[!?a-z]/i.test(head)) return 'this is a page of HTML or XML, as a failed download leaves it';
  return undefined;
}

/** The first bytes of a file, as many as {@link standIn} looks at. ERR_IO. */
export async function readHead(file: string): Promise<Uint8Array> {
  try {
    const handle = await open(file, 'r');
    try {
      const { buffer, bytesRead } = await handle.read(new Uint8Array(headBytes), 0, headBytes, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await handle.close();
    }
  } catch (cause) {
    throw unreadable(file, cause);
  }
}

/** Whether a path is that of a folder. ERR_IO where the system does not answer. */
export async function isFolder(path: string): Promise<boolean> {
  return (await statIfThere(path))?.isDirectory() ?? false;
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

/**
 * Where the system finds a file or folder that Electron's archive (app.asar) lists. What is unpacked lies in app.asar.unpacked;
 * Electron's own `fs` goes there by itself, ONNX Runtime and the loader of libraries do not. Other paths stay.
 */
export function unpacked(path: string): string {
  const beside = path.replace(/\.asar(?=[\\/])/, '.asar.unpacked');
  return beside !== path && existsSync(beside) ? beside : path;
}

/** Whether a bundler has put this code elsewhere: then this package's folder is not around it. */
export function isInlined(): boolean {
  try {
    const { name } = JSON.parse(readFileSync(join(__dirname, '..', 'package.json'), 'utf8')) as { name?: unknown };
    return name !== 'score-sde';
  } catch {
    return true;
  }
}

/** Whether a path is a folder, or within it. */
export function isInside(folder: string, path: string): boolean {
  const way = relative(folder, path);
  // On Windows the way to another drive is that drive's path.
  return way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way);
}
