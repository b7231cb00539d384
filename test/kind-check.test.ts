import { join } from 'node:path';
import { fromInferenceSession, OnnxModel, ScoreSdeVePipeline, type OnnxModelOptions } from '../lib';
import { closeSessions, kindGraph, sessionOf, type GraphKind } from './support/onnx';
import { root } from './support/paths';
import { rejection, sentence } from './support/refusals';

afterAll(closeSessions);

const shape = [1, 8, 8];

/** The warnings of a load. */
async function warningsOf(load: () => Promise<{ dispose?(): Promise<void> }>): Promise<string[]> {
  const emit = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  try {
    await (await load()).dispose?.();
    return emit.mock.calls.map(([message]) => String(message));
  } finally {
    emit.mockRestore();
  }
}

const load = (graph: GraphKind, options: OnnxModelOptions = {}, dims: readonly number[] = shape) =>
  warningsOf(() => OnnxModel.load(kindGraph(dims, graph), { device: 'cpu', ...options }));

/** Networks by what they are, and the options that say so. */
const kinds: [GraphKind, OnnxModelOptions, ...says: string[]][] = [
  [{}, {}],
  [{ gives: 'denoised' }, { prediction: 'denoised' }, "prediction: 'denoised'"],
  [{ gives: 'noise' }, { prediction: 'noise' }, "prediction: 'noise'"],
  [{ gives: 'v_prediction' }, { prediction: 'v_prediction' }, "prediction: 'v_prediction'"],
  [{ told: 'log_sigma' }, { conditioning: 'log_sigma' }, "conditioning: 'log_sigma'"],
  [{ told: 'log_sigma_quarter' }, { conditioning: 'log_sigma_quarter' }, "conditioning: 'log_sigma_quarter'"],
  [{ told: { tutorial: 25 } }, { conditioning: { tutorial: 25 } }, 'conditioning: { tutorial: 25 }'],
  [
    { gives: 'denoised', told: 'log_sigma_quarter' },
    { prediction: 'denoised', conditioning: 'log_sigma_quarter' },
    "prediction: 'denoised'",
  ],
  [{ gives: 'noise', told: 'log_sigma' }, { prediction: 'noise', conditioning: 'log_sigma' }, "prediction: 'noise'"],
];

describe('a network that is used as what it is', () => {
  test.each(kinds)('%j: no warning', async (graph, options) => {
    expect(await load(graph, options)).toEqual([]);
  });

  test.each(kinds)('%j of data in [-1, 1]: no warning', async (graph, options) => {
    const data = { mean: 0, deviation: 0.5 };
    expect(await load({ ...graph, ...data }, { ...options, dataRange: [-1, 1] })).toEqual([]);
  });

  test.each(kinds)('%j of two numbers a sample: no warning', async (graph, options) => {
    expect(await load(graph, options, [2])).toEqual([]);
  });
});

describe('a network that is used as what it is not', () => {
  test.each(kinds.slice(1))('%j as a score that takes sigma: the option is named', async (graph, _options, ...says) => {
    const [warning, ...more] = await load(graph);
    expect(more).toEqual([]);
    for (const text of says) expect(warning).toContain(text);
  });

  test.each(['denoised', 'noise', 'v_prediction'] as const)(
    'a score as %s: the default is named',
    async (prediction) => {
      const [warning] = await load({}, { prediction });
      expect(warning).toMatch(
        /the network: it looks like a score that takes sigma, and is used as .*: say prediction: 'score'/,
      );
    },
  );

  test('nothing is said with check: false, nor of a network that nothing fits', async () => {
    expect(await load({ gives: 'denoised' }, { check: false })).toEqual([]);
    expect(await load({ gives: 'noise', told: { t: [3, 4] } })).toEqual([]);
  });

  test.each<[string, GraphKind, OnnxModelOptions]>([
    ...[1, 2.5, 3, 5, 30, 300].flatMap((deviation): [string, GraphKind, OnnxModelOptions][] =>
      kinds
        .slice(0, 3)
        .map(([graph, options]) => [`of deviation ${deviation}`, { ...graph, mean: 0, deviation }, options]),
    ),
    ['said to be of [-128, 127]', { mean: 0, deviation: 60 }, { dataRange: [-128, 127] }],
    ['said to be of [-5, 5]', { mean: 0, deviation: 2 }, { dataRange: [-5, 5] }],
  ])('data %s, %j: no false alarm', async (_, graph, options) => {
    expect(await load(graph, options, [3, 16, 16])).toEqual([]);
  });

  test('a network that gives nothing is none of them', async () => {
    const model = await OnnxModel.load(kindGraph(shape, { deviation: 1e6, mean: 0 }), { device: 'cpu', check: false });
    expect(await model.checkKind()).toMatchObject({ fits: undefined, why: expect.stringContaining('is it trained?') });
    await model.dispose();
  });

  test.each([[[0, 1]], [[2, 1]], [[1, NaN]], [null]])('a range of %j is refused', async (range) => {
    const model = await OnnxModel.load(kindGraph(shape, {}), { device: 'cpu', check: false });
    sentence(await rejection(() => model.checkKind({ sigmaRange: range as never })), 'ERR_RANGE', /sigmaRange must be/);
    await model.dispose();
  });

  test('the time of the SDE is known where the range is', async () => {
    const range = [0.002, 80] as const;
    const model = await OnnxModel.load(kindGraph(shape, { told: { t: range } }), { device: 'cpu', check: false });
    expect(await model.checkKind()).toMatchObject({ fits: undefined });
    expect(await model.checkKind({ sigmaRange: range })).toMatchObject({
      fits: false,
      instead: { conditioning: { t: range } },
    });
    await model.dispose();
  });

  test.each([50, 1348])('the time of an SDE to sigma %d is known without a range', async (highest) => {
    const [warning] = await load({ told: { t: [0.01, highest] } });
    expect(warning).toContain(`say conditioning: { t: [0.01, ${highest}] }`);
  });

  test('sigma for an input of whole numbers, in a session, too', async () => {
    const says = /timestep.* takes whole numbers, to which sigma is truncated: .*conditioning: \{ index/;
    const whole: GraphKind = { type: 'int64' };
    expect(await load(whole)).toEqual([expect.stringMatching(says)]);
    expect(await load(whole, { conditioning: { index: 3, sigmas: [9, 3, 1] } })).toEqual([]);
    const session = await sessionOf(kindGraph(shape, whole));
    expect(await warningsOf(async () => fromInferenceSession(session))).toEqual([expect.stringMatching(says)]);
  });
});

test('the built-in network is a score that takes sigma', async () => {
  const pipeline = await ScoreSdeVePipeline.fromPretrained('digits', { device: 'cpu', check: false });
  expect(await (pipeline.model as OnnxModel).checkKind()).toMatchObject({ fits: true });
  await pipeline.dispose();
  const digits = join(root, 'models/digits/unet/model.onnx');
  const [warning] = await warningsOf(() => OnnxModel.load(digits, { device: 'cpu', prediction: 'denoised' }));
  expect(warning).toContain("say prediction: 'score'");
});
