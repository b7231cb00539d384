'use strict';
// npm run prebuildify: compiles the addon for this platform to prebuilds/PLATFORM-ARCH/score-sde.LIBC.node, where
// node-gyp-build finds it. It does so in a copy of the sources, so that this folder's own build stays as it is.
// Names of platforms, such as linux-arm64, are its arguments. Without any: all that the compilers found here serve.
const { spawnSync } = require('node:child_process');
const { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { parseArgs, promisify } = require('node:util');
const prebuildify = promisify(require('prebuildify'));

const root = join(__dirname, '..');
const sources = ['package.json', 'CMakeLists.txt', 'binding.gyp', 'native'];

/** Compilers on Linux for other platforms: Debian's names. */
const crossCompilers = {
  'linux-x64': { prefix: 'x86_64-linux-gnu-', compiler: 'g++' },
  'linux-arm64': { prefix: 'aarch64-linux-gnu-', compiler: 'g++' },
  'win32-x64': { prefix: 'x86_64-w64-mingw32-', compiler: 'g++-posix', toolchain: 'mingw-w64.cmake' },
};
const here = `${process.platform}-${process.arch}`;
const isThere = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

/** The platforms that can be made here. Apple's compiler serves both processors. */
function possible() {
  if (process.platform === 'darwin') return ['darwin-arm64', 'darwin-x64'];
  return process.platform === 'linux' ? [...new Set([here, ...Object.keys(crossCompilers)])] : [here];
}

/** The platforms that are made where none is named. Windows' own compiler makes the binary of a release. */
function platforms() {
  const isServed = (name) => {
    const { prefix, compiler } = crossCompilers[name];
    return name.startsWith('linux') && isThere(prefix + compiler);
  };
  return possible().filter((name) => name === here || process.platform === 'darwin' || isServed(name));
}

/** What the build is told by its environment. nvcc compiles for its own machine only. */
function environmentFor(platform) {
  const cross = platform === here || process.platform !== 'linux' ? undefined : crossCompilers[platform];
  if (!cross) return {};
  const { prefix, compiler, toolchain } = cross;
  const environment = { CXX: prefix + compiler, PREBUILD_STRIP_BIN: `${prefix}strip`, SCORE_SDE_CUDA: 'OFF' };
  return toolchain ? { ...environment, CMAKE_TOOLCHAIN_FILE: join(__dirname, toolchain) } : environment;
}

async function build(name) {
  const [platform, arch] = name.split('-');
  const folder = mkdtempSync(join(tmpdir(), 'score-sde-prebuild-'));
  const before = { ...process.env };
  try {
    for (const source of sources) cpSync(join(root, source), join(folder, source), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'junction');
    Object.assign(process.env, environmentFor(name));
    await prebuildify({ cwd: folder, platform, arch, napi: true, strip: true, tagLibc: platform === 'linux' });
    const place = join('prebuilds', name);
    mkdirSync(join(root, place), { recursive: true });
    for (const file of readdirSync(join(folder, place))) {
      copyFileSync(join(folder, place, file), join(root, place, file));
      process.stdout.write(`${join(place, file)}\n`);
    }
  } finally {
    process.env = before;
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main() {
  const { positionals } = parseArgs({ allowPositionals: true });
  const unknown = positionals.find((name) => !possible().includes(name));
  if (unknown !== undefined) throw new Error(`${unknown} is not made on ${here}: ${possible().join(', ')} can be`);
  for (const name of positionals.length > 0 ? positionals : platforms()) await build(name);
}

main().catch((error) => {
  process.stderr.write(`prebuildify: ${error.message}\n`);
  process.exitCode = 1;
});
