import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { PNG } from 'pngjs';
import {
  devices,
  Generator,
  getNumThreads,
  ScoreSdeVePipeline,
  solverList,
  type ErrorCode,
  type RunOptions,
} from '../lib';
import { main, run, sample, start } from './support/command';
import { pipelineFolder, removeFolders, temporaryFolder } from './support/folders';
import { formulaGraph, kindGraph } from './support/onnx';
import { root } from './support/paths';

const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };

afterAll(removeFolders);

/** So many steps (samplingEps allows no more) that only what ends before the work, or in it, ends in time. */
const forever = ['--steps', '99000'];

let pipeline: ScoreSdeVePipeline;
beforeAll(async () => void (pipeline = await ScoreSdeVePipeline.fromPretrained('digits')));
afterAll(() => pipeline.dispose());

/** The same in this process. */
async function picture(options: RunOptions, columns?: number): Promise<Buffer> {
  return (await pipeline.run(options)).toPng({ columns });
}

const sizeOf = (file: Buffer) => {
  const { width, height } = PNG.sync.read(file);
  return [width, height];
};

describe('sample', () => {
  const rows: { args: string; options: () => RunOptions; columns?: number; size: [number, number] }[] = [
    { args: '--seed 7 --batch 5', options: () => ({ seed: 7, batchSize: 5 }), size: [84, 56] },
    { args: '--seed 7', options: () => ({ seed: 7, batchSize: 16 }), size: [112, 112] },
    { args: '--seed -1 --batch 1', options: () => ({ seed: 2n ** 64n - 1n }), size: [28, 28] },
    {
      args: '--seed 18446744073709551615 --batch 2',
      options: () => ({ seed: 2n ** 64n - 1n, batchSize: 2 }),
      size: [56, 28],
    },
    {
      args: '--seed 7 --label 3 1,4',
      options: () => ({ seed: 7, batchSize: 3, modelInputs: { class_labels: [3, 1, 4] } }),
      size: [56, 56],
    },
    {
      args: '--seed 7 --label 3 --batch 2',
      options: () => ({ seed: 7, batchSize: 2, modelInputs: { class_labels: 3 } }),
      size: [56, 28],
    },
    {
      args: '--seed 7 --batch 3 --columns 1 --device cpu --model digits',
      options: () => ({ seed: 7, batchSize: 3 }),
      columns: 1,
      size: [28, 84],
    },
    {
      args: '--seed 7 --batch 2 --engine torch',
      options: () => ({ generator: new Generator(7, { engine: 'torch' }), batchSize: 2 }),
      size: [56, 28],
    },
  ];
  test.each(rows)('$args', async ({ args, options, columns, size }) => {
    const folder = await temporaryFolder();
    const said = await sample([...args.split(' '), '--steps', '3', '--out', 'x.png'], folder);
    const file = await readFile(join(folder, 'x.png'));
    expect(sizeOf(file)).toEqual(size);
    expect(file).toEqual(await picture({ numInferenceSteps: 3, ...options() }, columns));
    expect(await readdir(folder)).toEqual(['x.png']);

    const { batchSize = 1, seed = 7 } = options();
    const engine = args.includes('torch') ? 'torch' : 'philox';
    const [what, ...how] = said.split(', ');
    expect(what).toMatch(new RegExp(`^${join(folder, 'x.png')}: ${batchSize} images?$`));
    expect(how).toEqual([
      expect.stringMatching(new RegExp(`^seed (${seed}|${BigInt.asIntN(64, BigInt(seed))}) \\(${engine}\\)$`)),
      '3 steps of pc',
      '6 network calls',
      expect.stringMatching(/^\d+\.\d\d s on cpu$/),
    ]);
  });

  test.each<{ args: string; options: RunOptions; steps: number; calls: number }>([
    { args: '', options: { calls: 20 }, steps: 20, calls: 20 },
    { args: '--calls 5 --solver er_sde', options: { calls: 5 }, steps: 5, calls: 5 },
    { args: '--steps 4 --solver er_sde', options: { numInferenceSteps: 4, solver: 'er_sde' }, steps: 4, calls: 4 },
    { args: '--solver pc --calls 6 --snr 0.2', options: { solver: 'pc', calls: 6, snr: 0.2 }, steps: 3, calls: 6 },
    {
      args: '--calls 6 --eta 0 --order 2 --grid linear --sigma-min 0.02 --sigma-max 10',
      options: { calls: 6, eta: 0, order: 2, grid: 'linear', sigmaMin: 0.02, sigmaMax: 10 },
      steps: 6,
      calls: 6,
    },
    { args: '--calls 6 --eta authors', options: { calls: 6, eta: 'authors' }, steps: 6, calls: 6 },
    {
      args: '--solver dpmpp_2m --steps 4 --grid polyexponential --rho 2',
      options: { solver: 'dpmpp_2m', numInferenceSteps: 4, grid: 'polyexponential', rho: 2 },
      steps: 4,
      calls: 4,
    },
  ])('the solver by "$args"', async ({ args, options, steps, calls }) => {
    const cwd = await temporaryFolder();
    const words = args.split(' ').filter(Boolean);
    const said = await sample([...words, '--seed', '7', '--batch', '2', '--out', 'x.png'], cwd);
    const name = String(options.solver ?? 'er_sde');
    expect(said.split(', ').slice(2, 4)).toEqual([`${steps} steps of ${name}`, `${calls} network calls`]);
    expect(await readFile(join(cwd, 'x.png'))).toEqual(await picture({ ...options, seed: 7, batchSize: 2 }));
  });

  test('a solver that decides on its steps', async () => {
    const cwd = await temporaryFolder();
    await sample(['--solver', 'dpm_adaptive', '--seed', '7', '--batch', '1', '--out', 'x.png'], cwd);
    const expected = await picture({ solver: 'dpm_adaptive', seed: 7 });
    expect(await readFile(join(cwd, 'x.png'))).toEqual(expected);
  });

  test('--out - is standard output, and words go to standard error', async () => {
    const cwd = await temporaryFolder();
    const { child, ended } = start(['sample', '--calls', '2', '--seed', '7', '--batch', '2', '--out', '-'], cwd);
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    const { code, stderr } = await ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/^-: 2 images, seed 7 [^\n]+\n$/);
    expect(Buffer.concat(chunks)).toEqual(await picture({ calls: 2, seed: 7, batchSize: 2 }));
    expect(await readdir(cwd)).toEqual([]);
  });

  test('the seed it says makes the same picture again', async () => {
    const folder = await temporaryFolder();
    const few = ['--batch', '2', '--steps', '3'];
    const seeds: string[] = [];
    for (const file of ['a.png', 'b.png']) {
      seeds.push(/seed (\d+) /.exec(await sample([...few, '--out', file], folder))![1]!);
    }
    expect(seeds[0]).not.toBe(seeds[1]);
    await sample([...few, '--out', 'c.png', '--seed', seeds[0]!], folder);
    expect(await readFile(join(folder, 'c.png'))).toEqual(await readFile(join(folder, 'a.png')));
  });

  test('the file is named after the model unless told otherwise', async () => {
    const cwd = await temporaryFolder();
    const few = ['--batch', '1', '--steps', '2', '--seed', '1'];
    await sample(few, cwd);
    await sample([...few, '--model', `${await pipelineFolder({}, 'faces')}/`], cwd);
    expect((await readdir(cwd)).sort()).toEqual(['digits.png', 'faces.png']);
    expect(sizeOf(await readFile(join(cwd, 'faces.png')))).toEqual([2, 2]);
  });

  test('--scale and --each: a file of each image, enlarged', async () => {
    const cwd = await temporaryFolder();
    const few = ['--steps', '2', '--seed', '7', '--out', 'x.png'];
    const said = await sample([...few, '--batch', '3', '--each', '--scale', '4'], cwd);
    expect((await readdir(cwd)).sort()).toEqual(['x-0.png', 'x-1.png', 'x-2.png']);
    expect(said).toMatch(new RegExp(`^${join(cwd, 'x-0.png')} to x-2.png: 3 images, seed 7 `));
    for (const k of [0, 1, 2]) {
      const result = await pipeline.run({ numInferenceSteps: 2, seed: 7 + k });
      const file = await readFile(join(cwd, `x-${k}.png`));
      expect(sizeOf(file)).toEqual([112, 112]);
      expect(file).toEqual(await result.toPng({ scale: 4 }));
    }
    const one = await sample([...few, '--batch', '1', '--each'], cwd);
    expect(one).toMatch(new RegExp(`^${join(cwd, 'x-0.png')}: 1 image, `));
    await sample([...few, '--batch', '3', '--scale', '2'], cwd);
    expect(sizeOf(await readFile(join(cwd, 'x.png')))).toEqual([112, 112]);
  });

  test('a folder is made for the file, and a file that was there replaced', async () => {
    const cwd = await temporaryFolder();
    const args = ['--batch', '1', '--steps', '2', '--out', join('a', 'b', 'x.png')];
    await sample([...args, '--seed', '1'], cwd);
    const first = await readFile(join(cwd, 'a/b/x.png'));
    await sample([...args, '--seed', '2'], cwd);
    expect(await readFile(join(cwd, 'a/b/x.png'))).not.toEqual(first);
    expect(await readdir(join(cwd, 'a/b'))).toEqual(['x.png']);
  });
});

