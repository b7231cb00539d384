import { execFile, spawn, type ExecFileException } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

const root = join(__dirname, '..', '..');

/** What JavaScript prints in a node process of its own, where `sde` is this package, in its worker threads, too. */
export async function run(script: string, environment: NodeJS.ProcessEnv = {}): Promise<string> {
  return (await outputs(script, environment)).stdout.trim();
}

/** As run, with what it says on stderr. Fails where the process does. */
export async function outputs(script: string, environment: NodeJS.ProcessEnv = {}, timeout = 60_000) {
  const env = { ...process.env, ...environment };
  const ended = promisify(execFile)(process.execPath, ['-e', sourceOf(script)], { env, timeout, cwd: root });
  return ended.catch((error: ExecFileException & { stderr: string }) => {
    throw new Error(`code ${error.code}, signal ${error.signal}: ${error.stderr}`);
  });
}

/** Such a process that goes on: `say(value)` there is heard by next() here, and its `released` is resolved by end(). */
export function start(script: string) {
  const talk = `
    const say = (value) => process.send(value);
    const released = new Promise((resolve) => process.once('message', resolve));
    released.then(() => process.disconnect());`;
  const child = spawn(process.execPath, ['-e', sourceOf(talk + script)], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const exit = new Promise<number | null>((resolve) => child.once('exit', resolve));
  return {
    next: () =>
      new Promise<unknown>((resolve, reject) => {
        child.once('message', resolve);
        void exit.then((code) => reject(new Error(`the process ended with ${code}`)));
      }),
    end: async () => {
      child.send('go');
      return exit;
    },
  };
}

function sourceOf(script: string): string {
  return `
    const { Worker, isMainThread, parentPort } = require('node:worker_threads');
    const sde = require(${JSON.stringify(root)});
    const source = ${JSON.stringify(`const { parentPort } = require('node:worker_threads');`)};
    const inWorker = (body) => new Worker(
      source + 'const sde = require(${JSON.stringify(root)});(' + body + ')()', { eval: true });
    (async () => { ${script} })();`;
}
