import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { unpacked } from '../../files';

/** The place of ONNX Runtime's shared library. */
export interface LibraryPlace {
  /** Empty where none is found: the process may have loaded one. */
  readonly path: string;
  /** Whether a library that the process has loaded is used in its place. */
  readonly shared: boolean;
}

/** The library's file name, by platform. */
const names: Record<string, RegExp> = {
  linux: /^libonnxruntime\.so\.1(\.|$)/,
  darwin: /^libonnxruntime\.1\..*dylib$/,
  win32: /^onnxruntime\.dll$/,
};

/**
 * ONNX Runtime's library: `libraryPath`, else SCORE_SDE_ONNXRUNTIME from the environment, else that of the onnxruntime-node
 * that the application would load, else of the one that this package would load.
 */
export function findLibrary(libraryPath?: string): LibraryPlace {
  const named = libraryPath === undefined ? process.env.SCORE_SDE_ONNXRUNTIME : libraryPath;
  if (named) return { path: unpacked(resolve(named)), shared: false };
  const application = process.argv[1] === undefined ? process.cwd() : dirname(process.argv[1]);
  for (const from of [application, __dirname]) {
    const path = libraryOf(from);
    if (path !== undefined) return { path, shared: true };
  }
  return { path: '', shared: true };
}

/** The library in the onnxruntime-node that a module in `from` would load. */
function libraryOf(from: string): string | undefined {
  try {
    // The literal name of the main file: tools that trace files (@vercel/nft) then copy the libraries, too; bundlers copy nothing.
    const bin = join(dirname(require.resolve('onnxruntime-node', { paths: [from] })), '..', 'bin');
    return libraryIn(unpacked(bin)) ?? libraryIn(bin);
  } catch {
    return undefined; // not installed, or not for this platform
  }
}

function libraryIn(bin: string): string | undefined {
  // One folder a version of Node-API, as napi-v6; the newest first.
  const numberOf = (name: string) => Number(name.replace('napi-v', ''));
  for (const api of readdirSync(bin).sort((a, b) => numberOf(b) - numberOf(a))) {
    const folder = join(bin, api, process.platform, process.arch);
    const file = existsSync(folder) && readdirSync(folder).find((name) => names[process.platform]?.test(name));
    if (file) return unpacked(join(folder, file));
  }
  return undefined;
}