describe('sample fails with one line, code 1 and no file', () => {
  const plain = () => pipelineFolder();
  const foreign = () => pipelineFolder({ 'model_index.json': { _class_name: 'DDPMPipeline' } });
  const corrupt = () => pipelineFolder({ 'unet/model.onnx': 'not a network' });
  const vectors = () => pipelineFolder({ 'unet/model.onnx': formulaGraph({ name: 'lin' }, [2]) });
  const empty = () => pipelineFolder({ 'unet/model.onnx': '' });
  const rows: [string, () => Promise<string[]> | string[], ErrorCode, RegExp][] = [
    ['no such model', () => ['--model', 'none'], 'ERR_CONFIG', /none is no folder: .*digits/],
    ['a file for a model', () => ['--model', 'there.png'], 'ERR_CONFIG', /there.png is no folder/],
    ['another pipeline', async () => ['--model', await foreign()], 'ERR_CONFIG', /DDPMPipeline/],
    ['a corrupt network', async () => ['--model', await corrupt()], 'ERR_MODEL', /model.onnx cannot be loaded/],
    ['an empty network', async () => ['--model', await empty()], 'ERR_MODEL', /model.onnx cannot be loaded/],
    ['samples that are no pictures', async () => ['--model', await vectors()], 'ERR_SHAPE', /PNG .*\[2\]/],
    ['another format', () => ['--out', 'x.jpg'], 'ERR_CONFIG', /\.png.*got x\.jpg/],
    ['another format for each', () => ['--each', '--out', 'x.jpg'], 'ERR_CONFIG', /\.png.*got x\.jpg/],
    ['each to standard output', () => ['--each', '--out', '-'], 'ERR_CONFIG', /--each.*--out -/],
    ['too large a picture', () => ['--batch', '4096', '--scale', '64'], 'ERR_RANGE', /114688x114688 pixels/],
    ['an unknown solver', () => ['--solver', 'ddim'], 'ERR_CONFIG', /"ddim".*pc.*er_sde.*dpm_adaptive/],
    ['an option of another solver', () => ['--solver', 'euler', '--eta', '1'], 'ERR_CONFIG', /"euler".*"eta"/],
    [
      'an option of no solver named',
      () => ['--eta', '0'],
      'ERR_CONFIG',
      /^score-sde: without --solver .*have it: er_sde/,
    ],
    ['steps that the solver decides on', () => ['--solver', 'dpm_adaptive'], 'ERR_CONFIG', /dpm_adaptive .*99000/],
    ['an order that there is not', () => ['--solver', 'er_sde', '--order', '4'], 'ERR_RANGE', /order .*3, got 4/],
    ['rho of a grid without', () => ['--grid', 've', '--rho', '2'], 'ERR_CONFIG', /rho .*"ve"/],
    ['a folder for the file', () => ['--out', '.'], 'ERR_IO', /cannot write .*: it is a folder/],
    ['a path below a file', () => ['--out', 'there.png/x.png'], 'ERR_IO', /cannot write .*there.png is no folder/],
    ['a path deep below a file', () => ['--out', 'there.png/a/b/x.png'], 'ERR_IO', /there.png is no folder/],
    ['another number of labels', () => ['--label', '1', '2', '--batch', '3'], 'ERR_SHAPE', /class_labels.*3.*got 2/],
    ['a label that there is not', () => ['--label', '99', '--batch', '1'], 'ERR_RANGE', /0 to 10, got 99/],
    ['one such among others', () => ['--label', '1', '11'], 'ERR_RANGE', /0 to 10, got 11/],
    [
      'labels that the model does not take',
      async () => ['--model', await plain(), '--label', '1'],
      'ERR_MODEL',
      /class_labels/,
    ],
    ['a seed beyond 64 bits', () => ['--seed', '18446744073709551616'], 'ERR_RANGE', /seed .*18446744073709551616/],
    ['a GPU', () => ['--device', 'cuda'], 'ERR_CUDA_UNAVAILABLE', /device 'cuda' cannot be used: \S/],
    ['an unknown device', () => ['--device', 'tpu'], 'ERR_CONFIG', /device must be .*"tpu"/],
  ];
  test.each(rows)('%s', async (_, args, code, says) => {
    const cwd = await temporaryFolder();
    await writeFile(join(cwd, 'there.png'), 'it was here before');
    const { stderr, ...ended } = await run(['sample', ...forever, ...(await args())], cwd);
    expect(ended).toEqual({ code: 1, signal: null, stdout: '' });
    expect(stderr).toMatch(new RegExp(`^score-sde: [^\n]+ \\(${code}\\)\n$`));
    expect(stderr).toMatch(says);
    expect(await readdir(cwd)).toEqual(['there.png']);
    expect(await readFile(join(cwd, 'there.png'), 'utf8')).toBe('it was here before');
  });

  const usage: [string[], RegExp][] = [
    ...['0', '-1', '1.5', 'many', '', '65537', '1e3', '0x10'].map((value): [string[], RegExp] => [
      [`--batch=${value}`],
      /^error: option '--batch <n>' argument '.*' is invalid. Expected an integer from 1 to 65536/,
    ]),
    [['--steps=0'], /^error: option '--steps <n>' .* Expected an integer from 1 to 16777216/],
    [['--steps=2.5'], /^error: option '--steps <n>'/],
    [['--calls=0'], /^error: option '--calls <n>' .* Expected an integer from 1 to 16777216/],
    [['--calls=20'], /^error: option '--steps <n>' cannot be used with option '--calls <n>'/],
    [['--grid=edm'], /^error: option '--grid <name>' .*karras, /],
    [['--eta=-1'], /^error: option '--eta <x>' .* Expected a number, 0 or above/],
    [['--rho=0'], /^error: option '--rho <x>' .* Expected a number above 0/],
    [['--sigma-max=much'], /^error: option '--sigma-max <x>' .* Expected a number above 0/],
    [['--columns=0'], /^error: option '--columns <n>' .* Expected an integer from 1 to 65535/],
    [['--scale=0'], /^error: option '--scale <n>' .* Expected an integer from 1 to 64/],
    [['--scale=65'], /^error: option '--scale <n>' .* Expected an integer from 1 to 64/],
    [['--each', '--columns=2'], /^error: option '--each' cannot be used with option '--columns <n>'/],
    [['--seed=1.5'], /^error: option '--seed <n>' .* Expected an integer/],
    [['--seed=seven'], /^error: option '--seed <n>'/],
    [['--label', 'seven'], /^error: option '--label <n...>' .* Expected an integer/],
    [['--label', '-1'], /^error: /],
    [['--label', '1,'], /^error: option '--label <n...>' .* Expected an integer/],
    [['--engine', 'mt19937'], /^error: option '--engine <name>' .*philox, torch/],
    [['--batch'], /^error: option '--batch <n>' argument missing/],
    [['--size', '28'], /^error: unknown option '--size'/],
    [['digits'], /^error: too many arguments/],
  ];
  test.each(usage)('%j is not understood', async (args, says) => {
    const cwd = await temporaryFolder();
    const { stderr, ...ended } = await run(['sample', ...forever, ...args], cwd);
    expect(ended).toEqual({ code: 1, signal: null, stdout: '' });
    expect(stderr).toMatch(says);
    expect(stderr).not.toMatch(/^ +at /m);
    // The error, and where the options are listed.
    expect(stderr.trimEnd().split('\n').filter(Boolean)).toHaveLength(2);
    expect(await readdir(cwd)).toEqual([]);
  });
});

