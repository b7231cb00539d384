import { execFile } from 'node:child_process';
import { copyFile, cp, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { nativePath } from '../lib/native/addon';
import { removeFolders, temporaryFolder } from './support/folders';
import { root } from './support/paths';

// Several copies of the package in one process: two folders, as npm installs two dependants' own, or one folder loaded anew.

/** A folder of the package, with files of its own. */
async function copyOfPackage(): Promise<string> {
  const folder = await temporaryFolder();
  await cp(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
  await copyFile(join(root, 'package.json'), join(folder, 'package.json'));
  await mkdir(join(folder, 'build/Release'), { recursive: true });
  await copyFile(nativePath(), join(folder, 'build/Release/score-sde.node'));
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'));
  return folder;
}

let folders: string[];
beforeAll(async () => {
  folders = [await copyOfPackage(), await copyOfPackage()];
});
afterAll(removeFolders);

/** What a script prints, as JSON, in a process of its own with the copies `one` and `two`. */
async function outputOf(kind: string, script: string): Promise<unknown> {
  const [first, second] = kind === 'two folders' ? folders : [folders[0], folders[0]];
  const source = `
    const threads = require('node:worker_threads');
    let encoders = 0;
    threads.Worker = class extends threads.Worker {
      constructor(...args) { super(...args); encoders += Number(args[1].name === 'score-sde png'); }
    };
    const one = require(${JSON.stringify(first)});
    for (const file of Object.keys(require.cache)) if (!file.endsWith('.node')) delete require.cache[file];
    const two = require(${JSON.stringify(second)});
    if (one.Tensor === two.Tensor) throw new Error('one copy');
    (async () => console.log(JSON.stringify(await (async () => {${script}})())))();`;
  const { stdout } = await promisify(execFile)(process.execPath, ['-e', source], { cwd: folders[0]! });
  return JSON.parse(stdout);
}

describe.each(['two folders', 'one folder twice'])('copies from %s', (kind) => {
  test('calls on the same memory keep the order in which they were made, and ERR_BUSY stands', async () => {
    const script = `
      const out = one.Tensor.empty([2 ** 20]);
      const same = [];
      for (let k = 0; k < 4; k++) {
        const [slow, quick] = k % 2 ? [two, one] : [one, two];
        const first = new slow.Generator(1, { engine: 'torch' }).randnAsync(out.dims, { out });
        let code;
        try { new quick.Generator(2).randn(out.dims, { out }); } catch (error) { code = error.code; }
        const last = new quick.Generator(3).randnAsync(out.dims, { out });
        await Promise.all([first, last]);
        const expected = new quick.Generator(3).randn(out.dims);
        same.push(Buffer.compare(Buffer.from(out.data.buffer), Buffer.from(expected.data.buffer)) === 0, code);
      }
      return same;`;
    expect(await outputOf(kind, script)).toEqual(Array.from({ length: 8 }, (_, k) => (k % 2 ? 'ERR_BUSY' : true)));
  });

  test('the threads are those of the first', async () => {
    const script = `
      const isLinux = process.platform === 'linux'; // elsewhere the threads are not counted
      const count = () => (isLinux ? require('node:fs').readdirSync('/proc/self/task').length : 0);
      one.setNumThreads(3);
      const work = async (copy) => {
        const x = copy.Tensor.zeros([2 ** 22]);
        await Promise.all([1, 2, 3, 4].map((seed) => new copy.Generator(seed).randnAsync(x.dims)));
        new copy.Generator(1).randn(x.dims);
        return count();
      };
      const before = count();
      const [first, second] = [await work(one), await work(two)];
      two.setNumThreads(2);
      const inWorker = new threads.Worker(
        'const { parentPort, workerData } = require("node:worker_threads");' +
          'parentPort.postMessage(require(workerData).getNumThreads())',
        { eval: true, workerData: ${JSON.stringify(folders[1])} },
      );
      const said = await new Promise((resolve) => inWorker.once('message', resolve));
      return [first > before || !isLinux, second - first, one.getNumThreads(), said];`;
    expect(await outputOf(kind, script)).toEqual([true, 0, 2, 2]);
  });

  test('one thread encodes pictures', async () => {
    const script = `
      const images = one.Tensor.zeros([4, 1, 8, 8]);
      const [a, b] = await Promise.all([one.toPng(images), two.toPng(images)]);
      return [encoders, a.equals(b), a.length > 50];`;
    expect(await outputOf(kind, script)).toEqual([1, true, true]);
  });
});
