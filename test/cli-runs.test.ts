import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PNG } from 'pngjs';
import { ScoreSdeVePipeline, solverList, type StepsOptions } from '../lib';
import { dotsOf } from '../lib/cli/compare/font';
import { Sheet } from '../lib/cli/compare/sheet';
import { duration, longRun, measured } from '../lib/cli/estimate';
import { sayLong } from '../lib/cli/progress';
import { interrupted, run, sample, start } from './support/command';
import { removeFolders, temporaryFolder } from './support/folders';

afterAll(removeFolders);

/** So many steps (samplingEps allows no more) that the work does not end in time. */
const forever = ['--steps', '99000'];
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('signals', () => {
  /** Until a process has loaded ONNX Runtime: then its handlers stand, and it loads the network. */
  async function loads(pid: number): Promise<void> {
    const maps = `/proc/${pid}/maps`;
    const isLoaded = () => !existsSync('/proc/self/maps') || readFileSync(maps, 'utf8').includes('libonnxruntime');
    for (const end = Date.now() + 30_000; !isLoaded() && Date.now() < end;) await sleep(5);
    if (!existsSync(maps)) await sleep(1000);
  }

  const nothing = { signal: null, stdout: '', stderr: 'score-sde: interrupted, nothing was written\n' };

  test.each([
    ['no file where there was none', 'SIGINT', 130],
    ['the file that was there', 'SIGTERM', 143],
  ] as const)('while it samples leave %s (%s)', async (what, signal, code) => {
    const cwd = await temporaryFolder();
    const before = what.startsWith('the file');
    await mkdir(join(cwd, 'out'));
    if (before) await writeFile(join(cwd, 'out', 'x.png'), 'it was here before');
    const ended = interrupted(signal, ['sample', ...forever, '--batch', '1', '--out', 'out/x.png', '--yes'], cwd);
    expect(await ended).toEqual({ ...nothing, code });
    expect(await readdir(cwd)).toEqual(['out']);
    expect(await readdir(join(cwd, 'out'))).toEqual(before ? ['x.png'] : []);
    if (before) expect(await readFile(join(cwd, 'out', 'x.png'), 'utf8')).toBe('it was here before');
  });

  test.each(['sample', 'compare'])('end %s while the model loads', async (command) => {
    const cwd = await temporaryFolder();
    const { child, ended } = start([command], cwd);
    await loads(child.pid!);
    child.kill('SIGINT');
    expect(await ended).toEqual({ ...nothing, code: 130 });
    expect(await readdir(cwd)).toEqual([]);
  });
});

