import { nodeFileTrace } from '@vercel/nft';
import { build, type BuildOptions } from 'esbuild';
import { execFile, type ExecFileException } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { cp, mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { deployingPage } from '../lib/errors';
import { removeFolders } from './support/folders';
import { root } from './support/paths';
import { prebuild, project } from './support/project';
import { userEnvironment } from './support/tarball';

// The ways to ship an application of docs/deploying.md.

const page = readFileSync(join(root, 'docs/deploying.md'), 'utf8');

/** The code in a section of the page, by its language. */
function recipe(section: string): Record<string, string> {
  const [, text] = page.split(`\n## ${section}\n`);
  const [inside] = text!.split('\n## ');
  return Object.fromEntries([...inside!.matchAll(/```(\w+)\n(.*?)```/gs)].map(([, name, code]) => [name!, code!]));
}

/** What a command prints. */
async function output(folder: string, command: string, args: readonly string[]): Promise<string> {
  // The project has the binary under test (SCORE_SDE_PREBUILD) as its own.
  const env = userEnvironment({ SCORE_SDE_PREBUILD: undefined });
  const options = { cwd: folder, env, encoding: 'utf8', timeout: 100_000 } as const;
  const { stdout } = await promisify(execFile)(command, args, options).catch(
    ({ stderr, message }: ExecFileException & { stderr: string }) => {
      throw new Error(stderr || message);
    },
  );
  return stdout.trim();
}
const node = (folder: string, ...args: string[]) => output(folder, process.execPath, args);

/** A program that prints its samples, and whether a picture and a saved run can be made. */
const program = `
const { createHash } = require('node:crypto');
const { ScoreSdeVePipeline } = require('score-sde');
(async () => {
  const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
  const result = await pipeline.run({ calls: 4, seed: 1, batchSize: 2 });
  const hash = createHash('sha256').update(new Uint8Array(result.samples.data.buffer)).digest('hex');
  const png = await result.toPng();
  const saved = await pipeline.start({ calls: 4, seed: 1 }).save({ stop: true });
  await pipeline.dispose();
  console.log(hash, png.length > 100, saved.length > 100);
})();`;
const asModule = program.replace(/const \{ (\w+) \} = require\('([\w:-]+)'\)/g, "import { $1 } from '$2'");

let folder: string;
let expected: string;
beforeAll(async () => {
  folder = await project();
  await writeFile(join(folder, 'app.js'), program);
  await writeFile(join(folder, 'app.mjs'), asModule);
  expected = await node(folder, 'app.js');
  expect(expected).toMatch(/^[0-9a-f]{64} true true$/);
});
afterAll(removeFolders);

/** Bundles the program; the bundle's path. */
async function bundled(from: string, options: BuildOptions & { outfile: string }): Promise<string> {
  const { errors, warnings } = await build({
    absWorkingDir: from,
    entryPoints: ['app.js'],
    bundle: true,
    platform: 'node',
    logLevel: 'silent',
    ...options,
  });
  expect([...errors, ...warnings]).toEqual([]);
  return options.outfile;
}

describe('a bundle of esbuild', () => {
  const external = ['score-sde', 'onnxruntime-node'];

  test('runs where the package is external', async () => {
    const file = await bundled(folder, { outfile: 'out/app.cjs', external });
    expect(await node(folder, file)).toBe(expected);
    const esm = await bundled(folder, { outfile: 'out/app.mjs', external, format: 'esm', entryPoints: ['app.mjs'] });
    expect(await node(folder, esm)).toBe(expected);
  });

  const advice =
    /ScoreSdeError: score-sde is inlined in a bundle .*; mark score-sde as external: serverExternalPackages: \['score-sde'\] in Next\.js, external in esbuild/;

  test.each(['cjs', 'esm'] as const)('%s: that inlines the package says what to do', async (format) => {
    const [entry, outfile] = format === 'esm' ? ['app.mjs', 'out/in.mjs'] : ['app.js', 'out/in.cjs'];
    const file = await bundled(folder, { outfile, format, entryPoints: [entry] });
    await expect(node(folder, file)).rejects.toThrow(advice);
  });

  test('is made where onnxruntime-node is missing, and gets the same advice', async () => {
    const without = await project({ onnxruntime: false });
    await writeFile(join(without, 'app.js'), program);
    await expect(node(without, await bundled(without, { outfile: 'out/app.cjs' }))).rejects.toThrow(advice);
  });

  test('with the binary beside it: the built-in model is missed by name, a picture is made on this thread', async () => {
    const beside = await project();
    await mkdir(join(beside, 'out/js'), { recursive: true });
    await cp(join(beside, 'node_modules/score-sde/prebuilds'), join(beside, 'prebuilds'), { recursive: true });
    // A file of the application that has the name of the encoder's program.
    await writeFile(join(beside, 'out/js/encoder.js'), 'console.log("not to be run");');
    await writeFile(
      join(beside, 'app.js'),
      `const sde = require('score-sde');
      (async () => {
        console.log((await sde.toPng(sde.Tensor.zeros([1, 1, 8, 8]))).length > 50);
        const scheduler = new sde.ScoreSdeVeScheduler();
        const model = (x) => sde.Tensor.zeros(x.dims);
        const pipeline = new sde.ScoreSdeVePipeline({ scheduler, model, sampleShape: [2] });
        console.log((await pipeline.start({ calls: 3, seed: 1 }).save({ stop: true })).length > 50);
        await sde.ScoreSdeVePipeline.fromPretrained('digits').catch((error) => console.log(String(error)));
      })();`,
    );
    const said = (await node(beside, await bundled(beside, { outfile: 'out/js/app.cjs' }))).split('\n');
    expect(said.slice(0, 2)).toEqual(['true', 'true']);
    expect(said[2]).toMatch(advice);
    expect(said).toHaveLength(3);
  });

  test('the page that it names is in the package', () => {
    expect(existsSync(join(root, deployingPage.replace('node_modules/score-sde/', '')))).toBe(true);
  });
});

describe('@vercel/nft', () => {
  test('finds code, binary, model and the libraries of ONNX Runtime', async () => {
    const { fileList } = await nodeFileTrace([join(folder, 'app.js')], { base: folder, processCwd: folder });
    const files = [...fileList].map((file) => file.replaceAll('\\', '/'));
    const modules = 'node_modules';
    expect(files).toEqual(
      expect.arrayContaining([
        `${modules}/score-sde/dist/index.js`,
        `${modules}/score-sde/dist/image/encoder.js`,
        `${modules}/score-sde/${prebuild}`,
        `${modules}/score-sde/models/digits/unet/model.onnx`,
        `${modules}/score-sde/models/digits/unet/probe.json`,
        `${modules}/onnxruntime-node/dist/index.js`,
      ]),
    );
    const libraries = files.filter((file) => file.startsWith(`${modules}/onnxruntime-node/bin/`));
    expect(libraries.some((file) => file.endsWith('onnxruntime_binding.node'))).toBe(true);
    expect(libraries.some((file) => /onnxruntime(\.1)?[.\d]*\.(so|dylib|dll)/.test(file))).toBe(true);
  });

  test('the files that the recipe copies run alone', async () => {
    const source = recipe('Tracing files with @vercel/nft').js!;
    const nft = JSON.stringify(require.resolve('@vercel/nft'));
    await writeFile(join(folder, 'trace.js'), source.replace("'@vercel/nft'", nft).replace("'out'", "'traced'"));
    await node(folder, 'trace.js');
    const elsewhere = `${folder}-traced`;
    await rename(join(folder, 'traced'), elsewhere);
    try {
      expect(await node(elsewhere, 'app.js')).toBe(expected);
    } finally {
      await rm(elsewhere, { recursive: true });
    }
  });
});

// Electron's `fs` shows what is unpacked in the archive, too, and reads it from beside it; the system's loader and ONNX Runtime find
// nothing there. Here, without Electron, the archive is a folder: what is unpacked is in it as a file that nobody can
// use, or not at all, as `asar pack --unpack` leaves it on the disk.
describe.each(['unusable', 'missing'])('in app.asar, natives there %s', (natives) => {
  let archive: string;
  const modules = 'node_modules';
  beforeAll(async () => {
    const application = await project();
    archive = join(application, 'app.asar');
    const unpacked = `${archive}.unpacked`;
    await mkdir(archive);
    await writeFile(join(archive, 'app.js'), program);
    await rename(join(application, modules), join(archive, modules));
    await cp(join(archive, modules, 'score-sde/models/digits'), join(archive, 'own'), { recursive: true });
    const bin = `${modules}/onnxruntime-node/bin`;
    const libraries = (await readdir(join(archive, bin), { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(archive.length + 1));
    expect(libraries.length).toBeGreaterThan(1);
    const models = [`${modules}/score-sde/models/digits/unet/model.onnx`, 'own/unet/model.onnx'];
    for (const file of [`${modules}/score-sde/${prebuild}`, ...models, ...libraries]) {
      await mkdir(dirname(join(unpacked, file)), { recursive: true });
      await rename(join(archive, file), join(unpacked, file));
      if (natives === 'unusable') await writeFile(join(archive, file), 'in the archive');
    }
    if (natives === 'missing') await rm(join(archive, bin), { recursive: true });
  });

  test('the package, its model, ONNX Runtime and folders of models work', async () => {
    expect(await node(archive, 'app.js')).toBe(expected);
    const script = `
      const { ScoreSdeVePipeline, OnnxModel } = require('score-sde');
      (async () => {
        const pipeline = await ScoreSdeVePipeline.fromPretrained(${JSON.stringify(join(archive, 'own'))});
        const { path } = pipeline.model.library;
        await pipeline.dispose();
        const file = ${JSON.stringify(join(archive, 'own/unet/model.onnx'))};
        const model = await OnnxModel.load(file, { libraryPath: path.replace('.unpacked', '') });
        console.log(path, model.library.path === path);
        await model.dispose();
      })();`;
    const [library, isSame] = (await node(archive, '-e', script)).split(' ');
    expect(library).toMatch(/app\.asar\.unpacked[\\/]node_modules[\\/]onnxruntime-node/);
    expect(isSame).toBe('true');
  });
});

test('the application alone is unpacked: the package works as before', async () => {
  const application = await project();
  const archive = join(application, 'app.asar');
  await mkdir(archive);
  await mkdir(`${archive}.unpacked/node_modules/score-sde/models`, { recursive: true });
  await writeFile(join(archive, 'app.js'), program);
  await rename(join(application, 'node_modules'), join(archive, 'node_modules'));
  expect(await node(archive, 'app.js')).toBe(expected);
});

describe('recipes of the page', () => {
  const dims = '1x1x28x28';
  /** Writes a section's program as app-NAME.js. */
  async function written(section: string, name: string): Promise<string> {
    const file = `app-${name}.js`;
    await writeFile(join(folder, file), recipe(section).js!);
    return file;
  }

  test('worker_threads', async () => {
    expect(await node(folder, await written('worker_threads', 'workers'))).toBe(dims);
  });

  test('cluster', async () => {
    expect(await node(folder, await written('cluster', 'cluster'))).toBe(`${dims}\n${dims}`);
  });

  // Elsewhere the executable must be signed, too.
  if (process.platform === 'linux')
    test('single executable applications', async () => {
      const { js, json, sh } = recipe('Single executable applications');
      const apart = await project();
      await writeFile(join(apart, 'app.js'), js!);
      await writeFile(join(apart, 'sea.json'), json!);
      const [node, postject] = [process.execPath, require.resolve('postject/dist/cli.js')];
      const commands = sh!
        .replace(/^node /gm, `"${node}" `)
        .replace('$(command -v node)', node)
        .replace('npx postject', `"${node}" "${postject}"`);
      await output(apart, 'sh', ['-ec', commands]);
      expect(await output(root, join(apart, 'app'), [])).toBe(dims);
    });

  test('the permission model', async () => {
    const [, ...words] = recipe('The permission model').sh!.trim().split(' ');
    const own = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission';
    const args = words.map((word) => word.replace(/^--permission$/, own).replace('"$PWD"', folder));
    expect(await node(folder, ...args)).toBe(expected);
    const denied = args.filter((arg) => !arg.endsWith('alpine-release'));
    if (process.platform === 'linux')
      await expect(node(folder, ...denied)).rejects.toThrow(
        /ScoreSdeError: score-sde cannot load its addon: reading \/etc\/alpine-release is denied to this process; node --allow-fs-read/,
      );
  });
});
