import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from './paths';

/** The command that users run is the compiled one. */
export const main = join(root, 'dist', 'cli', 'main.js');

export interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Starts score-sde in a folder, with more of the environment, and with arguments for node. */
export function start(args: string[], cwd: string, env: NodeJS.ProcessEnv = {}, nodeArgs: string[] = []) {
  // What jest is told is not the command's business.
  const { NODE_OPTIONS: _, ...inherited } = process.env;
  const child = spawn(process.execPath, [...nodeArgs, main, ...args], { cwd, env: { ...inherited, ...env } });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data: Buffer) => (stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (stderr += data.toString()));
  const ended = new Promise<Ended>((resolve) =>
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr })),
  );
  return { child, ended, stderr: () => stderr };
}

export const run = (args: string[], cwd: string, env?: NodeJS.ProcessEnv) => start(args, cwd, env).ended;

/** Runs score-sde, which gets the signal after the fifth step. */
export const interrupted = (signal: NodeJS.Signals, args: string[], cwd: string) =>
  start(args, cwd, { TEST_SIGNAL: signal }, ['--require', join(__dirname, 'interrupting.js')]).ended;

/** Runs `score-sde sample`, which must succeed with one line and without a word on stderr. */
export async function sample(args: string[], cwd: string): Promise<string> {
  const { stdout, ...ended } = await run(['sample', ...args], cwd);
  expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
  expect(stdout).toMatch(/^[^\n]+\n$/);
  return stdout.trimEnd();
}
