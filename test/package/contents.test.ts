import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { removeFolders, temporaryFolder } from '../support/folders';
import { root } from '../support/paths';
import { pack, userEnvironment, type Tarball } from '../support/tarball';

// What is in the tarball, and that every way to import it finds it.
let tarball: Tarball;
/** A project with the package, as unpacked, in its node_modules. */
let project: string;

function node(args: string[], cwd = project): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd,
    env: userEnvironment(),
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${args[0]} ended with ${status}:\n${stdout}${stderr}`);
  return stdout.trim();
}

beforeAll(async () => {
  tarball = pack(await temporaryFolder());
  project = await temporaryFolder();
  const modules = join(project, 'node_modules');
  await mkdir(join(modules, 'score-sde'), { recursive: true });
  execFileSync('tar', ['-xzf', tarball.file, '--strip-components=1', '-C', join(modules, 'score-sde')]);
  // What npm would install beside it, and what it would compile.
  const { dependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as Record<string, object>;
  for (const name of [...Object.keys(dependencies!), 'onnxruntime-node'])
    await symlink(join(root, 'node_modules', name), join(modules, name));
  await mkdir(join(modules, '@types'));
  await symlink(join(root, 'node_modules/@types/node'), join(modules, '@types/node'));
  await symlink(join(root, 'build'), join(modules, 'score-sde', 'build'));
});
afterAll(removeFolders);

test('holds what a user needs and nothing else', () => {
  const paths = tarball.files.map(({ path }) => path);
  const expected = [
    /^(README|CHANGELOG|SECURITY)\.md$|^LICENSE$|^package\.json$/,
    /^docs\/[a-z-]+\.(md|png|svg)$/,
    /^dist\/.*\.(js|d\.ts)$/,
    /^models\/digits\//,
    /^prebuilds\/(README\.md|(linux|darwin|win32)-(x64|arm64)\/score-sde\.(glibc\.|musl\.)?node)$/,
    /^CMakeLists\.txt$|^native\/.*\.([ch]pp|cuh?|map)$/,
    /^bench\/torch_peer\.py$/,
    /^examples\/([a-z-]+\.mjs|export_ncsnpp\.py)$/,
  ];
  expect(paths.filter((path) => !expected.some((pattern) => pattern.test(path)))).toEqual([]);
  for (const path of [
    'LICENSE',
    'README.md',
    'docs/parity.md',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'dist/image/encoder.js',
    'models/digits/unet/model.onnx',
    'models/digits/README.md',
    'native/binding/addon.cpp',
    'native/cuda/backend.cu',
  ])
    expect(paths).toContain(path);
  // Nothing that was compiled from a source that is gone.
  const stale = paths
    .filter((path) => path.startsWith('dist/'))
    .map((path) => path.replace(/^dist/, 'lib').replace(/(\.d\.ts|\.js)$/, ''))
    .filter((path) => !existsSync(join(root, `${path}.ts`)) && !existsSync(join(root, `${path}.js`)));
  expect(stale).toEqual([]);
});

test('has nothing that a package manager would run where it is installed', () => {
  const manifest = readFileSync(join(project, 'node_modules/score-sde/package.json'), 'utf8');
  const { scripts, gypfile } = JSON.parse(manifest) as { scripts: object; gypfile: boolean };
  // npm 11 counts prepare, too, where the package comes from a tarball or git.
  for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) expect(scripts).not.toHaveProperty(name);
  // npm runs node-gyp where it finds this file, unless told not to; npm publish writes that into what it tells the registry.
  expect(tarball.files.map(({ path }) => path)).not.toContain('binding.gyp');
  expect(gypfile).toBe(false);
});

test('stays within its budget', () => {
  const bytes = (pattern: RegExp) =>
    tarball.files.filter(({ path }) => pattern.test(path)).reduce((sum, { size }) => sum + size, 0);
  expect(bytes(/^(?!prebuilds|models)/)).toBeLessThan(1.5e6);
  expect(bytes(/^models/)).toBeLessThan(2.2e6);
  for (const { path, size } of tarball.files) if (path.endsWith('.node')) expect(size).toBeLessThan(4e6);
});

test('every link of its documents leads to a file of the package', () => {
  const paths = tarball.files.map(({ path }) => path);
  const links = paths
    .filter((path) => /^(docs\/)?[A-Za-z]+\.md$/.test(path))
    .flatMap((path) => {
      const found = readFileSync(join(root, path), 'utf8').matchAll(
        /\]\((?!https?:|#)([^)#]+)|src="(?!https?:)([^"]+)"/g,
      );
      return [...found].map((match) => posix.join(posix.dirname(path), match[1] ?? match[2]!));
    });
  expect(links.length).toBeGreaterThan(10);
  expect(links.filter((link) => !paths.some((path) => path === link || path.startsWith(`${link}/`)))).toEqual([]);
});

test('publint and are-the-types-wrong find nothing', () => {
  expect(node([join(root, 'node_modules/publint/src/cli.js'), '--strict', tarball.file])).toMatch(/All good!$/);
  const cli = join(root, 'node_modules/@arethetypeswrong/cli/dist/index.js');
  expect(node([cli, '--no-color', tarball.file])).toContain('No problems found');
});

test('CommonJS and ES modules share one instance, names included', async () => {
  await writeFile(
    join(project, 'both.mjs'),
    `import { createRequire } from 'node:module';
     import * as named from 'score-sde';
     import { ScoreSdeVeScheduler, Tensor } from 'score-sde';
     const required = createRequire(import.meta.url)('score-sde');
     const missing = Object.keys(required).filter((name) => named[name] !== required[name]);
     console.log(missing.length, new ScoreSdeVeScheduler() instanceof required.ScoreSdeVeScheduler,
       Tensor === required.Tensor, createRequire(import.meta.url)('score-sde/package.json').name);`,
  );
  expect(node(['both.mjs'])).toBe('0 true true score-sde');
});

test('what is not exported cannot be required', () => {
  expect(() => node(['-e', "require('score-sde/dist/native')"])).toThrow(/ERR_PACKAGE_PATH_NOT_EXPORTED/);
});

const consumer = `
import { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor, type ScoreModel, type SdeVeOutput } from 'score-sde';
const model: ScoreModel = async (sample, sigma) => {
  const variance = 1 + sigma.data[0]! ** 2;
  return new Tensor('float32', sample.data.map((x) => -x / variance), sample.dims);
};
export const ofAnyTensor: ScoreModel = (sample: Tensor, sigma: Tensor) => new Tensor(sample.type, sample.data, sigma.dims);
const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 50 });
export const out: SdeVeOutput = scheduler.stepPred(Tensor.zeros([1, 1, 2, 2]), 1, Tensor.zeros([1, 1, 2, 2]));
export const pipeline: ScoreSdeVePipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: [1, 2, 2] });
const options = { generator: new Generator(1), stepSize: 'sample', returnMean: false } as const;
export const floats: Float32Array[] = [
  out.prevSample.data as Float32Array,
  scheduler.stepPred(Tensor.zeros([1, 2]), 1, Tensor.zeros([1, 2]), options).prevSample.data,
  scheduler.stepCorrect(Tensor.zeros([1, 2]), Tensor.zeros([1, 2]), { ...options, returnDict: false })[0].data,
  new Generator(1).randn([2]).data,
];
export const bits: Uint16Array = new Generator(1).randn([2], { type: 'float16' }).data;
// @ts-expect-error: it may be of any type
scheduler.stepPred(out.prevSample, 1, out.prevSample, { out: out.prevSample }).prevSample.data satisfies Float32Array;
// @ts-expect-error: numbers are float32
new Tensor('float64', [1, 2], [2]);
// @ts-expect-error: no such option
new ScoreSdeVeScheduler({ sigmaMean: 1 });
`;
test.each([
  ['node16', 'node16', 'commonjs', 'consumer.cts'],
  ['node16', 'node16', 'module', 'consumer.mts'],
  ['esnext', 'bundler', 'module', 'consumer.ts'],
])('TypeScript: module %s, resolution %s, from %s', async (module, moduleResolution, _, file) => {
  await writeFile(join(project, file), consumer);
  const options = { module, moduleResolution, target: 'es2022', lib: ['es2022', 'esnext.disposable'], types: ['node'] };
  const config = { compilerOptions: { ...options, strict: true, noEmit: true }, files: [file] };
  await writeFile(join(project, 'tsconfig.json'), JSON.stringify(config));
  node([require.resolve('typescript/bin/tsc'), '-p', '.']);
});
