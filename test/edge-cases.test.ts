import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { manualSeed, ScoreSdeVeScheduler, Tensor } from '../lib';
import { bitEqual, camelKeys, readJson } from './support/golden';
import { configuration, removeFolders, sameTables, tables, type Tables } from './support/edge-schedule';
import {
  addNoise,
  correct,
  diffusionOf,
  differs,
  equal,
  floats,
  M,
  pred,
  refused,
  sameCorrect,
  samePred,
  sameTensor,
  scheduler,
  toHalf,
  torch,
  X,
  type EdgeCase,
  type Handler,
  type Input,
  type StoredCorrect,
  type StoredPred,
  type StoredTensor,
} from './support/edge';

function withoutTimesteps(): ScoreSdeVeScheduler {
  const s = scheduler();
  s.timesteps = null;
  return s;
}

afterAll(removeFolders);

const changed = (values: Record<number, number>) => {
  const model = M();
  for (const [i, value] of Object.entries(values)) floats(model)[Number(i)] = value;
  return model;
};
const times = (factor: number): Input => ({ data: floats(M()).map((v) => v * factor), dims: [2, 3, 2, 2] });

const first = (batch: Tensor): Input => ({ data: floats(batch).slice(0, 12), dims: [1, 3, 2, 2] });

const corrector: Record<string, Handler> = {
  correct_zero_grad: equal((stored: StoredCorrect) => sameCorrect(correct({ model: times(0) }), stored)),
  correct_zero_grad_one: equal((stored: StoredCorrect) =>
    sameCorrect(correct({ model: changed(Object.fromEntries(Array.from({ length: 12 }, (_, i) => [i, 0]))) }), stored),
  ),
  correct_nan_one: equal((stored: StoredCorrect) => sameCorrect(correct({ model: changed({ 0: NaN }) }), stored)),
  correct_inf_one: equal((stored: StoredCorrect) => sameCorrect(correct({ model: changed({ 0: Infinity }) }), stored)),
  correct_big: equal((stored: StoredCorrect) => sameCorrect(correct({ model: times(1e20) }), stored)),
  correct_tiny: equal((stored: StoredCorrect) => sameCorrect(correct({ model: times(1e-30) }), stored)),
  correct_snr0: equal(() => bitEqual(floats(correct({ s: scheduler(10, { snr: 0 }) }).prevSample), floats(X()))),
  correct_coupling: equal((stored: StoredCorrect) =>
    sameCorrect(correct({ options: { generator: torch(5) } }), stored),
  ),
  correct_B1: equal((stored: StoredCorrect) => sameCorrect(correct({ sample: first(X()), model: first(M()) }), stored)),
};

const shapes: Record<string, number[]> = {
  '1d': [4],
  '2d': [2, 5],
  '3d': [2, 3, 4],
  '5d': [2, 2, 2, 2, 2],
  empty_batch: [0, 3, 2, 2],
};
const scalar = { data: Float32Array.of(1), dims: [] };
const integers = { type: 'int64', data: BigInt64Array.from({ length: 24 }, () => 1n), dims: [2, 3, 2, 2] };
const permuted = { data: floats(X()), dims: [2, 3, 2, 2] };
const oneRow = { model: M([1, 3, 2, 2]) };
const wrongColumns = { model: M([2, 3, 2, 3]) };

