'use strict';
// npm run test:asan [-- JEST-OPTIONS]: the suite on an addon with AddressSanitizer and UndefinedBehaviorSanitizer.
const { execFileSync, spawnSync } = require('node:child_process');
const { join } = require('node:path');

const root = join(__dirname, '..');
const folder = join('build', 'asan');
const run = (script, args, env = process.env) =>
  spawnSync(process.execPath, [require.resolve(script), ...args], { cwd: root, env, stdio: 'inherit' }).status;

const built = run('cmake-js/bin/cmake-js', [
  ...['compile', '--out', folder, '--CDSANITIZE=address,undefined', `--CDCUDA=${process.env.SCORE_SDE_CUDA ?? 'OFF'}`],
]);
if (built !== 0) process.exit(built);

// The programs of instruction-sets are not those of this build, and those of kernels have AddressSanitizer of their own. How the
// package is installed and deployed, its types and its texts do not depend on it. The command line and the examples call the
// addon as other suites do, from many processes that start slowly with it.
const others = ['instruction-sets', 'kernels', 'deploying', 'package/', 'types', 'docs', 'house', 'cli', 'examples'];
const args = [
  ...process.argv.slice(2),
  '--testPathIgnorePatterns',
  '/node_modules/',
  ...others.map((name) => `test/${name}`),
];
process.exitCode = run('jest/bin/jest', args, {
  ...process.env,
  SCORE_SDE_PREBUILD: join(root, folder), // node-gyp-build looks there
  // Node itself knows nothing of ASan, which must come first.
  LD_PRELOAD: execFileSync(process.env.CXX ?? 'g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim(),
  // A quarantine of 256 MB, the default, is what tests of memory growth would measure.
  ASAN_OPTIONS: 'detect_leaks=0:quarantine_size_mb=8:allocator_may_return_null=1',
  UBSAN_OPTIONS: 'print_stacktrace=1',
});
