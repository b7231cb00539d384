import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ScoreSdeError } from '../lib/errors';
import {
  defaultConfig,
  formatConfig,
  parseConfig,
  readConfig,
  resolveConfig,
  type SchedulerConfig,
  writeConfig,
} from '../lib/scheduler/config';

const goldenText = `{
  "_class_name": "ScoreSdeVeScheduler",
  "_diffusers_version": "0.23.0",
  "correct_steps": 1,
  "num_train_timesteps": 2000,
  "sampling_eps": 1e-05,
  "sigma_max": 1348.0,
  "sigma_min": 0.01,
  "snr": 0.15
}
`;
const edgeCases = (
  JSON.parse(readFileSync(join(__dirname, 'golden/edge_cases.json'), 'utf8')) as {
    cases: { id: string; result: any }[];
  }
).cases;
const edge = (id: string) => edgeCases.find((item) => item.id === id)!.result;

const failure = (run: () => unknown): ScoreSdeError => {
  try {
    run();
  } catch (error) {
    expect(error).toBeInstanceOf(ScoreSdeError);
    return error as ScoreSdeError;
  }
  throw new Error('nothing was thrown');
};
const rejection = (promise: Promise<unknown>): Promise<ScoreSdeError> =>
  promise.then(
    () => Promise.reject(new Error('nothing was thrown')),
    (error: unknown) => {
      expect(error).toBeInstanceOf(ScoreSdeError);
      return error as ScoreSdeError;
    },
  );

