import { execFile, execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { removeFolders, temporaryFolder } from '../support/folders';
import { root } from '../support/paths';
import { pack, userEnvironment } from '../support/tarball';

// The tarball, installed as users install it: with a prebuilt binary, without one, without anything. Linux only; the
// binaries come from npm run prebuildify.
const prebuilds = join(root, 'prebuilds');
const binaryFor = (arch: string) => join(prebuilds, `linux-${arch}`, 'score-sde.glibc.node');
const own = binaryFor(process.arch);

const run = async (command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv) =>
  promisify(execFile)(command, args, { cwd, env, encoding: 'utf8', maxBuffer: 2 ** 26 });

/** A PATH of Node and a shell: no compiler, no CMake, no Python. */
let bare: NodeJS.ProcessEnv;
let tarball: string;
let withoutBinaries: string;

beforeAll(async () => {
  if (!existsSync(own)) throw new Error(`${own} is missing: npm run prebuildify makes it`);
  const folder = await temporaryFolder();
  for (const command of ['node', 'npm', 'sh', 'env']) {
    const place = process.env.PATH!.split(delimiter).find((path) => existsSync(join(path, command)))!;
    await symlink(join(place, command), join(folder, command));
  }
  bare = userEnvironment({ PATH: folder });
  tarball = pack(await temporaryFolder()).file;
  const copy = join(await temporaryFolder(), 'package');
  await mkdir(copy);
  execFileSync('tar', ['-xzf', tarball, '--strip-components=1', '-C', copy]);
  for (const name of readdirSync(join(copy, 'prebuilds')))
    if (name !== 'README.md') await rm(join(copy, 'prebuilds', name), { recursive: true });
  withoutBinaries = pack(await temporaryFolder(), copy).file;
});
afterAll(removeFolders);
jest.setTimeout(300_000);

/** An empty folder with the tarball installed, and onnxruntime-node beside it. */
async function install(file: string, env: NodeJS.ProcessEnv, ...flags: string[]): Promise<string> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'package.json'), '{ "name": "user", "private": true }');
  await run('npm', ['install', '--prefer-offline', '--no-audit', '--no-fund', ...flags, file], folder, env);
  await symlink(join(root, 'node_modules/onnxruntime-node'), join(folder, 'node_modules/onnxruntime-node'));
  return folder;
}