const arguments_: Record<string, Handler> = {
  no_timesteps_pred: refused('ERR_STATE', () => pred({ s: withoutTimesteps() })),
  no_timesteps_correct: refused('ERR_STATE', () => correct({ s: withoutTimesteps() })),
  correct_shape_empty_batch: refused('ERR_SHAPE', () => correct({ sample: X([0, 3, 2, 2]), model: M([0, 3, 2, 2]) })),
  pred_shape_0d: refused('ERR_SHAPE', () => pred({ sample: scalar, model: scalar })),
  correct_shape_0d: refused('ERR_SHAPE', () => correct({ sample: scalar, model: scalar })),
  pred_model_broadcast: refused('ERR_SHAPE', () => pred(oneRow)),
  correct_model_broadcast: refused('ERR_SHAPE', () => correct(oneRow)),
  pred_model_bigger: refused('ERR_SHAPE', () => pred({ sample: X([1, 3, 2, 2]) })),
  pred_model_mismatch: refused('ERR_SHAPE', () => pred(wrongColumns)),
  correct_model_mismatch: refused('ERR_SHAPE', () => correct(wrongColumns)),
  pred_int_sample: refused('ERR_DTYPE', () => pred({ sample: integers })),
  correct_int_sample: refused('ERR_DTYPE', () => correct({ sample: integers })),
  t_2d: refused('ERR_SHAPE', () => pred({ t: { data: Float32Array.of(0.5, 0.5), dims: [2, 1] } })),
  ret_tuple_pred: equal((size: number) =>
    expect(scheduler().stepPred(M(), 0.5, X(), { returnDict: false })).toHaveLength(size),
  ),
  ret_tuple_correct: equal((size: number) =>
    expect(scheduler().stepCorrect(M(), X(), { returnDict: false })).toHaveLength(size),
  ),
  ret_types: differs((result: Record<'pred_keys' | 'correct_keys', string[]>) => {
    const keys = (names: string[]) => Object.keys(camelKeys(Object.fromEntries(names.map((name) => [name, 0])))).sort();
    expect(Object.keys(pred()).sort()).toEqual(keys(result.pred_keys));
    expect(Object.keys(correct()).sort()).toEqual(keys(result.correct_keys));
  }),
  inputs_untouched: equal(() => {
    const [sample, model] = [X(), M()];
    pred({ sample, model });
    correct({ sample, model });
    bitEqual(floats(sample), floats(X()));
    bitEqual(floats(model), floats(M()));
  }),
  scale_model_input: equal(() => {
    const sample = X();
    expect(scheduler().scaleModelInput(sample)).toBe(sample);
    expect(scheduler().scaleModelInput(sample, 0.5)).toBe(sample);
    expect(scheduler().scaleModelInput('anything' as never)).toBe('anything');
  }),
  grad_flows: differs(() => expect(pred().prevSample).not.toHaveProperty('grad')),
  noncontiguous: refused('ERR_SHAPE', () => pred({ sample: { ...permuted, strides: [12, 1, 3, 6] } as Input })),
};

const generators: Record<string, Handler> = {
  gen_list_1: equal(() =>
    bitEqual(floats(pred({ options: { generator: [torch(0)] } }).prevSample), floats(pred().prevSample)),
  ),
  gen_list_B: equal((stored: StoredPred) => samePred(pred({ options: { generator: [torch(0), torch(1)] } }), stored)),
  gen_list_B_correct: equal((stored: StoredCorrect) =>
    sameCorrect(correct({ options: { generator: [torch(0), torch(1)] } }), stored),
  ),
  gen_list_short: refused('ERR_SHAPE', () => {
    const [sample, model] = [X([3, 3, 2, 2]), M([3, 3, 2, 2])];
    return pred({ sample, model, options: { generator: [torch(0), torch(1)] } });
  }),
  gen_list_long: refused('ERR_SHAPE', () => pred({ options: { generator: [0, 1, 2].map(torch) } })),
  gen_list_empty: refused('ERR_SHAPE', () => pred({ options: { generator: [] } })),
  gen_tuple: differs(() =>
    expect(pred({ options: { generator: Object.freeze([torch(0), torch(1)]) as never } })).toBeDefined(),
  ),
  gen_none: equal((stored: StoredPred) => {
    manualSeed(7, { engine: 'torch' });
    samePred(pred({ options: {} }), stored);
  }),
  gen_none_eq: equal(() => {
    manualSeed(7, { engine: 'torch' });
    bitEqual(floats(pred({ options: {} }).prevSample), floats(pred({ options: { generator: torch(7) } }).prevSample));
  }),
};

const noised = (indices: unknown, inputs?: Parameters<typeof addNoise>[1]) =>
  equal((stored: StoredTensor) => sameTensor(addNoise(indices, inputs), stored));
const long = (...indices: number[]) => BigInt64Array.from(indices, BigInt);
const sameAsLong = (indices: unknown, same = long(0, 9)) =>
  differs(() => bitEqual(floats(addNoise(indices)), floats(addNoise(same))));
const noisyShape = (dims: number[]) =>
  refused('ERR_SHAPE', () => addNoise(long(3, 7), { sample: X(dims), noise: M(dims) }));