let warnings: jest.SpyInstance;
beforeEach(() => {
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => jest.restoreAllMocks());

/** What an entry of a file becomes when written back at the top level. */
const rewritten = (entries: string): string => {
  const lines = formatConfig(parseConfig(`{${entries}}`)).split('\n');
  const own = new Set(goldenText.split('\n'));
  return lines.filter((line) => !own.has(line) && !own.has(line.replace(/,$/, '')) && !own.has(`${line},`)).join('\n');
};

describe('resolveConfig', () => {
  test('the defaults are those of the reference', () => {
    const { config } = edge('ctor_default');
    expect(resolveConfig()).toEqual(defaultConfig);
    expect(resolveConfig()).toEqual(parseConfig(config).config);
    expect(Object.keys(resolveConfig())).toEqual(Object.keys(defaultConfig));
    expect(Object.isFrozen(resolveConfig())).toBe(true);
    expect(Object.isFrozen(defaultConfig)).toBe(true);
  });

  test('undefined means the default', () => {
    expect(resolveConfig({ snr: undefined, sigmaMax: 50 })).toEqual({ ...defaultConfig, sigmaMax: 50 });
  });

  test.each<Partial<SchedulerConfig>>([
    { numTrainTimesteps: 0 },
    { numTrainTimesteps: 1 },
    { numTrainTimesteps: 2 ** 24 },
    { snr: 0 },
    { sigmaMin: 10, sigmaMax: 0.1 },
    { sigmaMin: 1, sigmaMax: 1 },
    { sigmaMin: 5e-324 },
    { samplingEps: 0 },
    { samplingEps: 2 },
    { samplingEps: -0.1 },
    { correctSteps: 0 },
  ])('accepts %j', (options) => {
    expect(resolveConfig(options)).toEqual({ ...defaultConfig, ...options });
  });

  const finite = ['snr', 'sigmaMin', 'sigmaMax', 'samplingEps', 'numTrainTimesteps', 'correctSteps'];
  test.each([
    ...finite.flatMap((name) => [null, '1', true, 1n, [1], {}, NaN, Infinity, -Infinity].map((v) => [name, v])),
    ...finite.filter((name) => name !== 'samplingEps').map((name) => [name, -1]),
    ['numTrainTimesteps', 10.5],
    ['numTrainTimesteps', 2 ** 24 + 1],
    ['correctSteps', 0.5],
    ['correctSteps', 2 ** 53],
    ['sigmaMin', 0],
    ['sigmaMax', 0],
  ])('refuses %s %p', (name, value) => {
    const error = failure(() => resolveConfig({ [name as string]: value }));
    expect(error.code).toBe('ERR_CONFIG');
    expect(error.message).toMatch(new RegExp(`^${String(name)}: expected an? .+, got .+$`));
  });

  test('says what was expected, and what came', () => {
    expect(failure(() => resolveConfig({ sigmaMin: -1 })).message).toBe(
      'sigmaMin: expected a finite number > 0, got -1',
    );
    expect(failure(() => resolveConfig({ numTrainTimesteps: '10' as never })).message).toBe(
      'numTrainTimesteps: expected an integer from 0 to 16777216, got "10"',
    );
  });

  test.each(['foo', 'sigma_max', 'constructor', '__proto__'])('refuses the unknown key %s', (key) => {
    const error = failure(() => resolveConfig(JSON.parse(`{"${key}": 1}`)));
    expect(error.code).toBe('ERR_CONFIG');
    expect(error.message).toBe(
      `options: expected only numTrainTimesteps, snr, sigmaMin, sigmaMax, samplingEps, correctSteps, got "${key}"`,
    );
  });

  test.each([null, 5, 'x', [[]], new Map()])('refuses %p for options', (options) => {
    expect(failure(() => resolveConfig(options as never)).message).toMatch(/^options: expected an object, got /);
  });
});

describe('formatConfig', () => {
  test('writes what diffusers writes', () => {
    expect(formatConfig({ config: defaultConfig })).toBe(goldenText);
    expect(formatConfig(parseConfig(goldenText))).toBe(goldenText);
    expect(formatConfig(parseConfig({}))).toBe(goldenText);
  });

  test('keeps an integer spelling where the value is unchanged', () => {
    const { json, reloaded } = edge('save_config');
    const stored = parseConfig(json);
    expect(json).toContain('"sigma_max": 1348,');
    expect(formatConfig(stored)).toBe(json);
    expect(formatConfig(parseConfig(json, { sigmaMax: 1348 }))).toBe(json);
    expect(formatConfig(parseConfig(json, { sigmaMax: 50 }))).toContain('"sigma_max": 50.0,');
    expect(formatConfig({ ...stored, config: { ...stored.config, sigmaMax: 50 } })).toContain('"sigma_max": 50.0,');
    expect(formatConfig(parseConfig(reloaded))).toContain('"sigma_max": 1348.0,');
    expect(rewritten('"snr": -0, "sigma_max": 100000000000000000000000, "num_train_timesteps": 1e3')).toBe(
      '  "num_train_timesteps": 1000,\n  "sigma_max": 100000000000000000000000,\n  "snr": 0',
    );
  });

  test.each([
    ['0.0', '0.0'],
    ['-0.0', '-0.0'],
    ['1e0', '1.0'],
    ['1.50', '1.5'],
    ['0.0001', '0.0001'],
    ['0.00001', '1e-05'],
    ['0.00012345', '0.00012345'],
    ['0.000012345', '1.2345e-05'],
    ['1E-7', '1e-07'],
    ['-1.5e-10', '-1.5e-10'],
    ['5e-324', '5e-324'],
    ['1e-400', '0.0'],
    ['123456789.125', '123456789.125'],
    ['1e15', '1000000000000000.0'],
    ['9999999999999998.0', '9999999999999998.0'],
    ['1e16', '1e+16'],
    ['123456789012345680.0', '1.2345678901234568e+17'],
    ['1e22', '1e+22'],
    ['1.7976931348623157e308', '1.7976931348623157e+308'],
    ['0.1000000000000000055', '0.1'],
    ['1e400', 'Infinity'],
    ['-1e400', '-Infinity'],
    ['NaN', 'NaN'],
    ['Infinity', 'Infinity'],
    ['-Infinity', '-Infinity'],
    ['0', '0'],
    ['-0', '0'],
    ['-17', '-17'],
    ['123456789012345678901234567890', '123456789012345678901234567890'],
  ])('the number %s reads back as %s', (given, written) => {
    expect(rewritten(`"x": ${given}`)).toBe(`  "x": ${written}`);
  });

  test.each<[unknown, string]>([
    [1, '1'],
    [-0, '0'],
    [1e21, '1000000000000000000000'],
    [12n ** 20n, '3833759992447475122176'],
    [0.5, '0.5'],
    [1e-7, '1e-07'],
    [NaN, 'NaN'],
    [-Infinity, '-Infinity'],
    [null, 'null'],
    [true, 'true'],
    ['', '""'],
  ])('%p of an object is written as %s', (value, written) => {
    expect(formatConfig(parseConfig({ x: value }))).toContain(`\n  "x": ${written}\n`);
  });

  test('lists and dicts as Python indents and sorts them', () => {
    expect(rewritten('"x": {"b": [], "a": {}, "c": [1, [2.0, {"z": null, "y": false}]]}')).toBe(`  "x": {
    "a": {},
    "b": [],
    "c": [
      1,
      [
        2.0,
        {
          "y": false,
          "z": null
        }
      ]
    ]
  }`);
    expect(formatConfig(parseConfig({ x: { b: undefined, a: 1 } }))).toContain('"x": {\n    "a": 1\n  }\n');
  });

  test('strings are escaped as by ensure_ascii', () => {
    const text = '"x": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\x7f\u00e9\u2028\ud83d\ude00\\ud83d\\ude00\\ud800NaN{["';
    expect(rewritten(text)).toBe(
      '  "x": "\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f\\u00e9\\u2028\\ud83d\\ude00\\ud83d\\ude00\\ud800NaN{["',
    );
  });

  test('keys are sorted by code point', () => {
    const keys = ['z', '\u{1f600}', '\uff5e', 'Z', '_z', 'z1', '\ud83d'];
    const lines = rewritten(keys.map((key) => `${JSON.stringify(key)}: 0`).join());
    expect(lines.match(/"[^"]*"/g)).toEqual(
      ['Z', '_z', 'z', 'z1', '\\ud83d', '\\uff5e', '\\ud83d\\ude00'].map((key) => `"${key}"`),
    );
  });

  test('is stable over a round trip', () => {
    const text = formatConfig(
      parseConfig('{"trained_betas": null, "x": [1, 1.0, "\u00e9", {"__proto__": NaN}], "_y": 1e5, "snr": 1}'),
    );
    expect(formatConfig(parseConfig(text))).toBe(text);
    expect(text).toContain('"__proto__": NaN');
  });
});

describe('parseConfig', () => {
  const other = { num_train_timesteps: 10, snr: 0.2, sigma_min: 1, sigma_max: 2, sampling_eps: 0.5, correct_steps: 3 };
  const camel = { numTrainTimesteps: 10, snr: 0.2, sigmaMin: 1, sigmaMax: 2, samplingEps: 0.5, correctSteps: 3 };

  test('takes snake_case and camelCase, text and objects', () => {
    for (const given of [other, camel]) {
      expect(parseConfig(given).config).toEqual(camel);
      expect(parseConfig(JSON.stringify(given)).config).toEqual(camel);
    }
    expect(parseConfig(parseConfig(other).config).config).toEqual(camel);
    expect(warnings).not.toHaveBeenCalled();
  });

  test('overrides win, and undefined ones do not count', () => {
    expect(parseConfig(other, { snr: 0.3, sigmaMin: undefined }).config).toEqual({ ...camel, snr: 0.3 });
    expect(parseConfig('{"snr": "bad"}', { snr: 0.3 }).config.snr).toBe(0.3);
    expect(failure(() => parseConfig({}, { snr: -1 })).message).toBe('snr: expected a finite number >= 0, got -1');
    expect(failure(() => parseConfig({}, { sigma_min: 1 } as never)).message).toMatch(/^overrides: expected only /);
    expect(failure(() => parseConfig({}, null as never)).message).toMatch(/^overrides: expected an object, got null/);
  });

  test('keeps unknown keys, with one warning', () => {
    const result = edge('from_config_unknown');
    const stored = parseConfig(result);
    expect(stored.config).toEqual({ ...defaultConfig, snr: 0.2 });
    expect(formatConfig(stored)).toContain('\n  "foo": 1,\n');
    expect(warnings.mock.calls).toEqual([['config: unknown keys are kept but not used: "foo"', 'ScoreSdeWarning']]);

    // A scheduler's own config has them with it, and the spelling of its numbers.
    warnings.mockClear();
    const spelt = parseConfig('{"foo": 1, "sigma_max": 5}');
    warnings.mockClear();
    expect(formatConfig(parseConfig(spelt.config))).toBe(formatConfig(spelt));
    expect(formatConfig(parseConfig(spelt.config, { sigmaMax: 6 }))).toMatch(/"foo": 1,[^]*"sigma_max": 6\.0,/);
    expect(warnings).not.toHaveBeenCalled();

    parseConfig(Object.fromEntries(Array.from({ length: 10 }, (_, i) => [`k${i}`, i])));
    expect(warnings).toHaveBeenCalledTimes(1);
    expect(warnings.mock.calls[0][0]).toMatch(/"k0", .*"k7", and 2 more$/);
  });

  test('keeps private keys without a word, but for those that diffusers does not write', () => {
    const stored = parseConfig({ _private: 1, _ignore_files: [], _use_default_values: [], _diffusers_version: '0.1' });
    expect(formatConfig(stored)).toBe(goldenText.replace('"correct_steps"', '"_private": 1,\n  "correct_steps"'));
    expect(warnings).not.toHaveBeenCalled();
  });

  test('takes the defaults of what _use_default_values names', () => {
    expect(parseConfig({ snr: 0.5, sigma_max: 50, _use_default_values: ['snr'] }).config).toEqual({
      ...defaultConfig,
      sigmaMax: 50,
    });
  });

  test('of a key given twice the last counts, as in Python', () => {
    expect(parseConfig('{"snr": 1, "snr": 0.5}').config.snr).toBe(0.5);
    expect(rewritten('"x": 1, "x": [2]')).toBe('  "x": [\n    2\n  ]');
  });

  test('the same field in both spellings is an error', () => {
    expect(failure(() => parseConfig({ sigma_min: 1, sigmaMin: 1 })).message).toBe(
      'sigmaMin: expected this field once, got sigma_min and sigmaMin',
    );
    expect(parseConfig({ sigma_min: 1, sigmaMin: undefined }).config.sigmaMin).toBe(1);
  });

  test('the config of another class is an error', () => {
    expect(parseConfig({ _class_name: 'ScoreSdeVeScheduler' }).config).toEqual(defaultConfig);
    expect(formatConfig(parseConfig({ _class_name: 'FlaxScoreSdeVeScheduler' }))).toBe(goldenText);
    const error = failure(() => parseConfig('{"_class_name": "DDPMScheduler"}'));
    expect(error.code).toBe('ERR_CONFIG');
    expect(error.message).toBe('_class_name: expected "ScoreSdeVeScheduler", got "DDPMScheduler"');
    for (const name of [null, 1, ['a', 'b']])
      expect(failure(() => parseConfig({ _class_name: name })).code).toBe('ERR_CONFIG');
  });

  test.each([
    ['{"sigma_min": -1}', 'sigma_min: expected a finite number > 0, got -1'],
    ['{"sigma_min": 1e999}', 'sigma_min: expected a finite number > 0, got Infinity'],
    ['{"snr": NaN}', 'snr: expected a finite number >= 0, got NaN'],
    ['{"snr": null}', 'snr: expected a finite number >= 0, got null'],
    ['{"correct_steps": 1.5}', 'correct_steps: expected an integer >= 0, got 1.5'],
    ['{"num_train_timesteps": 1e9}', 'num_train_timesteps: expected an integer from 0 to 16777216, got 1000000000'],
    ['[1, 2]', 'config: expected a JSON object, got an array of 2'],
    ['null', 'config: expected a JSON object, got null'],
    ['5', 'config: expected a JSON object, got 5'],
    ['"x"', 'config: expected a JSON object, got "x"'],
    [[1] as object, 'config: expected a JSON object, got [1]'],
    [new Map() as object, 'config: expected a JSON object, got a Map'],
    [undefined as never, 'config: expected a JSON object, got undefined'],
    [{ x: [1, { y: () => 1 }] }, 'x[1].y: expected a JSON value, got a function'],
    [{ x: new Date(0) }, 'x: expected a JSON value, got a Date'],
    [{ x: [undefined] }, 'x[0]: expected a JSON value, got undefined'],
  ])('refuses %j', (json, message) => {
    const error = failure(() => parseConfig(json));
    expect(error.code).toBe('ERR_CONFIG');
    expect(error.message).toBe(message);
  });

  test.each(['', '{', '{"snr": 1,}', '{"snr": 01}', "{'snr': 1}", '{} {}', '\ufeff{}', '{"x": "\n"}', '{"x": "'])(
    'refuses the text %j',
    (text) => {
      const error = failure(() => parseConfig(text));
      expect(error.code).toBe('ERR_CONFIG');
      expect(error.message).toMatch(/^config: not valid JSON: .+ at position \d+$/s);
    },
  );

  test.each(['NaN5', '1NaN', '-NaN', '+Infinity', '1Infinity', 'NaNNaN', '--Infinity'])(
    'refuses the literal %s',
    (x) => {
      expect(failure(() => parseConfig(`{"x": ${x}}`)).code).toBe('ERR_CONFIG');
      expect(failure(() => parseConfig(`{${x}: 1}`)).code).toBe('ERR_CONFIG');
    },
  );

  test('refuses what is nested too deeply or too long', () => {
    const deep = (n: number) => `{"x": ${'['.repeat(n - 1)}${']'.repeat(n - 1)}}`;
    expect(parseConfig(deep(64)).config).toEqual(defaultConfig);
    expect(failure(() => parseConfig(deep(65))).message).toBe(
      'config: expected at most 64 levels of nesting, got more',
    );
    expect(failure(() => parseConfig('['.repeat(1e6))).code).toBe('ERR_CONFIG');
    expect(parseConfig(JSON.parse(deep(64))).config).toEqual(defaultConfig);
    expect(failure(() => parseConfig(JSON.parse(deep(65)))).message).toMatch(
      / at most 64 levels of nesting, got more$/,
    );
    const loop: Record<string, unknown> = {};
    loop.x = loop;
    expect(failure(() => parseConfig(loop)).code).toBe('ERR_CONFIG');
    expect(failure(() => parseConfig(' '.repeat(2 ** 20 + 1))).message).toBe(
      'config: expected at most 1048576 characters, got 1048577',
    );
  });

  test('quotes without an end take linear time', () => {
    const start = performance.now();
    expect(failure(() => parseConfig(`{"x": "${'\\"'.repeat(500_000)}`)).code).toBe('ERR_CONFIG');
    expect(performance.now() - start).toBeLessThan(5000);
  });

  test('prototype keys are but keys', () => {
    const text = '{"__proto__": {"polluted": 1, "snr": 1}, "x": {"__proto__": {"polluted": 1}}, "constructor": 1}';
    for (const json of [text, JSON.parse(text)]) {
      const stored = parseConfig(json);
      expect(stored.config).toEqual(defaultConfig);
      expect(formatConfig(stored)).toContain('\n  "__proto__": {\n    "polluted": 1,\n    "snr": 1\n  },\n');
      expect(formatConfig(stored)).toContain('\n  "x": {\n    "__proto__": {\n');
      expect(formatConfig(stored)).toContain('\n  "constructor": 1,\n');
    }
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

describe('files', () => {
  const name = 'scheduler_config.json';
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'score-sde-config-'));
  });
  afterEach(() => rm(dir, { recursive: true, force: true }));

  test('what is written is read', async () => {
    const target = join(dir, 'a', 'b');
    const stored = parseConfig('{"sigma_max": 50, "x": [NaN, 1.0]}');
    await writeConfig(target, stored);
    expect(await readFile(join(target, name), 'utf8')).toBe(formatConfig(stored));
    expect(await readdir(target)).toEqual([name]);
    expect(await readConfig(target)).toEqual(stored);
    expect((await readConfig(join(target, name))).config).toEqual(stored.config);
    expect((await readConfig(target, undefined, { snr: 1 })).config.snr).toBe(1);
    expect(warnings.mock.calls.at(-1)[0]).toBe(
      `${join(target, name)}: config: unknown keys are kept but not used: "x"`,
    );

    await writeConfig(target, { config: defaultConfig });
    expect(await readFile(join(target, name), 'utf8')).toBe(goldenText);
    expect(await readdir(target)).toEqual([name]);
  });

  test('the subfolder comes first, then the folder', async () => {
    await writeConfig(dir, { config: resolveConfig({ snr: 1 }) });
    expect((await readConfig(dir, 'scheduler')).config.snr).toBe(1);
    await writeConfig(join(dir, 'scheduler'), { config: resolveConfig({ snr: 2 }) });
    expect((await readConfig(dir, 'scheduler')).config.snr).toBe(2);
    expect((await readConfig(dir)).config.snr).toBe(1);
    await rm(join(dir, name));
    expect((await readConfig(dir, 'scheduler')).config.snr).toBe(2);
  });

  test('a missing file', async () => {
    await mkdir(join(dir, 'x', name), { recursive: true });
    for (const missing of [dir, join(dir, 'none'), join(dir, 'x')]) {
      const error = await rejection(readConfig(missing, 'sub'));
      expect(error.code).toBe('ERR_CONFIG');
      expect(error.message).toBe(`no file named ${name} found in directory ${missing}`);
    }
  });

  test.each<[string, string | Uint8Array, RegExp]>([
    ['bad JSON', '{"snr"', /: config: not valid JSON: /],
    ['an array', '[]', /: config: expected a JSON object, got \[\]$/],
    ['a bad field', '{"snr": -1}', /: snr: expected a finite number >= 0, got -1$/],
    ['another class', '{"_class_name": "DDIMScheduler"}', /: _class_name: expected "ScoreSdeVeScheduler", got /],
    ['bad UTF-8', Uint8Array.of(0x7b, 0xff, 0x7d), /: not valid UTF-8$/],
    ['a git-lfs pointer', 'version https://git-lfs.github.com/spec/v1\n', /: this is a git-lfs pointer, not the file/],
    ['a page', '\n<html></html>', /: this is a page of HTML or XML/],
    ['too long', ' '.repeat(2 ** 20 + 1), /: expected at most 1048576 bytes$/],
  ])('%s is an error that names the file', async (_, content, message) => {
    await writeFile(join(dir, name), content);
    const error = await rejection(readConfig(dir));
    expect(error.code).toBe('ERR_CONFIG');
    expect(error.message.startsWith(`${join(dir, name)}: `)).toBe(true);
    expect(error.message).toMatch(message);
  });

  test('a byte order mark in a file is left out', async () => {
    await writeFile(join(dir, name), '\ufeff{"snr": 0.25}');
    expect((await readConfig(dir)).config.snr).toBe(0.25);
  });

  test('what cannot be read', async () => {
    await symlink(join(dir, name), join(dir, name));
    const error = await rejection(readConfig(dir));
    expect(error.code).toBe('ERR_IO');
    expect(error.message).toMatch(/^cannot read .*ELOOP/);
    expect((error.cause as NodeJS.ErrnoException).code).toBe('ELOOP');
    expect((await rejection(readConfig(5 as never))).message).toBe('dir: expected a path, got 5');
    expect((await rejection(readConfig(dir, null as never))).message).toBe('subfolder: expected a path, got null');
  });

  test('what cannot be written', async () => {
    await writeFile(join(dir, 'file'), '');
    await mkdir(join(dir, 'taken', name), { recursive: true });
    for (const target of [join(dir, 'file'), join(dir, 'taken')]) {
      const error = await rejection(writeConfig(target, { config: defaultConfig }));
      expect(error.code).toBe('ERR_IO');
      expect(error.message.startsWith(`cannot write ${join(target, name)}: `)).toBe(true);
    }
    expect(await readdir(join(dir, 'taken'))).toEqual([name]);
    expect((await rejection(writeConfig(undefined as never, { config: defaultConfig }))).code).toBe('ERR_CONFIG');
  });
});
