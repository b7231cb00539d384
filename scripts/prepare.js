'use strict';
// npm runs this as postprepare in a clone, after its installation, and before it is packed, and never where the package is
// installed: it compiles the TypeScript, and the addon unless one is there that loads and is newer than its sources. A script named prepare would do the
// same, but npm 11 and later warn of that where a tarball or a git dependency has one.
const { spawnSync } = require('node:child_process');
const { copyFileSync, mkdirSync, readdirSync, statSync } = require('node:fs');
const { join } = require('node:path');
const nodeGypBuild = require('node-gyp-build');

const root = join(__dirname, '..');

function fail(sentence) {
  process.stderr.write(`score-sde: ${sentence}\n`);
  process.exit(1);
}

/** The file of a development dependency's program. */
function fileOf(program) {
  try {
    return require.resolve(program);
  } catch {
    fail('what compiles this clone is not installed: npm install, without --omit=dev, installs it');
  }
}

/** Runs a development dependency's program. Shows what it says only if it fails. */
function run(program, args, sentence) {
  const options = { cwd: root, encoding: 'utf8', maxBuffer: 2 ** 28 };
  const { status, stdout, stderr } = spawnSync(process.execPath, [fileOf(program), ...args], options);
  if (status === 0) return;
  process.stderr.write(`${stdout}${stderr}`);
  fail(sentence);
}

/** Whether there is an addon that loads, newer than its sources: an older one may lack what the TypeScript calls. */
function addonServes() {
  const changed = (path) => statSync(join(root, path)).mtimeMs;
  const sources = readdirSync(join(root, 'native'), { recursive: true }).map((path) => join('native', path));
  try {
    const made = statSync(nodeGypBuild.resolve(root)).mtimeMs;
    nodeGypBuild(root);
    return ['CMakeLists.txt', ...sources].every((path) => changed(path) <= made);
  } catch {
    return false;
  }
}

run('typescript/bin/tsc', ['-p', 'tsconfig.build.json'], 'the TypeScript does not compile, see above');
if (!addonServes()) {
  process.stdout.write('score-sde: compiling the addon, which takes some minutes\n');
  const needs = 'that takes CMake 3.23 or later and a C++20 compiler';
  run('cmake-js/bin/cmake-js', ['compile', '--out', 'build/cmake'], `the addon does not compile, see above: ${needs}`);
}

// A git dependency: npm installs a clone of its own, with this variable set, and then what it packs of that. Of binaries it
// packs those in prebuilds/.
if (process.env._PACOTE_NO_PREPARE_ !== undefined) {
  const place = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
  mkdirSync(place, { recursive: true });
  copyFileSync(join(root, 'build/Release/score-sde.node'), join(place, 'score-sde.node'));
}
