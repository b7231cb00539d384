import { join } from 'node:path';
import { reasonOf, ScoreSdeError, type ErrorCode } from '../errors';
import type { Native } from './abi';

const root = join(__dirname, '..', '..');
// The package ships no types, and a bundler must not follow it: it looks for binaries at run time.
// eslint-disable-next-line @typescript-eslint/no-require-imports
const nodeGypBuild = require('node-gyp-build') as ((dir: string) => Native) & { resolve(dir: string): string };

/** The file that the addon is loaded from. */
export function nativePath(): string {
  return nodeGypBuild.resolve(root);
}

function load(): Native {
  try {
    return nodeGypBuild(root);
  } catch (cause) {
    throw new ScoreSdeError(
      'ERR_NATIVE',
      `score-sde has no working binary for ${process.platform}-${process.arch}; ` +
        `"npm rebuild score-sde" compiles one where CMake and a C++20 compiler are found (${reasonOf(cause)})`,
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

export const native = Object.fromEntries(
  Object.entries(load()).map(([name, call]) => [name, guard(call as AnyFunction, name.endsWith('Async'))]),
) as unknown as Native;
