import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { ScoreSdeError } from '../../errors';
import { show } from '../../options';

/** Where ONNX Runtime's shared library is to be had. */
export interface LibraryPlace {
  /** Empty where none is found: one that the process has loaded may still do. */
  readonly path: string;
  /** Whether one that is loaded already comes first. */
  readonly shared: boolean;
}

/** The library's file name, by platform. */
const names: Record<string, RegExp> = {
  linux: /^libonnxruntime\.so\.1(\.|$)/,
  darwin: /^libonnxruntime\.1\..*dylib$/,
  win32: /^onnxruntime\.dll$/,
};

/**
 * The library to run networks in: the one that is named, by `libraryPath` or by the environment variable
 * SCORE_SDE_ONNXRUNTIME, else that of onnxruntime-node as the application, then as this package sees it. ERR_CONFIG.
 */
export function findLibrary(libraryPath?: string): LibraryPlace {
  if (libraryPath !== undefined && (typeof libraryPath !== 'string' || libraryPath === ''))
    throw new ScoreSdeError('ERR_CONFIG', `libraryPath must be the path of a library, got ${show(libraryPath)}`);
  const named = libraryPath ?? process.env.SCORE_SDE_ONNXRUNTIME;
  if (named) return { path: resolve(named), shared: false };
  const application = process.argv[1] === undefined ? process.cwd() : dirname(process.argv[1]);
  for (const from of [application, __dirname]) {
    const path = libraryOf(from);
    if (path !== undefined) return { path, shared: true };
  }
  return { path: '', shared: true };
}

/** The library in the onnxruntime-node that is found from a folder. */
function libraryOf(from: string): string | undefined {
  try {
    const bin = join(dirname(require.resolve('onnxruntime-node/package.json', { paths: [from] })), 'bin');
    // One folder for a version of Node-API: napi-v6.
    const numberOf = (name: string) => Number(name.replace('napi-v', ''));
    for (const api of readdirSync(bin).sort((a, b) => numberOf(b) - numberOf(a))) {
      const folder = join(bin, api, process.platform, process.arch);
      const file = existsSync(folder) && readdirSync(folder).find((name) => names[process.platform]?.test(name));
      if (file) return join(folder, file);
    }
  } catch {
    // Not installed, or not for this platform.
  }
  return undefined;
}
