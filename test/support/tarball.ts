import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { root } from './paths';

export interface Tarball {
  file: string;
  /** Bytes, packed and unpacked. */
  size: number;
  unpackedSize: number;
  files: { path: string; size: number }[];
}

// npm_config_* and NODE_OPTIONS of what runs the tests are not what a user's shell has. No colours, which some programs
// otherwise write wherever CI is set.
export const userEnvironment = (more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^(npm_(?!config_(registry|cache))|NODE_OPTIONS|NODE_PATH|FORCE_COLOR)/i.test(name),
    ),
  ),
  NO_COLOR: '1',
  ...more,
});

/** Packs the package as it is published, from dist/ and prebuilds/ as they are. */
export function pack(folder: string, from = root): Tarball {
  const args = ['pack', '--ignore-scripts', '--json', '--pack-destination', folder];
  const output = execFileSync('npm', args, { cwd: from, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const parsed = JSON.parse(output) as Record<string, Tarball & { filename: string }>;
  const [packed] = Object.values(parsed); // an array, or an object by name, as npm's version has it
  return { ...packed!, file: join(folder, packed!.filename) };
}