const sampled = async (folder: string, env: NodeJS.ProcessEnv): Promise<Buffer> => {
  const cli = join(folder, 'node_modules/score-sde/dist/cli/main.js');
  const args = [cli, 'sample', '--steps', '3', '--seed', '7', '--batch', '2', '--out', 'x.png'];
  await run(process.execPath, args, folder, env);
  return readFile(join(folder, 'x.png'));
};
const addonOf = async (folder: string, env: NodeJS.ProcessEnv): Promise<string> => {
  const args = [join(folder, 'node_modules/score-sde/dist/cli/main.js'), 'doctor'];
  const { stdout } = await run(process.execPath, args, folder, env);
  return /^addon +(.*)$/m.exec(stdout)![1]!.replace(/^.*node_modules\/score-sde\//, '');
};

describe('with a prebuilt binary, and no compiler', () => {
  test.each([[[]], [['--ignore-scripts']]])('npm install %j: samples digits', async (flags) => {
    const folder = await install(tarball, bare, ...flags);
    expect(await addonOf(folder, bare)).toBe(`prebuilds/linux-${process.arch}/score-sde.glibc.node`);
    const picture = await sampled(folder, bare);
    expect(picture).toEqual(await sampled(await linked(), userEnvironment()));
  });

  /** This folder's own build, as if it were installed. */
  async function linked(): Promise<string> {
    const folder = await temporaryFolder();
    await mkdir(join(folder, 'node_modules'));
    await symlink(root, join(folder, 'node_modules/score-sde'));
    return folder;
  }
});

describe('without a prebuilt binary', () => {
  test('npm install compiles one, without CUDA where there is no nvcc', async () => {
    const env = userEnvironment({ SCORE_SDE_CUDA: 'OFF' }); // as AUTO does there
    const folder = await install(withoutBinaries, env);
    expect(await addonOf(folder, env)).toBe('build/Release/score-sde.node');
    expect((await sampled(folder, env)).length).toBeGreaterThan(0);
  });

  test('and no compiler: npm install ends with one clear sentence', async () => {
    const failed = await install(withoutBinaries, bare).then(
      () => '',
      ({ stderr }: { stderr: string }) => stderr,
    );
    const said = failed.match(/score-sde: there is no prebuilt binary for \S+, and compiling one failed .*$/m);
    expect(said?.[0]).toMatch(/CMake 3\.23, a C\+\+20 compiler/);
  });

  test('and no script run: the first require ends with one clear sentence', async () => {
    const folder = await install(withoutBinaries, bare, '--ignore-scripts');
    const script = "try { require('score-sde') } catch ({ name, code, message }) { console.log(name, code, message) }";
    const { stdout } = await run(process.execPath, ['-e', script], folder, bare);
    expect(stdout).toMatch(/^ScoreSdeError ERR_NATIVE score-sde has no working binary for linux-\w+; "npm rebuild/);
    expect(stdout).toMatch(/CMake and a C\+\+20 compiler/);
    expect(stdout.trim().split('\n')).toHaveLength(1);
  });
});

test('the prebuilt binary is to the last bit the one that is compiled in another folder', async () => {
  await run('npm', ['run', 'build:native'], root, userEnvironment());
  const copy = join(await temporaryFolder(), 'stripped.node');
  await cp(join(root, 'build/Release/score-sde.node'), copy);
  execFileSync('strip', ['--strip-all', copy]);
  expect(readFileSync(copy).equals(readFileSync(own))).toBe(true);
});

const binaries = ['x64', 'arm64'].map(binaryFor).filter((file) => existsSync(file));
describe.each(binaries)('%s', (file) => {
  const lines = (command: string, ...args: string[]) =>
    execFileSync(command, [...args, file], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } }).split('\n');
  const newest = (prefix: string) =>
    lines('readelf', '-VW')
      .flatMap((line) => [...line.matchAll(new RegExp(`\\b${prefix}_([0-9.]+)`, 'g'))])
      .map((match) => match[1]!.split('.').map(Number))
      .reduce((a, b) => (a.reduce((d, v, i) => d || v - (b[i] ?? 0), 0) > 0 ? a : b));

  test('exports what Node asks for and nothing else', () => {
    const symbols = lines('readelf', '--dyn-syms', '-W')
      .map((line) => line.trim().split(/\s+/))
      .filter(([number, , , , bind, , section]) => /^\d+:/.test(number!) && bind !== 'LOCAL' && section !== 'UND')
      .map((fields) => fields[7]);
    expect(symbols.sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
  });

  test('runs where glibc is 2.34 and libstdc++ that of GCC 11, or later', () => {
    const [, glibc = 0] = newest('GLIBC');
    expect(glibc).toBeLessThanOrEqual(34);
    const [, , libstdcxx = 0] = newest('GLIBCXX');
    expect(libstdcxx).toBeLessThanOrEqual(29);
  });

  test('links the C and C++ libraries alone: no CUDA', () => {
    const needed = lines('readelf', '-dW').flatMap((line) => /\(NEEDED\).*\[(.*)\]/.exec(line)?.[1] ?? []);
    const expected = /^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt|ld-linux[-\w]*)\.so\.\d+$/;
    expect(needed.filter((name) => !expected.test(name))).toEqual([]);
  });

  test('names no folder of the machine it was made on', () => {
    const text = readFileSync(file, 'latin1');
    expect(text).not.toMatch(/\/(tmp|home|root|Users|work)\//);
  });
});
