import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { chmod, cp, mkdir, readdir, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { removeFolders, temporaryFolder } from '../support/folders';
import { root } from '../support/paths';
import { pack, userEnvironment, type Tarball } from '../support/tarball';
import { until } from '../support/until';

// The tarball, installed as users install it: with a prebuilt binary, without one, without a compiler. Linux only; the
// binaries come from npm run prebuildify.
const prebuilds = join(root, 'prebuilds');
const binaryFor = (arch: string) => join(prebuilds, `linux-${arch}`, 'score-sde.glibc.node');
const own = binaryFor(process.arch);

const run = async (command: string, args: string[], cwd: string, env: NodeJS.ProcessEnv) =>
  promisify(execFile)(command, args, { cwd, env, encoding: 'utf8', maxBuffer: 2 ** 26 });

/** A folder for PATH with these commands and no others. */
async function folderWith(...commands: string[]): Promise<string> {
  const folder = await temporaryFolder();
  for (const command of commands) {
    const place = process.env.PATH!.split(delimiter).find((path) => existsSync(join(path, command)))!;
    await symlink(join(place, command), join(folder, command));
  }
  return folder;
}

const needed = ['node', 'sh', 'env'];
/** An environment of Node, npm and a shell: no compiler, no CMake, no Python. */
let bare: NodeJS.ProcessEnv;
let tarball: Tarball;
let withoutBinaries: Tarball;

beforeAll(async () => {
  if (!existsSync(own)) throw new Error(`${own} is missing: npm run prebuildify makes it`);
  bare = userEnvironment({ PATH: await folderWith(...needed, 'npm', 'npx') });
  tarball = pack(await temporaryFolder());
  const copy = join(await temporaryFolder(), 'package');
  await mkdir(copy);
  execFileSync('tar', ['-xzf', tarball.file, '--strip-components=1', '-C', copy]);
  for (const name of readdirSync(join(copy, 'prebuilds')))
    if (name !== 'README.md') await rm(join(copy, 'prebuilds', name), { recursive: true });
  withoutBinaries = pack(await temporaryFolder(), copy);
});
afterAll(removeFolders);
jest.setTimeout(300_000);

interface Installed {
  folder: string;
  /** What npm wrote. */
  said: string;
}

/** An empty folder with the tarball installed, and onnxruntime-node beside it. */
async function install({ file }: Tarball, env: NodeJS.ProcessEnv, ...flags: string[]): Promise<Installed> {
  const folder = await temporaryFolder();
  await writeFile(join(folder, 'package.json'), '{ "name": "user", "private": true }');
  const args = ['install', '--prefer-offline', '--no-audit', '--no-fund', ...flags, file];
  const { stdout, stderr } = await run('npm', args, folder, env);
  await symlink(join(root, 'node_modules/onnxruntime-node'), join(folder, 'node_modules/onnxruntime-node'));
  return { folder, said: stdout + stderr };
}

const command = (folder: string, env: NodeJS.ProcessEnv, ...args: string[]) =>
  run(process.execPath, [join(folder, 'node_modules/score-sde/dist/cli/main.js'), ...args], folder, env);
const sampled = async (folder: string, env: NodeJS.ProcessEnv): Promise<Buffer> => {
  await command(folder, env, 'sample', '--steps', '3', '--seed', '7', '--batch', '2', '--out', 'x.png');
  return readFile(join(folder, 'x.png'));
};
const addonOf = async (folder: string, env: NodeJS.ProcessEnv): Promise<string> => {
  const { stdout } = await command(folder, env, 'doctor');
  return /^addon +(.*)$/m.exec(stdout)![1]!.replace(/^.*node_modules\/score-sde\//, '');
};

describe('with a prebuilt binary, and no compiler', () => {
  test.each([[[]], [['--ignore-scripts']]])('npm install %j: samples digits', async (flags) => {
    const { folder, said } = await install(tarball, bare, ...flags);
    expect(said).not.toMatch(/script/i);
    expect(await addonOf(folder, bare)).toBe(`prebuilds/linux-${process.arch}/score-sde.glibc.node`);
    const picture = await sampled(folder, bare);
    expect(picture).toEqual(await sampled(await linked(), userEnvironment()));
  });

  test('npm install brings at most 12 packages', async () => {
    const { folder } = await install(tarball, bare);
    const lock = await readFile(join(folder, 'node_modules/.package-lock.json'), 'utf8');
    const { packages } = JSON.parse(lock) as { packages: object };
    expect(Object.keys(packages)).toContain('node_modules/score-sde');
    expect(Object.keys(packages).length).toBeLessThanOrEqual(12);
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
  let folder: string;
  beforeAll(async () => void ({ folder } = await install(withoutBinaries, bare)));

  test('the first require ends with one sentence that says what to run', async () => {
    const script = "try { require('score-sde') } catch ({ name, code, message }) { console.log(name, code, message) }";
    const { stdout } = await run(process.execPath, ['-e', script], folder, bare);
    expect(stdout).toMatch(
      /^ScoreSdeError ERR_NATIVE score-sde has no working binary for linux-\w+; "npx score-sde build" /,
    );
    expect(stdout).toMatch(/CMake and a C\+\+20 compiler/);
    expect(stdout.trim().split('\n')).toHaveLength(1);
  });

  test('of a copy that the working folder does not hold itself, the sentence says what compiles that one', async () => {
    const elsewhere = await temporaryFolder();
    const own = join(folder, 'node_modules/score-sde');
    const script = `try { require(${JSON.stringify(own)}) } catch ({ message }) { console.log(message) }`;
    const { stdout } = await run(process.execPath, ['-e', script], elsewhere, bare);
    expect(stdout).toContain('"npx score-sde build" compiles one where CMake and a C++20 compiler are found, ');
    const [, file] = /"node (\S+) build" one for this copy of the package \(/.exec(stdout)!;
    expect(file).toBe(join(await realpath(own), 'dist/cli/main.js'));
  });

  test('--help and --version need none', async () => {
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
    expect((await command(folder, bare, '--version')).stdout).toBe(`${version}\n`);
    expect((await command(folder, bare, '--help')).stdout).toContain('compile the addon');
    expect((await command(folder, bare, 'build', '--help')).stdout).toContain('CMake 3.23');
  });

  /** What `score-sde build` writes to standard error where it fails. */
  const failure = async (env: NodeJS.ProcessEnv): Promise<string> => {
    const failed: unknown = await command(folder, env, 'build').catch((error: unknown) => error);
    expect(failed).toMatchObject({ code: 1 });
    expect(existsSync(join(folder, 'node_modules/score-sde/build/Release'))).toBe(false);
    return (failed as { stderr: string }).stderr;
  };

  test('score-sde build without compilers says in one sentence what is missing', async () => {
    expect(await failure(bare)).toBe(
      'score-sde: to compile the addon, install what is missing: ' +
        'CMake 3.23 or later; a C++20 compiler, g++ or clang++; make or ninja (ERR_NATIVE)\n',
    );
    const PATH = await folderWith(...needed, 'npm', 'g++', 'make');
    await writeFile(join(PATH, 'cmake'), '#!/bin/sh\necho cmake version 3.18.4\n');
    await chmod(join(PATH, 'cmake'), 0o755);
    expect(await failure(userEnvironment({ PATH }))).toBe(
      'score-sde: to compile the addon, install what is missing: CMake 3.23 or later, not 3.18 (ERR_NATIVE)\n',
    );
  });

  /** A folder for PATH with these scripts of a shell, too. */
  const scripted = async (scripts: Record<string, string>, ...commands: string[]): Promise<string> => {
    const path = await folderWith(...needed, ...commands);
    for (const [name, script] of Object.entries(scripts))
      await writeFile(join(path, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
    return path;
  };

  test('score-sde build takes no program that only says what to install', async () => {
    const shim = 'echo install the command line tools >&2; exit 1';
    const PATH = await scripted({ 'g++': shim, 'clang++': shim, make: shim }, 'cmake');
    expect(await failure(userEnvironment({ PATH }))).toBe(
      'score-sde: to compile the addon, install what is missing: ' +
        'a C++20 compiler, g++ or clang++; make or ninja (ERR_NATIVE)\n',
    );
  });

  test("score-sde build fetches its tools without the outer npm's places, and with its registry", async () => {
    const told = join(await temporaryFolder(), 'told');
    const PATH = await scripted({ npm: `env > ${told}; exit 1` }, 'cmake', 'g++', 'make');
    const npm_config_registry = 'http://localhost:1/';
    const outer = {
      npm_config_global: 'true',
      NPM_CONFIG_OMIT: 'dev',
      npm_config_workspace: 'a',
      npm_config_prefix: '/a',
    };
    await failure(userEnvironment({ PATH, npm_config_registry, ...outer }));
    const settings = (await readFile(told, 'utf8')).split('\n').filter((line) => /^npm_config_/i.test(line));
    expect(settings.filter((line) => !line.startsWith('npm_config_cache='))).toEqual([
      `npm_config_registry=${npm_config_registry}`,
    ]);
  });

  test('a signal ends score-sde build with all that it has started', async () => {
    const temporary = await temporaryFolder();
    const started = join(await temporaryFolder(), 'started');
    // As make and a compiler: what the program starts would go on without it.
    const script = `sleep 1000 & echo $! >${started}.part; mv ${started}.part ${started}; wait`;
    const PATH = await scripted({ npm: script }, 'cmake', 'g++', 'make', 'sleep', 'mv');
    const child = spawn(process.execPath, [join(folder, 'node_modules/score-sde/dist/cli/main.js'), 'build'], {
      cwd: folder,
      env: userEnvironment({ PATH, TMPDIR: temporary }),
      stdio: 'ignore',
    });
    const ended = once(child, 'exit');
    await until(() => existsSync(started));
    child.kill('SIGINT');
    expect(await ended).toEqual([130, null]);
    const number = readFileSync(started, 'utf8').trim();
    const { stdout } = spawnSync('ps', ['-o', 'stat=', '-p', number], { encoding: 'utf8' });
    expect(stdout).toMatch(/^Z|^$/); // gone, or a zombie where nobody asks for its end
    expect(await readdir(temporary)).toEqual([]);
  });

  test('score-sde build without npm, without its registry, and where the package is read only', async () => {
    const PATH = await folderWith(...needed, 'cmake', 'g++', 'make');
    const what = 'cmake-js and node-addon-api, which compile the addon';
    expect(await failure(userEnvironment({ PATH }))).toBe(
      `score-sde: npm fetches ${what}, and there is no npm on the PATH (ERR_NATIVE)\n`,
    );
    const cut = { npm_config_offline: 'true', npm_config_cache: await temporaryFolder() };
    expect(await failure(userEnvironment(cut))).toBe(
      `score-sde: npm cannot fetch ${what}: ENOTCACHED (is the registry reached?) (ERR_NATIVE)\n`,
    );
    // Not even root can make a folder in a file.
    const place = join(folder, 'node_modules/score-sde/build');
    await writeFile(place, '');
    expect(await failure(userEnvironment())).toBe(
      `score-sde: cannot write ${join(place, 'Release/score-sde.node')}: ${place} is no folder (ERR_IO)\n`,
    );
    await rm(place);
  });

  test('score-sde build compiles one, leaves nothing else, and digits are sampled', async () => {
    const temporary = await temporaryFolder();
    // Without CUDA, as where there is no nvcc.
    const env = userEnvironment({ SCORE_SDE_CUDA: 'OFF', TMPDIR: temporary, npm_config_prefer_offline: 'true' });
    await run('npx', ['score-sde', 'build'], folder, env);
    expect(await addonOf(folder, env)).toBe('build/Release/score-sde.node');
    expect((await sampled(folder, env)).length).toBeGreaterThan(0);
    expect(await readdir(join(folder, 'node_modules/score-sde/build'), { recursive: true })).toEqual([
      'Release',
      'Release/score-sde.node',
    ]);
    // npm has files of its own there.
    expect((await readdir(temporary)).filter((name) => name.startsWith('score-sde'))).toEqual([]);
  }, 600_000);
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