describe('a run that is saved and resumed', () => {
  test.each([
    ['SIGINT', 130, ['--solver', 'euler_ancestral', '--steps', '60', '--label', '3'], 'seed 3 (philox)'],
    ['SIGTERM', 143, ['--steps', '30', '--engine', 'torch'], 'the run of run.safetensors'],
  ] as const)('by %s', async (signal, code, options, seed) => {
    const cwd = await temporaryFolder();
    const all = [...options, '--seed', '3', '--batch', '2', '--columns', '1'];
    const args = [...all, '--out', 'a b.png', '--save-on-interrupt', 'run.safetensors'];
    const { stderr, ...ended } = await interrupted(signal, ['sample', ...args], cwd);
    expect(ended).toEqual({ code, signal: null, stdout: '' });
    const file = join(cwd, 'run.safetensors');
    expect(stderr.split('\n')).toEqual([
      'score-sde: saving the run after the network calls under way; a second signal ends it unsaved',
      `score-sde: interrupted, the run is in ${file}; this goes on with it: ` +
        `score-sde sample --resume ${file} --columns 1 --out 'a b.png'`,
      '',
    ]);
    expect(await readdir(cwd)).toEqual(['run.safetensors']);

    const said = await sample(['--resume', 'run.safetensors', '--columns', '1', '--out', 'a b.png'], cwd);
    const whole = await sample([...all, '--out', 'whole.png'], cwd);
    expect(await readFile(join(cwd, 'a b.png'))).toEqual(await readFile(join(cwd, 'whole.png')));
    const words = said.split(', ');
    expect(words[1]).toBe(seed);
    expect(words.slice(2, 4)).toEqual(whole.split(', ').slice(2, 4));
  });

  test.each<[string[], RegExp]>([
    [['--resume', 'none'], /^score-sde: cannot read none: ENOENT.* \(ERR_IO\)\n$/],
    [['--resume', 'foreign'], /^score-sde: the file must be a safetensors file.* \(ERR_CONFIG\)\n$/],
    [['--save-on-interrupt', '.'], /^score-sde: cannot write .*: it is a folder \(ERR_IO\)\n$/],
    ...['--seed', '--batch', '--calls', '--steps', '--label', '--order'].map((option): [string[], RegExp] => [
      ['--resume', 'foreign', option, '1'],
      new RegExp(`^error: option '--resume <file>' cannot be used with option '${option} <n`),
    ]),
    [['--resume', 'foreign', '--engine', 'philox'], /'--resume <file>' cannot be used with option '--engine/],
    [['--resume', 'foreign', '--solver', 'pc'], /'--resume <file>' cannot be used with option '--solver/],
  ])('%j is refused', async (args, says) => {
    const cwd = await temporaryFolder();
    await writeFile(join(cwd, 'foreign'), 'it is no run');
    const { stderr, ...ended } = await run(['sample', ...args], cwd);
    expect(ended).toEqual({ code: 1, signal: null, stdout: '' });
    expect(stderr).toMatch(says);
    expect(await readdir(cwd)).toEqual(['foreign']);
  });
});

describe('a long run', () => {
  test('says what it takes', () => {
    // 16 images, 8 s for each of them, two calls a step.
    expect(longRun({ secondsPerCall: 128, calls: 4000, images: 16 })).toBe(
      '64,000 network calls, about 6 days; --calls 20 takes 43 min',
    );
    expect(longRun({ secondsPerCall: 128, calls: 4000, images: 16 }, false)).toBe('64,000 network calls, about 6 days');
    expect(longRun({ secondsPerCall: 60, calls: 11, images: 1 })).toBe('11 network calls, about 11 min');
    expect(longRun({ secondsPerCall: 60, calls: 10, images: 1 })).toBeUndefined();
    expect(longRun({ secondsPerCall: NaN, calls: NaN, images: 1 })).toBeUndefined();
  });

  test.each([
    [0.2, 'less than 1 s'],
    [40, '40 s'],
    [90, '2 min'],
    [2400, '40 min'],
    [5400, '2 hours'],
    [86400, '24 hours'],
    [6 * 86400, '6 days'],
  ])('%p s in words', (seconds, text) => expect(duration(seconds)).toBe(text));

  test('is refused on a terminal without --yes, and not where any end is a pipe', () => {
    const { stdin, stdout, stderr } = process;
    const written: string[] = [];
    const spy = jest.spyOn(stderr, 'write').mockImplementation((text) => written.push(String(text)) > 0);
    const streams = [stdin, stdout, stderr];
    const before = streams.map((stream) => Object.getOwnPropertyDescriptor(stream, 'isTTY'));
    const on = (terminals: boolean[], yes: boolean) => () => {
      for (const [i, value] of terminals.entries())
        Object.defineProperty(streams[i], 'isTTY', { value, configurable: true });
      sayLong('3 network calls, about 2 days', yes);
    };
    try {
      expect(on([true, true, true], false)).toThrow(
        expect.objectContaining({ code: 'ERR_CONFIG', message: '3 network calls, about 2 days; --yes begins it' }),
      );
      on([true, true, true], true)();
      on([false, false, false], true)();
      expect(written).toEqual([]);
      for (const pipe of [0, 1, 2])
        on(
          [0, 1, 2].map((i) => i !== pipe),
          false,
        )();
      expect(written).toEqual(Array(3).fill('score-sde: 3 network calls, about 2 days\n'));
    } finally {
      spy.mockRestore();
      for (const [i, stream] of streams.entries())
        Object.defineProperty(stream, 'isTTY', before[i] ?? { value: undefined, configurable: true });
    }
  });

  test('is timed as it is, where one image does not show that it is short', async () => {
    // Half a minute a call, whatever the batch.
    const asked: unknown[] = [];
    const pipeline = {
      estimate: ({ batchSize, calls, modelInputs, solver }: StepsOptions) => {
        asked.push([batchSize, calls, modelInputs, solver]);
        return Promise.resolve({ calls: calls!, seconds: 30 * calls! });
      },
    } as unknown as ScoreSdeVePipeline;
    const label = [1, 2, 3, 4];
    const short = await measured(pipeline, { calls: 5, batchSize: 4, label });
    expect([short, asked]).toEqual([
      { secondsPerCall: 120, calls: 5, images: 4, isAdaptive: false },
      [[1, 5, { class_labels: [1] }, undefined]],
    ]);
    const long = await measured(pipeline, { calls: 20, batchSize: 4, label });
    expect(long).toEqual({ secondsPerCall: 30, calls: 20, images: 4, isAdaptive: false });
    expect(asked.at(-1)).toEqual([4, 20, { class_labels: label }, undefined]);
    const adaptive = { solver: 'dpm_adaptive', batchSize: 4, label: undefined };
    const guessed = await measured(pipeline, adaptive, { isAdaptive: true });
    expect(asked.at(-1)).toEqual([4, 2, undefined, undefined]);
    expect(longRun(guessed)).toBe(
      'the solver decides on its calls, 30 an image as a rule: 120 network calls, about 15 min',
    );
  });

  test('goes on in a pipe after a word', async () => {
    const { child, ended, stderr } = start(['sample', ...forever, '--batch', '64'], await temporaryFolder());
    for (const end = Date.now() + 30_000; stderr() === '' && Date.now() < end;) await sleep(20);
    expect(child.exitCode).toBeNull();
    child.kill('SIGINT');
    expect(await ended).toEqual({
      code: 130,
      signal: null,
      stdout: '',
      stderr: expect.stringMatching(
        /^score-sde: 12,672,000 network calls, about \d+ (hours|days); --calls 20 takes .+\nscore-sde: interrupted, .+\n$/,
      ),
    });
  });
});

test.each([
  [['--solver', 'pc', '--calls', '12'], 6],
  [['--solver', 'heun', '--calls', '6'], 4],
  [['--steps', '3'], 3],
])('the bar of %j begins with the steps', async (args, steps) => {
  const cwd = await temporaryFolder();
  await writeFile(join(cwd, 'terminal.js'), 'process.stderr.isTTY = true;');
  const asked = ['sample', ...args, '--batch', '1', '--out', 'x.png'];
  const { ended } = start(asked, cwd, {}, ['--require', join(cwd, 'terminal.js')]);
  const { stderr, code } = await ended;
  expect(code).toBe(0);
  const shown = [...stderr.matchAll(/ (\d+)\/(\d+) steps/g)].map(([, at, total]) => [Number(at), Number(total)]);
  expect(shown[0]).toEqual([0, steps]);
  expect(shown.at(-1)).toEqual([steps, steps]);
});

describe('compare', () => {
  test('a row a solver, a column a number of calls, in each cell the same seeds', async () => {
    const cwd = await temporaryFolder();
    const args = ['--calls', '1,3', '--solvers', 'er_sde,heun', '--count', '2', '--seed', '7', '--label', '3'];
    const { stdout, ...ended } = await run(['compare', ...args, '--out', 'grid.png'], cwd);
    expect(ended).toEqual({ code: 0, signal: null, stderr: '' });
    expect(stdout.trimEnd().split('\n')).toEqual([
      expect.stringMatching(/^solver +calls +seconds +calls made$/),
      ...['er_sde +1', 'er_sde +3', 'heun +1', 'heun +3'].map((start) =>
        expect.stringMatching(new RegExp(`^${start} +\\d+\\.\\d\\d +${start.at(-1)}$`)),
      ),
      `${join(cwd, 'grid.png')}: 2 images a cell, seed 7 (philox), on cpu`,
    ]);

    const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
    const sheet = new Sheet({
      sampleShape: [1, 28, 28],
      count: 2,
      rows: ['er_sde', 'heun'],
      columns: ['1 call', '3 calls'],
    });
    for (const [row, solver] of [undefined, 'heun'].entries())
      for (const [column, calls] of [1, 3].entries()) {
        const options = { solver, calls, seed: 7, batchSize: 2, modelInputs: { class_labels: 3 } };
        sheet.put(row, column, (await pipeline.run(options)).images.data);
      }
    await pipeline.dispose();
    expect(await readFile(join(cwd, 'grid.png'))).toEqual(await sheet.toPng());
  });

  test('colour, gaps and labels', async () => {
    const sheet = new Sheet({ sampleShape: [3, 24, 24], count: 2, rows: ['pc'], columns: ['5 calls', '50 calls'] });
    const plane = (value: number) => new Float32Array(24 * 24).fill(value);
    const image = (...rgb: number[]) => rgb.flatMap((value) => [...plane(value)]);
    sheet.put(0, 1, [...image(1, 0, 0), ...image(0, 0.5, 1)]);
    const { width, height, data } = PNG.sync.read(await sheet.toPng());
    // 'pc' is 22 wide and '50 calls' 94; an image is 24 and twice enlarged.
    const [left, top] = [8 + 22 + 8, 8 + 18 + 8];
    expect([width, height]).toEqual([left + 2 * (96 + 8), top + 48 + 8]);
    const at = (x: number, y: number) => [...data.subarray(4 * (y * width + x)).subarray(0, 3)];
    const second = left + 96 + 8;
    expect([at(second, top), at(second + 47, top + 47)]).toEqual([
      [255, 0, 0],
      [255, 0, 0],
    ]);
    expect([at(second + 48, top), at(second + 95, top + 47)]).toEqual([
      [0, 128, 255],
      [0, 128, 255],
    ]);
    for (const [x, y] of [
      [left, top],
      [second - 1, top],
      [second + 96, top],
      [second, top + 48],
    ] as const)
      expect(at(x, y)).toEqual([255, 255, 255]);
    for (const [x, y] of dotsOf('5 calls')) expect(at(left + 2 * x + 1, 8 + 2 * y + 1)).toEqual([0, 0, 0]);
  });

  test('its help has defaults as they are typed', async () => {
    const { stdout } = await run(['compare', '--help'], await temporaryFolder());
    expect(stdout.replaceAll(/\s+/g, ' ')).toMatch(
      /\(default: 5,10,20\) .* \(default: er_sde,dpmpp_2m,pc\) .* score-sde compare --calls/,
    );
  });

  test('p, q, g, j and y go below the line, and no other', () => {
    const below = [...'abcdefghijklmnopqrstuvwxyz0123456789'].filter((c) => dotsOf(c).some(([, y]) => y > 6));
    expect(below.join('')).toBe('gjpqy');
  });

  test('every character of a label can be drawn', () => {
    for (const character of new Set(solverList.map(({ name }) => name).join('') + '0123456789calls'))
      expect(dotsOf(character).length).toBeGreaterThan(4);
  });

  test.each<[string[], RegExp]>([
    [['--calls', '5,0'], /^error: option '--calls <list>' argument '5,0' is invalid\. Expected an integer/],
    [['--solvers', 'pc,,heun'], /^error: option '--solvers <list>' .* Expected names/],
    [['--solvers', 'pc,ddim'], /^score-sde: there is no solver "ddim".* \(ERR_CONFIG\)\n$/],
    [['--solvers', 'dpm_adaptive'], /^score-sde: the solver dpm_adaptive decides .* \(ERR_CONFIG\)\n$/],
    [['--out', 'x.gif'], /^score-sde: .*\.png.*x\.gif \(ERR_CONFIG\)\n$/],
    // Before anything is timed, of which a word on the length would be said.
    [['--label', '1,99', '--calls', '9000000'], /^score-sde: [^\n]+ 0 to 10, got 99 \(ERR_RANGE\)\n$/],
    [['--label', '1,2', '--count', '3', '--calls', '9000000'], /^score-sde: [^\n]+got 2[^\n]* \(ERR_SHAPE\)\n$/],
  ])('%j is refused', async (args, says) => {
    const cwd = await temporaryFolder();
    const { stderr, ...ended } = await run(['compare', ...args], cwd);
    expect(ended).toEqual({ code: 1, signal: null, stdout: '' });
    expect(stderr).toMatch(says);
    expect(await readdir(cwd)).toEqual([]);
  });
});
