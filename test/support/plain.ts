import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { join } from 'node:path';

// The sources, not dist/, which may be older.
const hook = `
  const { transformFileSync } = require('@swc/core');
  const options = { jsc: { parser: { syntax: 'typescript' }, target: 'es2022' }, module: { type: 'commonjs' } };
  require.extensions['.ts'] = (module, file) => module._compile(transformFileSync(file, options).code, file);
`;

/** Runs JavaScript in a node process of its own, where require('./lib') is this package: for what might end the process. */
export function runPlainly(script: string): SpawnSyncReturns<string> {
  const cwd = join(__dirname, '..', '..');
  return spawnSync(process.execPath, ['-e', hook + script], { cwd, encoding: 'utf8', timeout: 60_000 });
}