const noise: Record<string, Handler> = {
  add_noise_t_long: noised(long(0, 9)),
  add_noise_t_neg: noised(long(-1, -10)),
  add_noise_t_len1: noised(long(4)),
  add_noise_t_int32: sameAsLong(Int32Array.of(0, 9)),
  add_noise_t_list: sameAsLong([0, 9]),
  add_noise_t_uint8_mask: refused('ERR_DTYPE', () => addNoise(Uint8Array.of(0, 1))),
  add_noise_t_bool_mask: refused('ERR_DTYPE', () => addNoise([true, true])),
  add_noise_t_float: refused('ERR_DTYPE', () => addNoise(Float32Array.of(0, 9))),
  add_noise_t_oob: refused('ERR_RANGE', () => addNoise(long(0, 10))),
  add_noise_t_neg_oob: refused('ERR_RANGE', () => addNoise(long(0, -11))),
  add_noise_t_len3: refused('ERR_SHAPE', () => addNoise(long(1, 2, 3))),
  add_noise_t_pyint: sameAsLong(4, long(4)),
  add_noise_t_0d: sameAsLong({ type: 'int64', data: long(4), dims: [] }, long(4)),
  add_noise_t_2d: refused('ERR_SHAPE', () => addNoise({ type: 'int64', data: long(1, 2), dims: [2, 1] })),
  add_noise_2d: noisyShape([2, 5]),
  add_noise_5d: noisyShape([2, 2, 2, 2, 2]),
  add_noise_5d_mismatch: noisyShape([2, 3, 2, 2, 2]),
  add_noise_none: equal((stored: StoredTensor) => {
    manualSeed(7, { engine: 'torch' });
    sameTensor(scheduler().addNoise(X(), undefined, long(3, 7)), stored);
  }),
};

/** The timesteps that a case names other than as a plain number. */
const timesteps: Record<string, unknown> = {
  f32_0d: new Tensor('float32', Float32Array.of(0.5), []),
  f64_0d: { type: 'float64', data: Float64Array.of(0.5), dims: [] },
  i64_0d: { type: 'int64', data: long(1), dims: [] },
  f32_1d_B: Float32Array.of(0.25, 1),
  f64_1d_B: Float64Array.of(0.25, 1),
  i64_1d_B: { type: 'int64', data: long(0, 1), dims: [2] },
  f16_1d_B: { type: 'float16', data: Uint16Array.of(0x3400, 0x3c00), dims: [2] },
  f32_1d_1: Float32Array.of(0.5),
  f32_1d_3: Float32Array.of(0.5, 0.2, 0.1),
  np_f64: 0.5,
  np_f32: 0.5,
  list: [0.5, 0.5],
  None: null,
  str: 'a',
  True: true,
  nan: NaN,
  inf: Infinity,
  '1+1ulp': 1.0000001192092896,
};
const timestepOf = (name: string) => (name in timesteps ? timesteps[name] : Number(name.replace(/^(int|float)/, '')));

const refusedTimesteps: Record<string, string> = {
  None: 'ERR_RANGE',
  str: 'ERR_RANGE',
  nan: 'ERR_RANGE',
  inf: 'ERR_RANGE',
  '1.2': 'ERR_RANGE',
  '2': 'ERR_RANGE',
  '-0.2': 'ERR_RANGE',
  '-1': 'ERR_RANGE',
  '-1.1': 'ERR_RANGE',
  '-1.2': 'ERR_RANGE',
  f32_1d_3: 'ERR_SHAPE',
};

function timestepCase(kind: string, name: string): Handler {
  const t = timestepOf(name);
  if (name in refusedTimesteps) return refused(refusedTimesteps[name]!, () => pred({ t }));
  if (name === 'list') return differs(() => bitEqual(floats(pred({ t }).prevSample), floats(pred().prevSample)));
  if (kind === 'pred') {
    if (name !== 'f64_1d_B') return equal((stored: StoredPred) => samePred(pred({ t }), stored));
    return differs(({ prev_sample }: StoredPred) => sameTensor(pred({ t }).prevSample, prev_sample, 1e-6));
  }
  // A zero sample and score, and a noise of ones: the step is the diffusion at the index.
  return equal(({ index }: { index: { values: number[] } }) => {
    const [s, dims] = [scheduler(), [2, 1]];
    const zeros = { data: new Float32Array(2), dims };
    const step = pred({ s, t, sample: zeros, model: zeros, options: { noise: { data: Float32Array.of(1, 1), dims } } });
    bitEqual(
      floats(step.prevSample),
      index.values.map((i) => diffusionOf(s, i)),
    );
  });
}

