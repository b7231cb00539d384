'use strict';
// npm run prebuildify: compiles the addon for this platform to prebuilds/PLATFORM-ARCH/score-sde.LIBC.node, where
// node-gyp-build finds it. It does so in a copy of the sources, so that this folder's own build stays as it is.
// Without --arch: for every architecture that the compilers found here serve.
const { spawnSync } = require('node:child_process');
const { copyFileSync, cpSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } = require('node:fs');
const { tmpdir } = require('node:os');
const { join } = require('node:path');
const { parseArgs, promisify } = require('node:util');
const prebuildify = promisify(require('prebuildify'));

const root = join(__dirname, '..');
const sources = ['package.json', 'CMakeLists.txt', 'binding.gyp', 'native'];

/** Compilers on Linux for another architecture than its own: Debian's names. */
const crossPrefix = { x64: 'x86_64-linux-gnu-', arm64: 'aarch64-linux-gnu-' };
const isThere = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;

function architectures() {
  if (process.platform === 'darwin') return ['arm64', 'x64']; // Apple's compiler serves both
  const others = Object.keys(crossPrefix).filter((arch) => arch !== process.arch);
  const served = process.platform === 'linux' ? others.filter((arch) => isThere(`${crossPrefix[arch]}g++`)) : [];
  return [process.arch, ...served];
}

/** What the build is told by its environment. nvcc compiles for its own machine only. */
function environmentFor(arch) {
  if (process.platform !== 'linux' || arch === process.arch) return {};
  return {
    CXX: `${crossPrefix[arch]}g++`,
    PREBUILD_STRIP_BIN: `${crossPrefix[arch]}strip`,
    SCORE_SDE_CUDA: 'OFF',
  };
}

async function build(arch) {
  const folder = mkdtempSync(join(tmpdir(), 'score-sde-prebuild-'));
  const before = { ...process.env };
  try {
    for (const name of sources) cpSync(join(root, name), join(folder, name), { recursive: true });
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'junction');
    Object.assign(process.env, environmentFor(arch));
    await prebuildify({ cwd: folder, arch, napi: true, strip: true, tagLibc: process.platform === 'linux' });
    const place = join('prebuilds', `${process.platform}-${arch}`);
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
  const { values } = parseArgs({ options: { arch: { type: 'string', multiple: true } } });
  for (const arch of values.arch ?? architectures()) await build(arch);
}

main().catch((error) => {
  process.stderr.write(`prebuildify: ${error.message}\n`);
  process.exitCode = 1;
});
