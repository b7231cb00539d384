'use strict';
// Builds the addon with its CUDA kernels on the host and AddressSanitizer, and runs the suites that take a device on it.
// Arguments are jest's; patterns of test files among them run others.
const { execFileSync, spawnSync } = require('node:child_process');
const { join } = require('node:path');

const root = join(__dirname, '..', '..');
const out = join(root, 'build', 'emulated');
const run = (command, ...args) => execFileSync(command, args, { cwd: root, stdio: 'inherit' });

const cmakeJs = require.resolve('cmake-js/bin/cmake-js');
run(process.execPath, cmakeJs, 'compile', '--out', out, '--CDCUDA=EMULATE', '--CDSANITIZE=address');

// node-gyp-build looks there instead of in the package.
const env = { ...process.env, SCORE_SDE_PREBUILD: out, TEST_DEVICES: 'cuda' };
env.ASAN_OPTIONS = 'detect_leaks=0:quarantine_size_mb=8:allocator_may_return_null=1'; // as scripts/test-asan.js says why
env.LD_PRELOAD = execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
const args = process.argv.slice(2);
const isPattern = (arg) => !arg.startsWith('-');
// The mixture is not sampled on an emulated device, and on the CPU elsewhere.
const suites = require('../device-suites.json').filter((name) => name !== 'test/mixture');
const asked = args.some(isPattern) ? args : [...args, ...suites];
const jest = require.resolve('jest/bin/jest');
const all = [jest, ...asked];
process.exitCode = spawnSync(process.execPath, all, { cwd: root, env, stdio: 'inherit' }).status ?? 1;
