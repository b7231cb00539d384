import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { AbortError, reasonOf, ScoreSdeError } from '../errors';
import { assertWritable, writeWhole } from '../files';
import { assertGoesOn, onAbort } from '../signals';
import { interruption } from './interrupt';
import { say } from './output';

const root = join(__dirname, '..', '..');
/** Where node-gyp-build looks first: before the prebuilt binaries. */
const binary = join('build', 'Release', 'score-sde.node');
const sources = ['CMakeLists.txt', 'native'];
/** What compiles the addon. Which versions, the package's development dependencies say. */
const tools = ['cmake-js', 'node-addon-api'] as const;

interface Manifest {
  binary: object;
  devDependencies: Record<(typeof tools)[number], string>;
}

/**
 * What would have npm install elsewhere, less, or nothing. An npm that runs this command (npx, npm run) hands its own settings down
 * by the environment.
 */
const unfit =
  /^npm_config_(global|location|(local_|global_)?prefix|workspaces?|include_workspace_root|omit|include|only|production|dev|dry_run|package_lock_only)$/i;

interface Ended {
  /** null where there is no such program, or a signal has ended it. */
  code: number | null;
  /** What it wrote to standard output and standard error. */
  said: string;
  isThere: boolean;
}

/**
 * score-sde build: compiles the addon in the installed package. The sources are compiled in a temporary folder, with tools that
 * npm fetches there. The package gets the binary alone, once the binary has been loaded. ERR_IO where the package cannot be
 * written to, ERR_NATIVE where something is missing or the addon does not compile, ERR_ABORTED.
 */
export async function build(): Promise<void> {
  const start = performance.now();
  const target = join(root, binary);
  const signal = interruption();
  await assertWritable(target);
  await assertCompilers(signal);

  const folder = await mkdtemp(join(tmpdir(), 'score-sde-build-'));
  try {
    for (const name of sources) await cp(join(root, name), join(folder, name), { recursive: true });
    say(`fetching ${tools.join(' and ')}`);
    await fetchTools(folder, signal);
    say('compiling, which takes some minutes');
    await compile(folder, signal);
    await writeWhole(target, await readFile(join(folder, binary)));
  } finally {
    // A temporary folder that stays is no failure, and must not hide one.
    await rm(folder, { recursive: true, force: true, maxRetries: 3 }).catch(() => undefined);
  }
  say(`${target}: ${Math.round((performance.now() - start) / 1000)} s`);
}

const failed = (text: string) => new ScoreSdeError('ERR_NATIVE', text);

/** ERR_NATIVE, with everything that is missing. cmake-js looks for the compiler on Windows. */
async function assertCompilers(signal: AbortSignal): Promise<void> {
  // macOS has programs of these names that say what to install.
  const isThere = async (command: string) => (await run(command, ['--version'], root, signal)).code === 0;
  const oneOf = async (...commands: string[]) => (await Promise.all(commands.map(isThere))).includes(true);
  const { said } = await run('cmake', ['--version'], root, signal);
  const found = /version (\d+)\.(\d+)/.exec(said);
  const needed = /VERSION (\d+)\.(\d+)/.exec(await readFile(join(root, 'CMakeLists.txt'), 'utf8'))!;
  const versionOf = ([, major, minor]: RegExpExecArray) => Number(major) * 1000 + Number(minor);
  const missing: string[] = [];
  if (found === null || versionOf(found) < versionOf(needed))
    missing.push(`CMake ${needed[1]}.${needed[2]} or later${found === null ? '' : `, not ${found[1]}.${found[2]}`}`);
  if (process.platform !== 'win32') {
    if (!(await oneOf('g++', 'clang++'))) missing.push('a C++20 compiler, g++ or clang++');
    if (!(await oneOf('ninja', 'make'))) missing.push('make or ninja');
  }
  if (missing.length > 0) throw failed(`to compile the addon, install what is missing: ${missing.join('; ')}`);
}

/** Lets npm install the tools in the folder, as dependencies of a package that cmake-js then takes for the addon's. */
async function fetchTools(folder: string, signal: AbortSignal): Promise<void> {
  const { binary: nodeApi, devDependencies } = JSON.parse(
    await readFile(join(root, 'package.json'), 'utf8'),
  ) as Manifest;
  const dependencies = Object.fromEntries(tools.map((name) => [name, devDependencies[name]]));
  await writeFile(join(folder, 'package.json'), JSON.stringify({ private: true, binary: nodeApi, dependencies }));
  // The prefix keeps npm from another folder that npx has named in the environment.
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', '.'];
  const { code, said, isThere } = await run('npm', args, folder, signal);
  if (code === 0) return;
  const what = `${tools.join(' and ')}, which compile the addon`;
  // On Windows the shell is always there.
  if (!isThere || (process.platform === 'win32' && !/^npm /m.test(said)))
    throw failed(`npm fetches ${what}, and there is no npm on the PATH`);
  const reason = /^npm (?:error|ERR!) code (\S+)/m.exec(said)?.[1] ?? reasonOf(said);
  throw failed(`npm cannot fetch ${what}: ${reason} (is the registry reached?)`);
}

async function compile(folder: string, signal: AbortSignal): Promise<void> {
  const cmakeJs = join(folder, 'node_modules', 'cmake-js', 'bin', 'cmake-js');
  const args = ['compile', '--out', 'build/cmake', '--parallel', String(availableParallelism())];
  const compiled = await run(process.execPath, [cmakeJs, ...args], folder, signal);
  if (compiled.code !== 0) {
    process.stderr.write(compiled.said);
    throw failed('the addon does not compile: the output of CMake and the compiler is above');
  }
  // In a process of its own: on Windows a file that this one has loaded could not be removed.
  const loaded = await run(process.execPath, ['-e', 'require(process.argv[1])', join(folder, binary)], folder, signal);
  if (loaded.code !== 0) {
    process.stderr.write(loaded.said);
    throw failed('the addon was compiled and does not load: the reason is above; the package is as it was');
  }
}

/** Runs a program to its end. ERR_ABORTED once the signal is aborted: then the program and all that it has started have ended. */
function run(command: string, args: string[], cwd: string, signal: AbortSignal): Promise<Ended> {
  return new Promise((resolve, reject) => {
    assertGoesOn(signal);
    const isWindows = process.platform === 'win32';
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !unfit.test(name)));
    // Elsewhere the program leads a group of processes, which a signal reaches as a whole: make and compilers, too.
    const options = { cwd, env, detached: !isWindows, stdio: 'pipe' } as const;
    // On Windows npm is a command file, which takes a shell.
    const child =
      isWindows && command === 'npm'
        ? spawn([command, ...args].join(' '), { ...options, shell: true })
        : spawn(command, args, options);
    const endListening = onAbort(signal, () => {
      try {
        if (isWindows || child.pid === undefined) child.kill();
        else process.kill(-child.pid, 'SIGTERM');
      } catch {
        // All have ended already.
      }
    });
    child.stdin.end();
    let said = '';
    const add = (text: string) => void (said += text);
    child.stdout.setEncoding('utf8').on('data', add);
    child.stderr.setEncoding('utf8').on('data', add);
    const end = (ended: Ended) => {
      endListening();
      if (signal.aborted) reject(new AbortError(signal));
      else resolve(ended);
    };
    child.on('error', (error) => end({ code: null, said: error.message, isThere: false }));
    child.on('close', (code) => end({ code, said, isThere: true }));
  });
}