describe('doctor', () => {
  /** The lines by their topics. */
  const topics = (text: string): Map<string, string> =>
    new Map(
      text
        .trimEnd()
        .split('\n')
        .filter((line) => !line.startsWith(' ')) // onnxruntime's own, told beneath it
        .map((line) => /^(\S+) +(.*)$/.exec(line)!.slice(1) as [string, string]),
    );

  test('says what is loaded, what works, and why the rest does not', async () => {
    const { stdout, ...ended } = await run(['doctor'], await temporaryFolder());
    expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
    const said = topics(stdout);
    const [cpu, cuda] = devices();
    expect(said.get('node')).toBe(`${process.version}, ${process.platform}-${process.arch}`);
    expect(existsSync(said.get('addon')!)).toBe(true);
    expect(basename(said.get('addon')!)).toMatch(/\.node$/);
    expect(said.get('threads')).toMatch(new RegExp(`^${getNumThreads()} .*SCORE_SDE_NUM_THREADS`));
    expect(said.get('cpu')).toContain('works');
    expect(stdout).toContain(`works: ${cpu!.name}, ${cpu!.architecture}`);
    expect(said.get(cuda!.device)).toBe(`not used: ${cuda!.reason}`);
    expect(cuda!.reason).toMatch(/\w{3}/);
    expect(said.get('OnnxModel')).toMatch(/^works on cpu, with ONNX Runtime \d+\.\d+\.\d+, .*libonnxruntime/);
    expect(stdout).toMatch(/^ {2}digits +up to 8 in a call(, \d+ calls at once)?: 64 samples got the same bits/m);
    expect(said.get('onnxruntime-node')).toMatch(/^\d+\.\d+\.\d+, .*onnxruntime-node/);
    // What the package carries no library for must say so.
    for (const provider of ['cuda', 'tensorrt'])
      expect(stdout).toMatch(new RegExp(`^  ${provider} +not there, .*: \\S`, 'm'));
    expect(stdout).toMatch(/^ {2}cpu +works$/m);
    expect(stdout).not.toMatch(/undefined|\[object|\u001b/);
  });

  test('as JSON', async () => {
    const { stdout, ...ended } = await run(['doctor', '--json'], await temporaryFolder());
    expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({
      works: true,
      node: process.version,
      addon: { threads: getNumThreads(), devices: devices().map(({ device, available }) => ({ device, available })) },
      onnxModel: { device: 'cpu', exact: { holds: true } },
      onnxruntimeNode: { providers: expect.arrayContaining([{ name: 'cpu', bundled: true }]) },
    });
  });

  test('exit code 1 where sampling cannot work', async () => {
    const { stdout, ...ended } = await run(['doctor'], await temporaryFolder(), {
      SCORE_SDE_ONNXRUNTIME: '/nowhere/libonnxruntime.so',
    });
    expect(ended).toEqual({ code: 1, signal: null, stderr: '' });
    expect(topics(stdout).get('OnnxModel')).toMatch(/^does not work: .*nowhere/);
  });

  test('a model that is what it is said to be, and one that is not', async () => {
    const right = await run(['doctor', '--model', 'digits'], await temporaryFolder());
    expect(right.code).toBe(0);
    expect(topics(right.stdout).get('model')).toMatch(
      /^digits: samples of \[1, 28, 28\]; takes sample \(float32 .* gives out_sample/,
    );
    expect(right.stdout).toMatch(/^ {2}kind +it acts as a score that takes sigma$/m);

    const folder = await pipelineFolder({ 'unet/model.onnx': kindGraph([1, 4, 4], { gives: 'denoised' }) });
    const { stdout, code } = await run(['doctor', '--json', '--model', folder], await temporaryFolder());
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({
      works: false,
      model: { dir: folder, fits: false, why: expect.stringContaining("say prediction: 'denoised'") },
    });
    const missing = await run(['doctor', '--model', join(folder, 'unet')], await temporaryFolder());
    expect(missing.code).toBe(1);
    expect(missing.stdout).toMatch(/unet +does not load: .*model_index\.json/);
  });

  test('the number of threads that it was told', async () => {
    const { stdout } = await run(['doctor'], await temporaryFolder(), { SCORE_SDE_NUM_THREADS: '3' });
    expect(topics(stdout).get('threads')).toMatch(/^3 /);
  });
});

describe('solvers', () => {
  test('lists all', async () => {
    const { stdout, ...ended } = await run(['solvers'], await temporaryFolder());
    expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
    const [head, ...lines] = stdout.trimEnd().split('\n');
    expect(head).toMatch(/^solver +calls a step +noise +options +source$/);
    expect(lines.map((line) => line.split(' ')[0])).toEqual(solverList.map(({ name }) => name));
    expect(lines[0]).toMatch(/^pc .* 100 calls or more/);
    expect(lines.find((line) => line.startsWith('er_sde'))).toMatch(/ 1 +yes +order eta sNoise +Cui et al\. 2023/);
  });

  test('as JSON', async () => {
    const { stdout } = await run(['solvers', '--json'], await temporaryFolder());
    expect(JSON.parse(stdout)).toEqual(
      solverList.map(({ name, callsPerStep, stochastic, options, source }) => ({
        name,
        callsPerStep,
        stochastic,
        options,
        source,
      })),
    );
  });
});

describe('bench', () => {
  test('--filter that no case matches', async () => {
    const ended = await run(['bench', '--filter', 'stepBack'], await temporaryFolder());
    expect(ended).toEqual({
      code: 1,
      signal: null,
      stdout: '',
      stderr: 'score-sde: there is no case of float32 or float16 whose name holds "stepBack" (ERR_CONFIG)\n',
    });
  });
});

describe('standard output that takes no more: one line and code 1', () => {
  const lost = /^score-sde: cannot write to standard output: [^\n]+ \(ERR_IO\)\n$/;

  test.each([[['solvers']], [['sample', '--calls', '1', '--batch', '1', '--out', '-']]])('%j', async (args) => {
    const { child, ended } = start(args, await temporaryFolder());
    child.stdout.destroy();
    const { code, stderr } = await ended;
    expect(stderr).toMatch(lost);
    expect(code).toBe(1);
  });

  test('a full disk, and the help', async () => {
    if (!existsSync('/dev/full')) return;
    const script = '"$0" "$1" --help > /dev/full';
    const ended = spawnSync('sh', ['-c', script, process.execPath, main], { encoding: 'utf8' });
    expect(ended.stderr).toMatch(lost);
    expect(ended.status).toBe(1);
  });
});

describe('the command itself', () => {
  test.each<[string[], number, 'stdout' | 'stderr', RegExp]>([
    [['--version'], 0, 'stdout', new RegExp(`^${version}\n$`)],
    [['--help'], 0, 'stdout', /sample [^]*doctor /],
    [
      ['sample', '--help'],
      0,
      'stdout',
      /--model <dir>[^]*--out <file>[^]*--seed <n>[^]*--engine <name>[^]*--label[^]*Which to choose/,
    ],
    [[], 1, 'stderr', /sample [^]*doctor /],
    [['paint'], 1, 'stderr', /^error: unknown command 'paint'/],
  ])('%j', async (args, code, stream, says) => {
    const ended = await run(args, await temporaryFolder());
    expect({ code: ended.code, signal: ended.signal }).toEqual({ code, signal: null });
    expect(ended[stream]).toMatch(says);
    expect(ended[stream === 'stdout' ? 'stderr' : 'stdout']).toBe('');
  });
});