const badSteps: Record<string, unknown> = { '-1': -1, '10.5': 10.5, "'10'": '10', None: null, True: true };

/** Families of cases, by what their ids have in common. */
const families: [RegExp, (match: string[]) => Handler][] = [
  [/^t_(index|pred)_(.+)$/, ([, kind, name]) => timestepCase(kind!, name!)],
  [
    /^set_(timesteps|both)_(.+)$/,
    ([, what, text]) => {
      const s = new ScoreSdeVeScheduler();
      const set = (n: number) => {
        s.setTimesteps(n);
        if (what === 'both') s.setSigmas(n);
      };
      if (text! in badSteps) return refused('ERR_RANGE', () => set(badSteps[text!] as number));
      return equal((stored: Tables & StoredTensor) => {
        set(Number(text));
        sameTables(s, what === 'both' ? stored : { timesteps: stored });
      });
    },
  ],
  [
    /^set_sigmas_sigma_(min|max)_(.+)$/,
    ([, end, value]) => {
      const override = { [end === 'min' ? 'sigmaMin' : 'sigmaMax']: Number(value) };
      return refused('ERR_RANGE', () => scheduler(4).setSigmas(4, override));
    },
  ],
  [/^(pred|correct)_shape_(.+)$/, ([, method, name]) => shaped(method!, shapes[name!]!)],
  [/^(pred|correct|add_noise)_(\w*float\d+)_?(\w*)$/, ([, method, type, part]) => typed(method!, type!, part!)],
];

function shaped(method: string, dims: number[]): Handler {
  const inputs = { sample: torch(1).randn(dims), model: torch(2).randn(dims) };
  if (method === 'pred') return equal((stored: StoredPred) => samePred(pred(inputs), stored));
  return equal((stored: StoredCorrect) => sameCorrect(correct(inputs), stored));
}

function typed(method: string, type: string, part: string): Handler {
  const dims = part === 'n96' ? [2, 3, 4, 4] : [2, 3, 2, 2];
  const cast = (tensor: Tensor): Input =>
    type === 'float64'
      ? { type, data: Float64Array.from(floats(tensor)), dims }
      : toHalf(tensor, type as 'float16' | 'bfloat16');
  const sample = part === 'model_only' ? X(dims) : cast(X(dims));
  const model = part === 'sample_only' ? M(dims) : cast(M(dims));
  const run: Record<string, (stored: never) => void> = {
    pred: (stored) => samePred(pred({ sample, model }), stored),
    correct: (stored) => sameCorrect(correct({ sample, model }), stored),
    add_noise: (stored) => sameTensor(addNoise(long(3, 7), { sample, noise: model }), stored),
  };
  if (type === 'float64') return refused('ERR_DTYPE', () => run[method]!({} as never));
  return equal(run[method]!);
}

const named = { ...configuration, ...tables, ...corrector, ...arguments_, ...generators, ...noise };

function handlerOf(id: string): Handler | undefined {
  if (id in named) return named[id];
  for (const [pattern, family] of families) {
    const match = pattern.exec(id);
    if (match) return family(match);
  }
  return undefined;
}

const { cases } = readJson<{ cases: EdgeCase[] }>('edge_cases');
/** docs/parity.md names cases in backticks, with * for any run of characters. */
const listed = readFileSync(join(__dirname, '..', 'docs', 'parity.md'), 'utf8')
  .match(/`[^`\n]+`/g)!
  .map(
    (name) =>
      new RegExp(
        `^${name
          .slice(1, -1)
          .replace(/[.+?^${}()|[\]\\]/g, '\\$&')
          .replaceAll('*', '.*')}$`,
      ),
  );

describe('every edge case of the reference: equal, or a deviation that the documentation lists', () => {
  test.each(cases)('$id: $what', async (edge) => {
    const handler = handlerOf(edge.id);
    if (!handler) throw new Error(`no check for ${edge.id}`);
    await handler.check(edge);
    const deviates = handler.verdict === 'differs' || (handler.verdict === 'refused') === edge.ok;
    if (deviates && !listed.some((pattern) => pattern.test(edge.id))) {
      throw new Error(`docs/parity.md does not list ${edge.id}`);
    }
  });

  test('no check is left without its case', () => {
    const ids = new Set(cases.map(({ id }) => id));
    expect(Object.keys(named).filter((id) => !ids.has(id))).toEqual([]);
  });
});
