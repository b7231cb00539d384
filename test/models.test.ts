import { mkdir, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import * as ort from 'onnxruntime-node';
import {
  fromInferenceSession,
  Generator,
  OnnxModel,
  ScoreSdeVePipeline,
  ScoreSdeVeScheduler,
  Tensor,
  type ErrorCode,
  type ModelInput,
  type ModelInputs,
  type NetworkOptions,
  type OnnxModelOptions,
  type SessionModel,
} from '../lib';
import { native } from '../lib/native/addon';
import { toHalf } from './support/edge';
import { aFolder, pipelineFolder, removeFolders, temporaryFolder, unreadable, type Content } from './support/folders';
import { bitEqual } from './support/golden';
import { roundTo } from './support/half';
import { formula, modelOf } from './support/models';
import { closeSessions, port, scoreGraph, sessionOf, states, type Graph, type OnnxType } from './support/onnx';
import { failure, own, rejection, sentence } from './support/refusals';

const opened: OnnxModel[] = [];

interface Network {
  model: SessionModel | OnnxModel;
  /** Its runs. */
  runs: jest.SpyInstance;
}

/** The ways to run a network. */
const ways: [string, (graph?: Graph, options?: NetworkOptions) => Promise<Network>][] = [
  [
    'fromInferenceSession',
    async (graph, options) => {
      const session = await sessionOf(graph);
      return { model: fromInferenceSession(session, options), runs: jest.spyOn(session, 'run') };
    },
  ],
  [
    'OnnxModel',
    async (graph, options) => {
      const model = await OnnxModel.load(scoreGraph(graph), options);
      opened.push(model);
      return { model, runs: jest.spyOn(native, 'runNetworkAsync') };
    },
  ],
];

afterAll(async () => {
  for (const model of opened) await model.dispose();
  await closeSessions();
  await removeFolders();
});
afterEach(() => jest.restoreAllMocks());

const f32 = Math.fround;
const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;
const dims = [2, 1, 2, 2];
const x = new Tensor('float32', Float32Array.of(-7, -2.5, 0.75, 1, 3.5, 9.25, 1e-3, 100), dims);
const levels = (...sigma: number[]) => new Tensor('float32', Float32Array.from(sigma), [sigma.length]);

/** What a graph of scoreGraph gives for x: `sigma` one a sample, `further` one for all, one a sample, or one an element. */
function scoreOf(sigma: number[], further: number | number[] = 0): Float32Array {
  const lin = formula({ name: 'lin' });
  const score = sigma.flatMap((t, row) => [...lin(floats(x).subarray(4 * row, 4 * row + 4), f32(t))]);
  const added = [further].flat();
  const every = 8 / added.length;
  return Float32Array.from(score, (v, i) => v + f32(added[Math.floor(i / every)]!));
}

describe.each(ways)('%s', (way, network) => {
  test('a call waits for what writes its sample', async () => {
    const { model } = await network({ inputs: [port('sample', 'float32', ['b', 'c', 'h', 'w']), port('timestep')] });
    const big = Tensor.zeros([1, 1, 1024, 1024], { type: 'bfloat16' });
    const drawn = new Generator(3, { engine: 'torch' }).randnAsync(big.dims, { out: big });
    const score = await model(big, 2);
    await drawn;
    bitEqual(floats(score), floats(await model(big, 2)));
  });

  test('a call takes what steps take, and refuses what they refuse', async () => {
    const { model, runs } = await network();
    bitEqual(floats(await model({ data: floats(x), dims }, [1, 2])), scoreOf([1, 2]));
    bitEqual(floats(await model(new ort.Tensor('float32', floats(x), dims), 2)), scoreOf([2, 2]));
    const rounded = new Tensor(
      'float32',
      floats(x).map((v) => roundTo('bfloat16', v)),
      dims,
    );
    bitEqual(floats(await model(toHalf(x, 'bfloat16'), 2)), floats(await model(rounded, 2)));
    runs.mockClear();
    const signal = AbortSignal.abort();
    for (const [call, code] of [
      [() => model(null as never, 1), 'ERR_DTYPE'],
      [() => model(new Tensor('int32', Int32Array.of(1, 2, 3, 4), [1, 1, 2, 2]), 1), 'ERR_DTYPE'],
      [() => model(x, [1, 2, 3]), 'ERR_SHAPE'],
      [() => model(x, NaN), 'ERR_RANGE'],
      [() => model(x, 1, null as never), 'ERR_CONFIG'],
      [() => model(x, 1, {}, null as never), 'ERR_CONFIG'],
      [() => model(x, 1, {}, { signal }), 'ERR_ABORTED'],
    ] as [() => Promise<Tensor>, ErrorCode][])
      sentence(await rejection(call), code);
    expect(runs).not.toHaveBeenCalled();
  });

  describe('sigma goes to timestep as its metadata say', () => {
    const truncated = Math.trunc;
    const conversions: Partial<Record<OnnxType, (sigma: number) => number>> = {
      float32: f32,
      float64: f32,
      float16: (sigma) => roundTo('float16', f32(sigma)),
      int8: truncated,
      int16: truncated,
      int32: truncated,
      int64: truncated,
      uint8: truncated,
      uint32: truncated,
      uint64: truncated,
    };
    const ranks = {
      'one a sample': { each: true, shapes: [['batch'], [''], [2], ['batch', 1], ['batch', 1, 1, 1]] },
      'one for all': { each: false, shapes: [[], [1], [1, 1, 1, 1]] },
    };
    const rows = Object.entries(conversions).flatMap(([type, convert]) =>
      Object.values(ranks).flatMap(({ each, shapes }) =>
        shapes.map((shape) => ({ type: type as OnnxType, convert, each, shape })),
      ),
    );

    test.each(rows)('$type $shape', async ({ type, convert, each, shape }) => {
      const { model } = await network({ inputs: [states, port('timestep', type, shape)] });
      const sigma = each ? [3.7, 0.3] : [3.7, 3.7];
      const score = await model(x, levels(...sigma));
      expect(score.dims).toEqual(dims);
      bitEqual(floats(score), scoreOf(sigma.map(convert)));
    });

    test.each([
      { what: 'a scalar', shape: [], sigma: [1, 2] },
      { what: 'one number', shape: [1], sigma: [1, 2] },
      { what: 'one for each', shape: ['batch'], sigma: [1, 2, 3] },
      { what: 'three', shape: [3], sigma: [1, 2] },
    ])('a timestep of $what takes the levels $sigma only in calls of its own size', async ({ shape, sigma }) => {
      const { model } = await network({ inputs: [states, port('timestep', 'float32', shape)] });
      if (way === 'OnnxModel' && sigma.length === 2) {
        bitEqual(floats(await model(x, levels(...sigma))), scoreOf(sigma));
        return;
      }
      const error = await rejection(async () => model(x, levels(...sigma)));
      // Nobody gave it as one of the modelInputs.
      sentence(error, 'ERR_SHAPE', /timestep|sigma/, /^(?!.*modelInputs)/);
    });

    test('a level that an integer timestep does not hold', async () => {
      const { model } = await network({ inputs: [states, port('timestep', 'int8')] });
      sentence(await rejection(async () => model(x, levels(1, 300))), 'ERR_RANGE', /timestep|sigma/, /300/);
    });
  });

  describe('what the ports are for', () => {
    const image = ['batch', 1, 2, 2] as const;
    const found: { what: string; graph: Graph; options?: NetworkOptions; given?: ModelInputs; adds?: number[] }[] = [
      { what: 'the usual names', graph: {} },
      {
        what: 'the usual names in another order',
        graph: { inputs: [port('class_labels', 'int64'), port('timestep'), states] },
        given: { class_labels: [1, 2] },
        adds: [1, 2],
      },
      {
        what: 'the usual names beside others that would do',
        graph: {
          inputs: [port('mask', 'float32', image), port('w'), port('timestep'), states],
          outputs: [port('out_sample', 'float32', image), port('features', 'float32', image)],
        },
        given: { mask: x, w: 2 },
        adds: [...floats(x)].map((v) => v + 20),
      },
      {
        what: 'the only ones',
        graph: {
          inputs: [port('x', 'float32', image), port('sigma')],
          outputs: [port('score', 'float32', image)],
          sample: 'x',
          timestep: 'sigma',
        },
      },
      {
        what: 'the only ones, sigma first and a scalar',
        graph: { inputs: [port('t', 'float64', []), port('x', 'float32', image)], sample: 'x', timestep: 't' },
      },
      {
        what: 'the only ones, sigma an integer',
        graph: { inputs: [port('x', 'float32', image), port('t', 'int64')], sample: 'x', timestep: 't' },
      },
      {
        what: 'the only ones, sigma made to broadcast',
        graph: {
          inputs: [port('x', 'float32', image), port('t', 'float32', ['batch', 1, 1, 1])],
          sample: 'x',
          timestep: 't',
        },
      },
      {
        what: 'a float beside an integer',
        graph: {
          inputs: [port('x', 'float32', image), port('y', 'int64'), port('sigma')],
          sample: 'x',
          timestep: 'sigma',
        },
        given: { y: 3 },
        adds: [3],
      },
      {
        what: 'names that options give',
        graph: {
          inputs: [port('a', 'float32', image), port('b', 'float32', image), port('c'), port('d')],
          outputs: [port('e', 'float32', image), port('f', 'float32', image)],
          sample: 'b',
          timestep: 'd',
        },
        options: { sample: 'b', timestep: 'd', output: 'e' },
        given: { a: x, c: 2 },
        adds: [...floats(x)].map((v) => v + 20),
      },
      {
        what: 'names that options give over the usual ones',
        graph: { inputs: [states, port('timestep'), port('sigma')], timestep: 'sigma' },
        options: { timestep: 'sigma' },
        given: { timestep: 5 },
        adds: [5],
      },
    ];

    test.each(found)('$what', async ({ graph, options, given, adds }) => {
      const { model } = await network(graph, options);
      bitEqual(floats(await model(x, levels(2, 2), given)), scoreOf([2, 2], adds));
      expect(model.inputs.map(({ name }) => name)).toEqual(
        graph.inputs?.map(({ name }) => name) ?? ['sample', 'timestep'],
      );
      expect(model.sampleShape).toEqual([1, 2, 2]);
    });

    const refused: { what: string; graph: Graph; options?: NetworkOptions; says: RegExp[] }[] = [
      {
        what: 'two that may be the states',
        graph: { inputs: [port('a', 'float32', image), port('b', 'float32', image), port('timestep')], sample: 'a' },
        says: [/sample/, /a \(float32 \[batch, 1, 2, 2\]\), b \(float32 \[batch, 1, 2, 2\]\)/, /option sample/],
      },
      {
        what: 'none that may be the states',
        graph: { inputs: [port('a'), port('b')], sample: 'a', timestep: 'b' },
        says: [/sample/, /a \(float32 \[batch\]\), b \(float32 \[batch\]\)/],
      },
      {
        what: 'two floats that may be sigma',
        graph: { inputs: [states, port('a'), port('b', 'float16', [])] },
        says: [/timestep/, /a \(float32 \[batch\]\), b \(float16 \[\]\)/, /option timestep/],
      },
      {
        what: 'two integers that may be sigma',
        graph: { inputs: [states, port('t', 'int64'), port('y', 'int64')] },
        says: [/timestep/, /t \(int64 \[batch\]\), y \(int64 \[batch\]\)/],
      },
      { what: 'no second input', graph: { inputs: [states] }, says: [/timestep/, /none/] },
      {
        what: 'two outputs of other names',
        graph: { outputs: [port('a', 'float32', image), port('b', 'float32', image)] },
        says: [/output/, /a \(float32 .*\), b \(float32/, /option output/],
      },
      ...(['sample', 'timestep', 'output'] as const).map((role) => ({
        what: `an option ${role} that names none`,
        graph: {},
        options: { [role]: 'x_t' },
        says: [new RegExp(role), /"x_t"/, role === 'output' ? /out_sample \(/ : /timestep \(/],
      })),
      {
        what: 'states of integers',
        graph: { inputs: [{ ...states, type: 'int64' }, port('timestep')] },
        says: [/sample \(int64/],
      },
      {
        what: 'states in double',
        graph: { inputs: [{ ...states, type: 'float64' }, port('timestep')] },
        says: [/sample \(float64/],
      },
      { what: 'a score of integers', graph: { outputs: [port('score', 'int64', image)] }, says: [/score \(int64/] },
    ];
    test.each(refused)('$what: ERR_MODEL', async ({ graph, options, says }) => {
      sentence(await rejection(() => network(graph, options)), 'ERR_MODEL', ...says);
    });

    test('free sizes go by their names, fixed ones by their numbers', async () => {
      const inputs = [port('sample', 'float32', ['n', 3, 'height', '']), port('timestep', 'float32', ['n'])];
      const { model } = await network({ inputs });
      expect(model.inputs).toEqual([
        { name: 'sample', type: 'float32', shape: ['n', 3, 'height', '?'] },
        { name: 'timestep', type: 'float32', shape: ['n'] },
      ]);
      expect(model.outputs).toEqual([{ name: 'out_sample', type: 'float32', shape: ['n', 3, 'height', '?'] }]);
      expect(model.sampleShape).toEqual([3, 'height', '?']);
    });
  });

  describe('element types of the states', () => {
    const half = (v: number) => roundTo('float16', v);
    const whole = [...floats(x)];
    test.each<[OnnxType, OnnxType, (sigma: number[]) => ArrayLike<number>]>([
      ['float32', 'float16', (sigma) => [...scoreOf(sigma)].map(half)],
      ['float32', 'float64', scoreOf],
      ['float16', 'float32', (sigma) => whole.map((v, i) => f32(-half(v) / f32(1 + f32(sigma[i >> 2]! ** 2))))],
      ['float16', 'float16', (sigma) => whole.map((v, i) => half(f32(-half(v) / f32(1 + f32(sigma[i >> 2]! ** 2)))))],
    ])('a network from %s to %s takes and gives float32', async (from, to, expected) => {
      const inputs = [{ ...states, type: from }, port('timestep', from === 'float16' ? 'float16' : 'float32')];
      const { model } = await network({ inputs, outputs: [{ ...states, name: 'score', type: to }] });
      const before = floats(x).slice();
      const score = await model(x, levels(0.5, 3));
      expect({ type: score.type, dims: score.dims }).toEqual({ type: 'float32', dims });
      bitEqual(floats(score), expected([0.5, 3]));
      bitEqual(floats(x), before);
    });
  });

  /** A network with one further input, for a batch of two. */
  const withInput = async (type: OnnxType, shape: readonly (number | string)[], defaultInputs?: ModelInputs) =>
    network({ inputs: [states, port('timestep'), port('y', type, shape)] }, { defaultInputs });

  describe('a further input', () => {
    const each = ['batch'];
    const image = ['batch', 1, 2, 2];
    const eight = [1, 2, 3, 4, 5, 6, 7, 8];
    const accepted: [OnnxType, (number | string)[], string, () => unknown, number | number[]][] = [
      ['int64', each, 'a number', () => 3, 3],
      ['int64', each, 'a bigint', () => 3n, 3],
      ['int64', each, 'a boolean', () => true, 1],
      ['int64', each, 'numbers', () => [3, 4], [3, 4]],
      ['int64', each, 'bigints', () => [3n, -4n], [3, -4]],
      ['int64', each, 'one number in an array', () => [5], 5],
      ['int64', each, 'an Int32Array', () => Int32Array.of(3, 4), [3, 4]],
      ['int64', each, 'a Uint8Array', () => Uint8Array.of(3, 4), [3, 4]],
      ['int64', each, 'a BigInt64Array', () => BigInt64Array.of(3n, 4n), [3, 4]],
      ['int64', each, 'whole floats', () => Float32Array.of(3, 4), [3, 4]],
      ['int64', each, 'a Tensor', () => new Tensor('int64', BigInt64Array.of(3n, 4n), [2]), [3, 4]],
      ['int64', each, 'a Tensor of another type', () => new Tensor('float32', [3, 4], [2]), [3, 4]],
      ['int64', each, 'a Tensor of one', () => new Tensor('int64', BigInt64Array.of(3n), [1]), 3],
      ['int64', each, 'a scalar Tensor', () => new Tensor('int64', BigInt64Array.of(3n), []), 3],
      ['int64', each, 'an ort.Tensor', () => new ort.Tensor('int64', BigInt64Array.of(3n, 4n), [2]), [3, 4]],
      ['int64', each, 'an object with data and dims', () => ({ data: [3, 4], dims: [2] }), [3, 4]],
      ['int64', ['batch', 1], 'numbers', () => [3, 4], [3, 4]],
      ['int64', ['batch', 1], 'a number', () => 3, 3],
      ['int64', ['batch', 1], 'a Tensor', () => new Tensor('int64', BigInt64Array.of(3n, 4n), [2, 1]), [3, 4]],
      ['int64', [2], 'numbers for a fixed batch', () => [3, 4], [3, 4]],
      ['int64', [1], 'a number for all', () => 3, 3],
      ['int64', [], 'the same number for each', () => [3, 3], 3],
      ['int32', each, 'its least and its largest', () => [-(2 ** 31), 2 ** 31 - 1], [-(2 ** 31), 2 ** 31 - 1]],
      ['int8', each, 'its least and its largest', () => [-128, 127], [-128, 127]],
      ['uint8', each, 'its least and its largest', () => [0, 255], [0, 255]],
      ['uint64', each, 'a bigint beyond 2^63', () => 2n ** 63n, 2 ** 63],
      ['float32', each, 'a fraction', () => 0.5, 0.5],
      ['float32', each, 'fractions and bigints', () => [0.5, 2n], [0.5, 2]],
      ['float32', each, 'a Float64Array', () => Float64Array.of(0.1, 0.2), [0.1, 0.2]],
      ['float32', each, 'a float16 Tensor', () => toHalf(new Tensor('float32', [0.5, 3], [2]), 'float16'), [0.5, 3]],
      ['float32', each, 'a bfloat16 Tensor', () => toHalf(new Tensor('float32', [0.5, 3], [2]), 'bfloat16'), [0.5, 3]],
      ['float16', each, 'fractions', () => [0.1, 3], [roundTo('float16', 0.1), 3]],
      ['float64', [], 'a fraction', () => 0.25, 0.25],
      ['bool', [], 'a boolean', () => true, 1],
      ['bool', each, 'booleans and bits', () => [true, 0], [1, 0]],
      ['int64', each, 'a uint16 ort.Tensor', () => new ort.Tensor('uint16', Uint16Array.of(3, 4), [2]), [3, 4]],
      ['float32', each, 'an int8 ort.Tensor', () => new ort.Tensor('int8', Int8Array.of(3, -4), [2]), [3, -4]],
      ['uint64', each, 'a uint64 ort.Tensor', () => new ort.Tensor('uint64', BigUint64Array.of(3n, 4n), [2]), [3, 4]],
      ['bool', each, 'a bool ort.Tensor', () => new ort.Tensor('bool', [true, false], [2]), [1, 0]],
      ['int32', each, 'data in an Int16Array', () => ({ data: Int16Array.of(3, -4), dims: [2] }), [3, -4]],
      ['float32', image, 'a Tensor', () => new Tensor('float32', eight, dims), eight],
      ['float32', image, 'an ort.Tensor', () => new ort.Tensor('float32', Float32Array.from(eight), dims), eight],
      ['float16', image, 'a float16 Tensor', () => toHalf(new Tensor('float32', eight, dims), 'float16'), eight],
      ['int64', image, 'a Tensor of another type', () => new Tensor('float32', eight, dims), eight],
      [
        'float32',
        [1, 1, 2, 2],
        'one Tensor for all',
        () => new Tensor('float32', [1, 2, 3, 4], [1, 1, 2, 2]),
        [1, 2, 3, 4, 1, 2, 3, 4],
      ],
    ];
    test.each(accepted)('%s %j takes %s', async (type, shape, _, value, adds) => {
      const { model } = await withInput(type, shape);
      bitEqual(floats(await model(x, levels(1, 2), { y: value() as ModelInput })), scoreOf([1, 2], adds));
    });

    const gone = <T extends { dispose(): void }>(tensor: T): T => {
      tensor.dispose();
      return tensor;
    };
    const refused: [OnnxType, (number | string)[], string, () => unknown, ErrorCode, RegExp][] = [
      ['int64', each, 'a fraction', () => 1.5, 'ERR_RANGE', /int64, got 1.5$/],
      ['int64', each, 'a fraction among others', () => [1, 0.5], 'ERR_RANGE', /got 0.5$/],
      ['int64', each, 'a fraction in a typed array', () => Float32Array.of(0.5, 1), 'ERR_RANGE', /got 0.5$/],
      ['int64', each, 'a fraction in a Tensor', () => new Tensor('float32', [0.5, 1], [2]), 'ERR_RANGE', /got 0.5$/],
      ['int64', each, 'NaN', () => NaN, 'ERR_RANGE', /got NaN$/],
      ['int64', each, 'Infinity', () => [1, Infinity], 'ERR_RANGE', /got Infinity$/],
      ['int64', each, '2^63', () => 2 ** 63, 'ERR_RANGE', /got 9223372036854775808|got 9223372036854776000/],
      ['int64', each, '2^64 as a bigint', () => 2n ** 64n, 'ERR_RANGE', /got 18446744073709551616n$/],
      ['int32', each, '2^31', () => 2 ** 31, 'ERR_RANGE', /int32, got 2147483648$/],
      ['int8', each, '128', () => 128, 'ERR_RANGE', /got 128$/],
      ['uint8', each, '-1', () => -1, 'ERR_RANGE', /got -1$/],
      ['uint64', each, '-1', () => -1n, 'ERR_RANGE', /got -1n$/],
      ['bool', each, '2', () => 2, 'ERR_RANGE', /bool, got 2$/],
      ['bool', each, '-1', () => -1, 'ERR_RANGE', /got -1$/],
      ['bool', each, 'a half', () => 0.5, 'ERR_RANGE', /got 0.5$/],
      ['int64', each, 'three numbers', () => [1, 2, 3], 'ERR_SHAPE', /one for each of the 2 samples, got 3$/],
      ['int64', each, 'no numbers', () => [], 'ERR_SHAPE', /got 0$/],
      ['int64', each, 'a Tensor of three', () => new Tensor('float32', [1, 2, 3], [3]), 'ERR_SHAPE', /got 3$/],
      ['int64', each, 'a Tensor of two axes', () => new Tensor('float32', [1, 2], [2, 1]), 'ERR_SHAPE', /\[2, 1\]/],
      ['float32', image, 'a number', () => 1, 'ERR_SHAPE', /tensor of dims \[batch, 1, 2, 2\]/],
      ['float32', image, 'a Tensor of other dims', () => new Tensor('float32', eight, [2, 4]), 'ERR_SHAPE', /\[2, 4\]/],
      ['float32', image, 'data that dims do not fit', () => ({ data: [1, 2], dims }), 'ERR_SHAPE', /2 elements/],
      ['float32', image, 'dims of null', () => ({ data: eight, dims: null }), 'ERR_SHAPE', /dims/],
      [
        'float32',
        image,
        'dims that are negative',
        () => ({ data: eight, dims: [-2, -1, 2, 2] }),
        'ERR_SHAPE',
        /dims|-2/,
      ],
      ['int64', each, 'a string', () => '7', 'ERR_DTYPE', /got "7"$/],
      ['int64', each, 'strings', () => ['a', 'b'], 'ERR_DTYPE', /got "a"$/],
      ['int64', each, 'null in an array', () => [null, 1], 'ERR_DTYPE', /got null$/],
      ['int64', each, 'a hole in an array', () => [, 1], 'ERR_DTYPE', /got undefined$/],
      ['int64', each, 'an object', () => ({}), 'ERR_DTYPE', /got an object$/],
      ['int64', each, 'a function', () => () => 1, 'ERR_DTYPE', /got a function$/],
      ['int64', each, 'a symbol', () => Symbol('y'), 'ERR_DTYPE', /got a symbol$/],
      ['int64', each, 'a DataView', () => new DataView(new ArrayBuffer(8)), 'ERR_DTYPE', /got a DataView$/],
      ['int64', each, 'a disposed Tensor', () => gone(Tensor.zeros([2])), 'ERR_DISPOSED', /disposed/],
      ['float32', image, 'a disposed Tensor', () => gone(Tensor.zeros(dims)), 'ERR_DISPOSED', /disposed/],
      [
        'int64',
        each,
        'a disposed ort.Tensor',
        () => gone(new ort.Tensor('int64', BigInt64Array.of(3n, 4n), [2])),
        'ERR_DISPOSED',
        /disposed/,
      ],
      ['string', each, 'a number', () => 1, 'ERR_MODEL', /y \(string \[batch\]\)/],
      ['int64', each, 'null', () => null, 'ERR_DTYPE', /y must be .*, got null$/],
      ['int64', each, 'undefined', () => undefined, 'ERR_MODEL', /needs y \(int64 \[batch\]\)/],
    ];
    const ofAnotherSize: typeof refused = [
      ['int64', [3], 'numbers for another batch', () => [1, 2], 'ERR_SHAPE', /\[3\].*got \[2\]/],
      ['float32', [], 'a number for each', () => [1, 2], 'ERR_SHAPE', /same for all/],
      ['float32', [1], 'a number for each', () => [1, 2], 'ERR_SHAPE', /same for all/],
    ];
    if (way === 'OnnxModel')
      test.each(ofAnotherSize)('%s %j takes %s in calls of its own size', async (type, shape, _, value) => {
        const { model } = await withInput(type, shape);
        bitEqual(floats(await model(x, levels(1, 2), { y: value() as ModelInput })), scoreOf([1, 2], [1, 2]));
      });
    else refused.push(...ofAnotherSize);

    test.each(refused)('%s %j refuses %s', async (type, shape, _, value, code, says) => {
      const { model, runs } = await withInput(type, shape);
      runs.mockClear();
      const inputs = { y: value() as ModelInput };
      sentence(await rejection(async () => model(x, levels(1, 2), inputs)), code, says, /\by\b/);
      // A run finds it before it begins.
      const pipeline = new ScoreSdeVePipeline({ scheduler: new ScoreSdeVeScheduler(), model, sampleShape: [1, 2, 2] });
      const options = { batchSize: 2, numInferenceSteps: 1, modelInputs: inputs };
      sentence(await rejection(() => pipeline.run(options)), code, says);
      sentence(
        failure(() => pipeline.steps(options)),
        code,
        says,
      );
      expect(runs).not.toHaveBeenCalled();
    });

    test.each<[string, ModelInputs, RegExp]>([
      ['that the network does not have', { y: 1, label: 2 }, /no input "label".*: y \(int64 \[batch\]\)$/],
      ['that are the states', { y: 1, sample: x }, /no input "sample"/],
      ['that is sigma', { y: 1, timestep: 2 }, /no input "timestep"/],
    ])('inputs %s', async (_, inputs, says) => {
      const { model } = await withInput('int64', each);
      sentence(await rejection(async () => model(x, levels(1, 2), inputs)), 'ERR_MODEL', says);
    });

    test('a network without any says so', async () => {
      const { model } = await network();
      sentence(await rejection(async () => model(x, levels(1, 2), { y: 1 })), 'ERR_MODEL', /no input "y".*none/);
    });

    test.each<[string, ModelInputs | undefined, ModelInputs | undefined, number[]]>([
      ['stands in', { y: 7 }, {}, [7]],
      ['stands in where no inputs are given', { y: [7, 8] }, undefined, [7, 8]],
      ['stands in for undefined', { y: 7 }, { y: undefined as never }, [7]],
      ['gives way', { y: 7 }, { y: [0, 1] }, [0, 1]],
      ['of another name does no harm', { z: 7 }, { y: 1 }, [1]],
    ])('a default %s', async (_, defaults, given, adds) => {
      const { model } = await withInput('int64', each, defaults);
      bitEqual(floats(await model(x, levels(1, 2), given)), scoreOf([1, 2], adds));
    });

    test('a default is checked as what is given is', async () => {
      const { model } = await withInput('int64', each, { y: 0.5 });
      sentence(await rejection(async () => model(x, levels(1, 2))), 'ERR_RANGE', /\by\b/, /0.5/);
    });

    test('each of several has its own', async () => {
      const inputs = [port('a', 'int64'), states, port('b', 'float32', []), port('timestep'), port('c', 'bool')];
      const { model } = await network({ inputs }, { defaultInputs: { b: 0.5, c: true } });
      const given: Record<string, unknown> = { a: [1, 2], c: [false, true] };
      const score = await model(x, levels(1, 2), given as ModelInputs);
      // In the graph's order of adding.
      const expected = scoreOf([1, 2]).map((v, i) => f32(f32(v + (i < 4 ? 1 : 2)) + 5) + (i < 4 ? 0 : 100));
      bitEqual(floats(score), expected);
    });
  });
});

describe('what a network may go wrong with', () => {
  const pipelineOf = (model: SessionModel, sampleShape = [1, 2, 2]) =>
    new ScoreSdeVePipeline({ scheduler: new ScoreSdeVeScheduler({ sigmaMax: 5 }), model, sampleShape });

  test.each<[string, readonly (number | string)[], number[], RegExp]>([
    ['a fixed size that is another', ['batch', 1, 2, 2], [1, 2, 3], /\[batch, 1, 2, 2\].*got \[2, 1, 2, 3\]/],
    ['a fixed batch that is another', [3, 1, 2, 2], [1, 2, 2], /\[3, 1, 2, 2\].*got \[2, 1, 2, 2\]/],
    ['another rank', ['batch', 1, 2, 2], [4], /got \[2, 4\]/],
  ])('states of %s: ERR_SHAPE before its first call', async (_, shape, sampleShape, says) => {
    const session = await sessionOf({ inputs: [port('sample', 'float32', shape), port('timestep')] });
    const run = jest.spyOn(session, 'run');
    const pipeline = pipelineOf(fromInferenceSession(session), sampleShape);
    const error = await rejection(() => pipeline.run({ batchSize: 2, numInferenceSteps: 1 }));
    sentence(error, 'ERR_SHAPE', /\bsample\b/, says);
    expect(run).not.toHaveBeenCalled();
  });

  test.each([
    ['flat', [-1, 4]],
    ['of another order', [-1, 2, 1, 2]],
    ['of the batch in one', [1, -1, 2, 2]],
  ])('a score that is %s: ERR_MODEL', async (_, reshape) => {
    const outputs = [port('out_sample', 'float32', reshape.map(String))];
    const pipeline = pipelineOf(fromInferenceSession(await sessionOf({ reshape, outputs })));
    const error = await rejection(() => pipeline.run({ batchSize: 2, numInferenceSteps: 1 }));
    sentence(error, 'ERR_MODEL', /score/, /\[2, 1, 2, 2\]/);
    expect(own(error.cause).code).toBe('ERR_SHAPE');
  });

  test('a network that fails: ERR_MODEL with the cause', async () => {
    const outputs = [port('out_sample', 'float32', ['n'])];
    const model = fromInferenceSession(await sessionOf({ reshape: [7], outputs }));
    const error = await rejection(async () => model(x, levels(1, 2)));
    expect(error.code).toBe('ERR_MODEL');
    expect(error.message).toContain((error.cause as Error).message.trim());
    expect((error.cause as Error).message).toMatch(/reshape/i);
  });

  const metadata = {
    inputMetadata: [
      { name: 'sample', isTensor: true, type: 'float32', shape: ['batch', 1, 2, 2] },
      { name: 'timestep', isTensor: true, type: 'float32', shape: ['batch'] },
    ],
    outputMetadata: [{ name: 'out_sample', isTensor: true, type: 'float32', shape: ['batch', 1, 2, 2] }],
  };
  const sessions: [string, () => unknown, RegExp][] = [
    ['rejects', () => Promise.reject(new Error('out of memory')), /out of memory/],
    [
      'throws',
      () => {
        throw new Error('lost device');
      },
      /lost device/,
    ],
    ['rejects with a text', () => Promise.reject('lost device'), /lost device/], // eslint-disable-line @typescript-eslint/prefer-promise-reject-errors
    ['gives nothing', () => Promise.resolve(undefined), /out_sample|output/],
    ['gives another output', () => Promise.resolve({ other: x }), /out_sample|output/],
    ['gives what is no tensor', () => Promise.resolve({ out_sample: 5 }), /out_sample|output/],
    ['gives text', () => Promise.resolve({ out_sample: { data: ['a'], dims: [1], type: 'string' } }), /output|string/],
  ];
  test.each(sessions)('a session that %s: ERR_MODEL', async (_, run, says) => {
    const model = fromInferenceSession({ ...metadata, run } as never);
    sentence(await rejection(async () => model(x, levels(1, 2))), 'ERR_MODEL', says);
  });

  const withPort = (entry: object | null) => ({
    ...metadata,
    inputMetadata: [...metadata.inputMetadata, entry],
    run() {},
  });
  test('an input that is no tensor takes no numbers', async () => {
    const model = fromInferenceSession(withPort({ name: 'past', isTensor: false }) as never);
    sentence(await rejection(async () => model(x, levels(1, 2))), 'ERR_MODEL', /past \(not a tensor/);
    sentence(await rejection(async () => model(x, levels(1, 2), { past: 1 })), 'ERR_MODEL', /past \(not a tensor/);
  });

  test.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a path', 'unet/model.onnx'],
    ['bytes', new Uint8Array(8)],
    ['the class', ort.InferenceSession],
    ['an object', {}],
    ['a session without metadata, of an older onnxruntime-node', { run: () => {}, inputNames: ['sample'] }],
    ['a promise of a session', Promise.resolve({ ...metadata, run() {} })],
    ['what has an input that is null', withPort(null)],
    ['what has an input without a name', withPort({ isTensor: true, type: 'float32', shape: [] })],
    ['what has an input without a shape', withPort({ name: 'y', isTensor: true, type: 'float32' })],
    ['what has a size that is none', withPort({ name: 'y', isTensor: true, type: 'float32', shape: [null] })],
    ['what has a gap among its outputs', { ...metadata, outputMetadata: new Array<object>(1), run() {} }],
  ])('%s is no session: ERR_MODEL', (_, value) => {
    sentence(
      failure(() => fromInferenceSession(value as never)),
      'ERR_MODEL',
      /session must be an InferenceSession of onnxruntime-node/,
    );
  });

  test.each([null, 5, { sampel: 'x' }])('options %j: ERR_CONFIG', async (options) => {
    const session = await sessionOf();
    sentence(
      failure(() => fromInferenceSession(session, options as never)),
      'ERR_CONFIG',
      /option/,
    );
  });

  test('[Symbol.asyncDispose]() is dispose()', async () => {
    const session = await sessionOf();
    const release = jest.spyOn(session, 'release');
    const model = fromInferenceSession(session);
    await model[Symbol.asyncDispose]();
    await model.dispose();
    expect(release).toHaveBeenCalledTimes(1);
    sentence(await rejection(() => model(Tensor.zeros([1, 1, 28, 28]), 1)), 'ERR_DISPOSED', /the model is disposed/);
  });

  test('dispose releases the session, after which it fails', async () => {
    const session = await sessionOf();
    const release = jest.spyOn(session, 'release');
    const pipeline = pipelineOf(fromInferenceSession(session));
    await pipeline.run({ numInferenceSteps: 1 });
    await pipeline.dispose();
    await pipeline.dispose();
    expect(release).toHaveBeenCalledTimes(1);
    sentence(await rejection(() => pipeline.run({ numInferenceSteps: 1 })), 'ERR_DISPOSED', /the model is disposed/);
  });
});

describe('fromPretrained', () => {
  /** The same as a callback. */
  const image = (shape: number[], config = { numTrainTimesteps: 4, sigmaMax: 5 }, adds = 0) => {
    const lin = modelOf({ name: 'lin' });
    return new ScoreSdeVePipeline({
      scheduler: new ScoreSdeVeScheduler(config),
      model: async (sample, sigma) => {
        const score = await lin(sample, sigma);
        return new Tensor(
          'float32',
          floats(score).map((v) => v + adds),
          [...score.dims],
        );
      },
      sampleShape: shape,
    }).run({ batchSize: 2, seed: 3 });
  };
  const free = scoreGraph({ inputs: [port('sample', 'float32', ['batch', 'c', 'h', 'w']), port('timestep')] });
  const labelled = scoreGraph({ inputs: [states, port('timestep'), port('class_labels', 'int64')] });

  const shapes: [string, Record<string, Content>, number[]][] = [
    ["the network's own sizes, without a config.json", {}, [1, 2, 2]],
    ["the network's own sizes", { 'unet/config.json': { sample_size: null } }, [1, 2, 2]],
    [
      "the network's own sizes, whatever config.json says",
      { 'unet/config.json': { in_channels: 3, sample_size: 32 } },
      [1, 2, 2],
    ],
    [
      'one size for both',
      { 'unet/model.onnx': free, 'unet/config.json': { in_channels: 3, sample_size: 4 } },
      [3, 4, 4],
    ],
    [
      'height and width',
      { 'unet/model.onnx': free, 'unet/config.json': { in_channels: 1, sample_size: [2, 3] } },
      [1, 2, 3],
    ],
  ];
  test.each(shapes)('%s', async (_, files, shape) => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained(await pipelineFolder(files));
    expect(pipeline.sampleShape).toEqual(shape);
    expect(pipeline.scheduler.config).toEqual(new ScoreSdeVeScheduler({ numTrainTimesteps: 4, sigmaMax: 5 }).config);
    expect(pipeline.device).toBe('cpu');
    const result = await pipeline.run({ batchSize: 2, seed: 3 });
    expect([result.steps, result.calls]).toEqual([4, 8]);
    bitEqual(floats(result.images), floats((await image(shape)).images));
    await pipeline.dispose();
  });

  describe('the layout of the first checkpoints, with all in the folder itself', () => {
    const moved = {
      'scheduler/scheduler_config.json': undefined,
      'scheduler_config.json': { _class_name: 'ScoreSdeVeScheduler', num_train_timesteps: 4, sigma_max: 5 },
      'config.json': { in_channels: 1, sample_size: [2, 3] },
    };
    const atRoot = { ...moved, 'unet/model.onnx': undefined, 'model.onnx': free };
    test.each<[string, Record<string, Content>, number[]]>([
      ['the network there, too', atRoot, [1, 2, 3]],
      ['the network in unet/', { ...moved, 'unet/model.onnx': free }, [1, 2, 3]],
      ['what unet/ holds comes first', { ...moved, 'model.onnx': 'x', 'unet/config.json': {} }, [1, 2, 2]],
    ])('%s', async (_, files, shape) => {
      const pipeline = await ScoreSdeVePipeline.fromPretrained(await pipelineFolder(files));
      expect(pipeline.sampleShape).toEqual(shape);
      const result = await pipeline.run({ batchSize: 2, seed: 3 });
      bitEqual(floats(result.images), floats((await image(shape)).images));
      await pipeline.dispose();
    });

    test('an error names the file that was read', async () => {
      const folder = await pipelineFolder({ ...atRoot, 'config.json': { in_channels: -1 } });
      const error = await rejection(() => ScoreSdeVePipeline.fromPretrained(folder));
      sentence(error, 'ERR_CONFIG', new RegExp(`^${join(folder, 'config.json')}: in_channels`));
    });
  });

  test.each<[string, string]>([
    ['a byte order mark', '\ufeff{ "in_channels": 3, "sample_size": 4 }'],
    [
      'NaN and Infinity where they are not read',
      '{"a": NaN, "in_channels": 3, "b": [Infinity, -Infinity], "sample_size": 4}',
    ],
  ])("%s in Python's JSON is no obstacle", async (_, text) => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained(
      await pipelineFolder({
        'unet/model.onnx': free,
        'unet/config.json': text,
        'scheduler/scheduler_config.json': '\ufeff{"num_train_timesteps": 4, "sigma_max": 5}',
        'model_index.json': '\ufeff{"_class_name": "ScoreSdeVePipeline", "x": NaN}',
      }),
    );
    expect(pipeline.sampleShape).toEqual([3, 4, 4]);
    await pipeline.dispose();
  });

  test.each<[string, (folder: string) => string]>([
    ['a relative path', (folder) => relative(process.cwd(), folder)],
    ['a slash at the end', (folder) => `${folder}/`],
  ])('the folder by %s', async (_, path) => {
    const folder = await pipelineFolder({}, 'a model, größer');
    const pipeline = await ScoreSdeVePipeline.fromPretrained(path(folder), { device: 'cpu' });
    expect(pipeline.sampleShape).toEqual([1, 2, 2]);
    await pipeline.dispose();
  });

  test.each<[string, ModelInputs | undefined, number]>([
    ['stands in', undefined, 10],
    ['gives way', { class_labels: 3 }, 3],
  ])('default_inputs of the config: %s', async (_, modelInputs, label) => {
    const files = { 'unet/model.onnx': labelled, 'unet/config.json': { default_inputs: { class_labels: 10 } } };
    const pipeline = await ScoreSdeVePipeline.fromPretrained(await pipelineFolder(files));
    const { images } = await pipeline.run({ batchSize: 2, seed: 3, modelInputs });
    bitEqual(floats(images), floats((await image([1, 2, 2], undefined, label)).images));
    await pipeline.dispose();
  });

  test.each<[string, object, ModelInput, ErrorCode | undefined, RegExp]>([
    ['the last', { num_class_embeds: 11 }, [0, 10], undefined, /^$/],
    [
      'one more',
      { num_class_embeds: 11 },
      [0, 11],
      'ERR_RANGE',
      /class_labels must hold classes from 0 to 10, got 11$/,
    ],
    ['one less than the first', { num_class_embeds: 11 }, -1, 'ERR_RANGE', /from 0 to 10, got -1$/],
    ['the default', { num_class_embeds: 3, default_inputs: { class_labels: 3 } }, [], 'ERR_RANGE', /0 to 2, got 3$/],
    ['any of unknown ones', { num_class_embeds: null }, 11, undefined, /^$/],
    [
      'less than the first of unknown ones',
      {},
      [3, -1],
      'ERR_RANGE',
      /class_labels must hold classes from 0 on, got -1$/,
    ],
    ['one that is embedded otherwise', { num_class_embeds: 2, class_embed_type: 'timestep' }, 11, undefined, /^$/],
  ])('a class: %s', async (_, config, label, code, says) => {
    const files = { 'unet/model.onnx': labelled, 'unet/config.json': config };
    const pipeline = await ScoreSdeVePipeline.fromPretrained(await pipelineFolder(files));
    const modelInputs = Array.isArray(label) && label.length === 0 ? undefined : { class_labels: label };
    const run = () => pipeline.run({ batchSize: 2, seed: 3, modelInputs });
    if (code === undefined) await run();
    else sentence(await rejection(run), code, says);
    await pipeline.dispose();
  });

  test('classes are rows of zeros with a one, where the network takes such rows', async () => {
    const oneHot = scoreGraph({ inputs: [states, port('timestep'), port('class_labels', 'float32', ['batch', 4])] });
    const pipeline = await ScoreSdeVePipeline.fromPretrained(await pipelineFolder({ 'unet/model.onnx': oneHot }));
    const fed = (label: ModelInput) =>
      pipeline.model.prepare!([3, 1, 2, 2], { class_labels: label }).class_labels as { data: Float32Array };
    expect(Array.from(fed([0, 3, 1]).data)).toEqual([1, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0]);
    expect(Array.from(fed(2n).data)).toEqual([0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0]);
    const rows = Float32Array.from({ length: 12 }, (_, i) => i / 12);
    expect(fed({ data: rows, dims: [3, 4] }).data).toEqual(rows);
    for (const label of [4, -1, 0.5])
      sentence(
        failure(() => fed(label)),
        'ERR_RANGE',
        /^modelInputs.class_labels must hold classes from 0 to 3, got/,
      );
    sentence(
      failure(() => fed([0, 1])),
      'ERR_SHAPE',
    );
    await pipeline.dispose();
  });

  test('the option classes comes before the config, and is checked', async () => {
    const folder = await pipelineFolder({ 'unet/model.onnx': labelled, 'unet/config.json': { num_class_embeds: 2 } });
    const pipeline = await ScoreSdeVePipeline.fromPretrained(folder, { classes: 5 });
    const run = (label: number) => pipeline.run({ batchSize: 1, seed: 3, modelInputs: { class_labels: label } });
    await run(4);
    sentence(await rejection(() => run(5)), 'ERR_RANGE', /from 0 to 4, got 5$/);
    await pipeline.dispose();
    for (const classes of [0, -1, 1.5, NaN, '3', null])
      sentence(
        await rejection(() => ScoreSdeVePipeline.fromPretrained(folder, { classes: classes as number })),
        'ERR_RANGE',
        /^classes must be an integer from 1 on, got/,
      );
  });

  test('without a default the network asks for its input', async () => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained(await pipelineFolder({ 'unet/model.onnx': labelled }));
    sentence(await rejection(() => pipeline.run()), 'ERR_MODEL', /class_labels/);
    await pipeline.dispose();
  });

  describe("what unet/config.json says of the network's kind", () => {
    const folderOf = (config: object, schedule: object = {}) =>
      pipelineFolder({
        'unet/config.json': config,
        'scheduler/scheduler_config.json': { num_train_timesteps: 4, sigma_max: 5, ...schedule },
      });
    const refusal = async (config: object, options: OnnxModelOptions = {}, schedule: object = {}) => {
      const folder = await folderOf(config, schedule);
      return { folder, error: await rejection(() => ScoreSdeVePipeline.fromPretrained(folder, options)) };
    };
    const scoreOf = async (config: object, options: OnnxModelOptions = {}, schedule: object = {}) => {
      await using pipeline = await ScoreSdeVePipeline.fromPretrained(await folderOf(config, schedule), {
        check: false,
        ...options,
      });
      const score = await pipeline.model(new Generator(1).randn([1, 1, 2, 2]), new Tensor('float32', [2], [1]));
      return Array.from(score.data as Float32Array);
    };

    test.each<[object, ErrorCode, RegExp]>([
      [{ prediction_kind: 'epsilon' }, 'ERR_CONFIG', /^FILE: prediction_kind must be 'score', .*, got "epsilon"/],
      [{ conditioning: 'lambda' }, 'ERR_CONFIG', /^FILE: conditioning must be 'sigma', .*, got "lambda"/],
      [
        { conditioning: { index: 3e7, sigmas: 'geometric' } },
        'ERR_RANGE',
        /^FILE: conditioning\.index must be .* 65536/,
      ],
      [{ conditioning: { t: [5, 1] } }, 'ERR_RANGE', /^FILE: conditioning\.t must be \[sigmaMin/],
      [{ preconditioning: 'vp' }, 'ERR_CONFIG', /^FILE: preconditioning must be 'edm'/],
      [
        { preconditioning: 'edm', prediction_kind: 'noise' },
        'ERR_CONFIG',
        /^FILE: preconditioning and prediction_kind were both given/,
      ],
      [{ data_range: [1, -1] }, 'ERR_RANGE', /^FILE: data_range must be/],
      [{ prediction: 'noise' }, 'ERR_CONFIG', /^FILE: expected the key "prediction_kind", got "prediction"/],
      [{ predictionKind: 'noise' }, 'ERR_CONFIG', /^FILE: expected the key "prediction_kind", got "predictionKind"/],
      [{ dataRange: [-1, 1] }, 'ERR_CONFIG', /^FILE: expected the key "data_range", got "dataRange"/],
      [{ 'data-range': [-1, 1] }, 'ERR_CONFIG', /^FILE: expected the key "data_range", got "data-range"/],
      [{ Conditioning: 't' }, 'ERR_CONFIG', /^FILE: expected the key "conditioning", got "Conditioning"/],
      [
        { prediction_type: 'epsilon' },
        'ERR_CONFIG',
        /^FILE: prediction_type: .* got "epsilon": say prediction_kind "noise"/,
      ],
    ])('%j is refused', async (config, code, says) => {
      const { folder, error } = await refusal(config);
      const file = join(folder, 'unet', 'config.json');
      sentence(error, code);
      expect(error.message.replaceAll(file, 'FILE')).toMatch(says);
    });

    test('null says nothing', async () => {
      const none = {
        prediction_kind: null,
        conditioning: null,
        preconditioning: null,
        data_range: null,
        dataRange: null,
      };
      expect(await scoreOf({ ...none, prediction_type: null })).toEqual(await scoreOf({}));
    });

    test('an option of either kind stands in place of the other', async () => {
      const noise = await scoreOf({ prediction_kind: 'noise' });
      expect(await scoreOf({ preconditioning: 'edm' }, { prediction: 'noise' })).toEqual(noise);
      const edm = await scoreOf({ preconditioning: 'edm' });
      expect(edm).not.toEqual(noise);
      expect(await scoreOf({ prediction_kind: 'noise' }, { preconditioning: 'edm' })).toEqual(edm);
    });

    test("the prediction_type of diffusers' other schedulers is not taken for a score", async () => {
      const { folder, error } = await refusal({}, {}, { prediction_type: 'v_prediction' });
      const file = join(folder, 'scheduler', 'scheduler_config.json');
      sentence(
        error,
        'ERR_CONFIG',
        new RegExp(`^${file}: .*"v_prediction": say prediction_kind "v_prediction", or "score" .* in .*config`),
      );
      const noise = await scoreOf({ prediction_kind: 'noise' });
      const schedule = { prediction_type: 'epsilon' };
      expect(await scoreOf({ prediction_kind: 'noise' }, {}, schedule)).toEqual(noise);
      expect(await scoreOf({}, { prediction: 'noise' }, schedule)).toEqual(noise);
      expect(await scoreOf({}, { prediction: 'score' }, schedule)).toEqual(await scoreOf({}));
    });
  });

  test("'digits' is the model that ships with the package", async () => {
    const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
    expect(pipeline.sampleShape).toEqual([1, 28, 28]);
    expect((pipeline.model as SessionModel).inputs.map(({ name }) => name)).toContain('class_labels');
    await pipeline.dispose();
  });

  const index = 'model_index.json';
  const schedule = 'scheduler/scheduler_config.json';
  const network = 'unet/model.onnx';
  const config = 'unet/config.json';
  const lfsPointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 262144000\n`;
  const page = '<!DOCTYPE html>\n<html><body>404</body></html>\n';
  const bad: [string, Record<string, Content>, ErrorCode, RegExp][] = [
    ['no model_index.json', { [index]: undefined }, 'ERR_CONFIG', /holds no model_index.json.*digits/],
    ['a folder of that name', { [index]: aFolder }, 'ERR_CONFIG', /model_index.json/],
    ['one that cannot be read', { [index]: unreadable }, 'ERR_IO', /cannot read .*model_index.json: ELOOP/],
    ['one that is not JSON', { [index]: '{"_class_name": ' }, 'ERR_CONFIG', /model_index.json: not valid JSON/],
    ['one that is empty', { [index]: '' }, 'ERR_CONFIG', /model_index.json: not valid JSON/],
    ['one that is no text', { [index]: Uint8Array.of(0x7b, 0xff, 0x7d) }, 'ERR_CONFIG', /not valid UTF-8/],
    ['one of 2 MiB', { [index]: ' '.repeat(2 ** 21) }, 'ERR_CONFIG', /at most 1048576 bytes/],
    ['one with an array', { [index]: [] }, 'ERR_CONFIG', /expected a JSON object, got (an array|\[)/],
    ['one with null', { [index]: 'null' }, 'ERR_CONFIG', /expected a JSON object, got null/],
    ['one with a number', { [index]: '5' }, 'ERR_CONFIG', /expected a JSON object, got 5/],
    [
      'one of another pipeline',
      { [index]: { _class_name: 'DDPMPipeline' } },
      'ERR_CONFIG',
      /_class_name: expected "ScoreSdeVePipeline", got "DDPMPipeline": .*exporting\.md/,
    ],
    ['one of no pipeline', { [index]: {} }, 'ERR_CONFIG', /_class_name: .*, got undefined/],

    ['no scheduler_config.json', { [schedule]: undefined }, 'ERR_CONFIG', /scheduler_config.json/],
    ['one that cannot be read', { [schedule]: unreadable }, 'ERR_IO', /cannot read .*scheduler_config.json: ELOOP/],
    ['one that is not JSON', { [schedule]: '{' }, 'ERR_CONFIG', /scheduler_config.json/],
    [
      'one of another scheduler',
      { [schedule]: { _class_name: 'DDPMScheduler' } },
      'ERR_CONFIG',
      /scheduler_config.json: _class_name: .*"DDPMScheduler"/,
    ],
    ['one out of range', { [schedule]: { sigma_max: -1 } }, 'ERR_CONFIG', /sigma_max: expected .*, got -1/],

    ['no network', { [network]: undefined }, 'ERR_MODEL', /unet.model.onnx: no such file.*docs.exporting\.md/],
    [
      'other weights only',
      { [network]: undefined, 'unet/diffusion_pytorch_model.safetensors': 'x' },
      'ERR_MODEL',
      /ONNX, other weights are not read/,
    ],
    ['a folder of that name', { [network]: aFolder }, 'ERR_MODEL', /model.onnx/],
    ['a network that cannot be read', { [network]: unreadable }, 'ERR_IO', /cannot read .*model.onnx: ELOOP/],
    ['an empty network', { [network]: '' }, 'ERR_MODEL', /model.onnx cannot be loaded/],
    ['a corrupt network', { [network]: 'not a network' }, 'ERR_MODEL', /model.onnx cannot be loaded/],
    ['half a network', { [network]: free.slice(0, free.length / 2) }, 'ERR_MODEL', /model.onnx cannot be loaded/],
    [
      'another network',
      { [network]: scoreGraph({ inputs: [states, port('a'), port('b')] }) },
      'ERR_MODEL',
      /timestep.*a \(float32 \[batch\]\), b/,
    ],

    [
      'a git-lfs pointer for a network',
      { [network]: lfsPointer },
      'ERR_MODEL',
      /model.onnx: this is a git-lfs pointer/,
    ],
    ['a page for a network', { [network]: page }, 'ERR_MODEL', /model.onnx: this is a page of HTML/],
    [
      'a git-lfs pointer for a config',
      { [config]: lfsPointer },
      'ERR_CONFIG',
      /unet.config.json: this is a git-lfs pointer/,
    ],
    ['a page for an index', { [index]: `\ufeff ${page}` }, 'ERR_CONFIG', /model_index.json: this is a page of HTML/],
    ['a page for a schedule', { [schedule]: page }, 'ERR_CONFIG', /scheduler_config.json: this is a page of HTML/],
    ['free sizes and no config', { [network]: free }, 'ERR_MODEL', /\bc\b.*config.json.*in_channels.*sample_size/],
    ['free sizes, one of them said', { [network]: free, [config]: { in_channels: 1 } }, 'ERR_MODEL', /\bh\b/],
    [
      'free sizes that the config leaves free',
      { [network]: free, [config]: { in_channels: 1, sample_size: null } },
      'ERR_MODEL',
      /\bh\b.*config.json/,
    ],
    ['a config that cannot be read', { [config]: unreadable }, 'ERR_IO', /cannot read .*config.json: ELOOP/],
    ['a config that is not JSON', { [config]: '{]' }, 'ERR_CONFIG', /unet.config.json: not valid JSON/],
    ['a config of an array', { [config]: [1] }, 'ERR_CONFIG', /expected a JSON object/],
    ['sizes of NaN', { [config]: '{"sample_size": NaN}' }, 'ERR_CONFIG', /config.json: sample_size: .*, got NaN/],
    ['channels of Infinity', { [config]: '{"in_channels": Infinity}' }, 'ERR_CONFIG', /in_channels: .*, got Infinity/],
    ['a level of Infinity', { [schedule]: '{"sigma_max": Infinity}' }, 'ERR_CONFIG', /sigma_max: .*, got Infinity/],
    ...[0, -1, 1.5, 2 ** 17, '3', true, [3], {}].map((value): (typeof bad)[number] => [
      `in_channels of ${JSON.stringify(value)}`,
      { [config]: { in_channels: value } },
      'ERR_CONFIG',
      /unet.config.json: in_channels: expected an integer from 1 to 65536, got/,
    ]),
    ...[0, -28, 0.5, 2 ** 17, '28', false, [28], [2, 2, 2], [0, 2], [2, '2'], {}].map((value): (typeof bad)[number] => [
      `sample_size of ${JSON.stringify(value)}`,
      { [config]: { sample_size: value } },
      'ERR_CONFIG',
      /unet.config.json: sample_size: expected an integer from 1 to 65536, or two, got/,
    ]),
    ...[0, -1, 1.5, '3', [3]].map((value): (typeof bad)[number] => [
      `num_class_embeds of ${JSON.stringify(value)}`,
      { [config]: { num_class_embeds: value } },
      'ERR_CONFIG',
      /unet.config.json: num_class_embeds: expected an integer from 1 on, got/,
    ]),
    ...[null, [10], 10, 'class_labels'].map((value): (typeof bad)[number] => [
      `default_inputs of ${JSON.stringify(value)}`,
      { [config]: { default_inputs: value } },
      'ERR_CONFIG',
      /unet.config.json: default_inputs: expected an object, got/,
    ]),
    ...['10', null, [[10]], ['10'], {}].map((value): (typeof bad)[number] => [
      `a default of ${JSON.stringify(value)}`,
      { [config]: { default_inputs: { class_labels: value } } },
      'ERR_CONFIG',
      /unet.config.json: default_inputs.class_labels: expected a number, a boolean, or an array of them, got/,
    ]),
  ];
  test.each(bad)('%s', async (_, files, code, says) => {
    const folder = await pipelineFolder(files);
    const error = await rejection(() => ScoreSdeVePipeline.fromPretrained(folder));
    expect({ code: error.code, message: error.message }).toEqual({ code, message: expect.stringMatching(says) });
    expect(error.message).not.toContain('\n');
  });

  test.each<[string, () => Promise<unknown>, RegExp]>([
    ['no folder', async () => join(await temporaryFolder(), 'none'), /none is no folder: expected .*digits/],
    ['a file', async () => join(await pipelineFolder(), 'model_index.json'), /model_index.json is no folder/],
    [
      "a name of the Hub's",
      () => Promise.resolve('google/ncsnpp-celebahq-256'),
      /^google.ncsnpp-celebahq-256 is no folder: .* nothing is downloaded, and node_modules.score-sde.docs.exporting\.md says how/,
    ],
    ['an empty text', () => Promise.resolve(''), /dir must be/],
    ['undefined', () => Promise.resolve(undefined), /dir must be .*, got undefined/],
    ['a number', () => Promise.resolve(5), /dir must be .*, got 5/],
    ["a property of every object's", () => Promise.resolve('constructor'), /constructor is no folder/],
  ])('%s is no folder', async (_, dir, says) => {
    const path = (await dir()) as string;
    sentence(await rejection(() => ScoreSdeVePipeline.fromPretrained(path)), 'ERR_CONFIG', says);
  });

  test.each<[string, ErrorCode]>([
    ['cuda', 'ERR_CUDA_UNAVAILABLE'],
    ['tpu', 'ERR_CONFIG'],
  ])('device %s is refused before the folder is read', async (device, code) => {
    sentence(await rejection(() => ScoreSdeVePipeline.fromPretrained('none', { device })), code, /device/);
  });

  test('a folder called as a built-in model goes by a path', async () => {
    const parent = await temporaryFolder();
    await mkdir(join(parent, 'digits'));
    await writeFile(join(parent, 'digits', 'model_index.json'), '{}');
    const before = process.cwd();
    process.chdir(parent);
    try {
      const error = await rejection(() => ScoreSdeVePipeline.fromPretrained('./digits'));
      sentence(error, 'ERR_CONFIG', /_class_name/);
    } finally {
      process.chdir(before);
    }
  });
});
