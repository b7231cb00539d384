import { realpathSync } from 'node:fs';
import { join } from 'node:path';
import { shared } from '../copies';
import { reasonOf, ScoreSdeError, type ErrorCode } from '../errors';
import { isInlined, unpacked } from '../files';
import { inlinedError } from '../package';
import type { Native } from './abi';

const root = join(__dirname, '..', '..');

/** Whether Node's permission model denies this process to read a path. */
function isDenied(path: string): boolean {
  // @types/node has it from Node.js 22 on.
  const { permission } = process as { permission?: { has(scope: string, reference: string): boolean } };
  return permission !== undefined && !permission.has('fs.read', path);
}

const denied = (why: string, cause?: unknown) =>
  new ScoreSdeError('ERR_NATIVE', `score-sde cannot load its addon: ${why}`, { cause });
const deniedPath = (path: string) =>
  `reading ${path} is denied to this process; node --allow-fs-read=${path} allows it`;

// node-gyp-build asks for the C library by this file when it is loaded, and does not expect a refusal.
const ofLibrary = '/etc/alpine-release';
if (process.platform === 'linux' && !process.env.LIBC && isDenied(ofLibrary)) throw denied(deniedPath(ofLibrary));
// The package ships no types, and a bundler must not follow it: it looks for binaries at run time.
// eslint-disable-next-line @typescript-eslint/no-require-imports
const nodeGypBuild = require('node-gyp-build') as ((dir: string) => Native) & { resolve(dir: string): string };

/** The folder that holds the addon: in an archive of Electron the unpacked one, if it is there. */
function folder(): string {
  const beside = unpacked(root);
  try {
    if (beside !== root) nodeGypBuild.resolve(beside);
    return beside;
  } catch {
    return root; // other files alone are unpacked
  }
}

/** The file that the addon is loaded from. */
export function nativePath(): string {
  return nodeGypBuild.resolve(folder());
}

/** Why Node's permission model keeps the addon from being loaded, and what allows it; undefined where it does not. */
function deniedBy(cause: unknown): string | undefined {
  if ((cause as NodeJS.ErrnoException).code === 'ERR_DLOPEN_DISABLED')
    return 'addons are denied to this process; node --allow-addons allows them (and neither --no-addons nor its like may stand beside it)';
  return isDenied(root) ? deniedPath(root) : undefined;
}

/**
 * What compiles the addon of this copy of the package, where `npx score-sde` need not be this copy: where it is another's dependency,
 * or Yarn keeps it in a folder of its own.
 */
function ownBuild(): string {
  try {
    if (realpathSync(join('node_modules', 'score-sde')) === realpathSync(root)) return '';
  } catch {
    // The working folder has no such package.
  }
  const node = process.versions.pnp === undefined ? 'node' : 'yarn node';
  return `, "${node} ${join(root, 'dist', 'cli', 'main.js')} build" one for this copy of the package`;
}

function load(): Native {
  try {
    const place = folder();
    // Tools that trace files (@vercel/nft) find the binary by such a call with a path from __dirname.
    return place === root ? nodeGypBuild(root) : nodeGypBuild(place);
  } catch (cause) {
    const why = deniedBy(cause);
    if (why !== undefined) throw denied(why, cause);
    if (isInlined()) throw inlinedError(cause);
    throw new ScoreSdeError(
      'ERR_NATIVE',
      `score-sde has no working binary for ${process.platform}-${process.arch}; ` +
        `"npx score-sde build" compiles one where CMake and a C++20 compiler are found${ownBuild()} (${reasonOf(cause)})`,
      { cause },
    );
  }
}

/** The addon's errors carry a code; they become errors of this package (and of this realm). */
function translate(error: unknown): unknown {
  const { code, message } = error as { code?: ErrorCode | undefined; message: string };
  return code === undefined ? error : new ScoreSdeError(code, message);
}

/** The addon passes over what it cannot use; a word about it belongs where the user sees it. */
function warnOfThreads(text: string | undefined): void {
  const wanted = Number(text);
  if (!text?.trim() || (/^\d+$/.test(text) && wanted >= 1 && wanted <= 1024)) return;
  process.emitWarning(
    `SCORE_SDE_NUM_THREADS must be an integer from 1 to 1024, got ${JSON.stringify(text)}: it is passed over`,
    'ScoreSdeWarning',
  );
}

type AnyFunction = (...args: unknown[]) => unknown;

function guard(call: AnyFunction, isAsync: boolean): AnyFunction {
  if (isAsync)
    return async (...args) => {
      try {
        return await call(...args);
      } catch (error) {
        throw translate(error);
      }
    };
  return (...args) => {
    try {
      return call(...args);
    } catch (error) {
      throw translate(error);
    }
  };
}

warnOfThreads(process.env.SCORE_SDE_NUM_THREADS);

/** The addon as this thread has loaded it. Copies of the package may have the same. */
export const addon = load();
addon.sharePools(shared('pools.1', () => addon.sharePools()));

export const native = Object.fromEntries(
  Object.entries(addon).map(([name, call]) => [name, guard(call as AnyFunction, name.endsWith('Async'))]),
) as unknown as Native;
