import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { root } from './paths';

/**
 * Compiles programs of CMakeLists.txt, beside the addon of the build folder, whose objects they share; gives their
 * folder.
 */
export function compile(folder: string, targets: Iterable<string>, ...options: string[]): string {
  const out = join(root, 'build', folder);
  const cmakeJs = (...args: string[]) =>
    execFileSync(process.execPath, [require.resolve('cmake-js/bin/cmake-js'), ...args], { cwd: root, stdio: 'pipe' });
  for (const target of targets) cmakeJs('compile', '--out', out, '--target', target, ...options);
  return out;
}
