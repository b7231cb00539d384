import { Generator, getNumThreads, manualSeed, ScoreSdeVeScheduler, setNumThreads, Tensor, type ErrorCode } from '../lib';
import { badTensors, goodDims, transferred } from './support/bad-tensors';
import { scheduler } from './support/edge';
import { bitEqual } from './support/golden';
import { runPlainly } from './support/plain';
import { bytesAround, failure, position, rejection, sentence } from './support/refusals';
import {
  copied,
  engines,
  goodCall,
  methods,
  nameIn,
  put,
  run,
  runAsync,
  traces,
  type Method,
  type StepCall,
} from './support/step-calls';

type Codes = ErrorCode | ErrorCode[];

let warnings: jest.SpyInstance;
beforeEach(() => {
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => jest.restoreAllMocks());

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;

interface Refusal {
  method: Method;
  what: string;
  code: Codes;
  says: RegExp[];
  spoil: (call: StepCall) => void;
}

/**
 * The spoilt call fails alike on both threads and leaves no trace; then the sound one, with the same tensors and
 * generators, gives what it would have given had the other never been made.
 */
async function refuses({ method, code, says, spoil }: Refusal): Promise<void> {
  for (const engine of engines) {
    const sound = goodCall(method, engine);
    const spoilt = copied(sound);
    spoil(spoilt);
    const before = [traces(sound), traces(spoilt)];

    const error = failure(() => run(method, spoilt));
    sentence(error, code, ...says);
    expect([traces(sound), traces(spoilt)]).toEqual(before);

    const twin = await rejection(() => runAsync(method, spoilt));
    expect({ code: twin.code, message: twin.message }).toEqual({ code: error.code, message: error.message });
    expect([traces(sound), traces(spoilt)]).toEqual(before);

    const expected = run(method, goodCall(method, engine));
    const actual = run(method, sound);
    bitEqual(floats(actual.prevSample), floats(expected.prevSample));
    if (expected.prevSampleMean) bitEqual(floats(actual.prevSampleMean!), floats(expected.prevSampleMean));
  }
}

const refusals = (on: Method[], rows: [string, Codes, RegExp[], (call: StepCall, method: Method) => void][]) =>
  rows.flatMap(([what, code, says, spoil]) =>
    on.map((method): Refusal => ({ method, what, code, says, spoil: (call) => spoil(call, method) })),
  );

const tensorArguments: Record<Method, string[]> = {
  stepPred: ['modelOutput', 'sample', 'noise', 'out', 'outMean'],
  stepCorrect: ['modelOutput', 'sample', 'noise', 'out'],
  addNoise: ['sample', 'noise', 'out'],
};

describe('a tensor argument that is', () => {
  // addNoise draws where its noise is null, as the reference does where it is None.
  const legal = (method: Method, argument: string, what: string) =>
    method === 'addNoise' && argument === 'noise' && what === 'null';
  const rows = badTensors.flatMap(({ make, says, ...bad }) =>
    methods.flatMap((method) =>
      tensorArguments[method]
        .filter((argument) => !legal(method, argument, bad.what))
        .map((argument) => ({
          ...bad,
          method,
          name: nameIn(method, argument),
          says: [says, new RegExp(`\\b${nameIn(method, argument)}\\b`)],
          spoil: (call: StepCall) => put(call, argument, make()),
        })),
    ),
  );
  test.each(rows)('$what: $method refuses it as $name', refuses);

  const required: [Method, string][] = [
    ['stepPred', 'modelOutput'],
    ['stepPred', 'sample'],
    ['stepCorrect', 'modelOutput'],
    ['stepCorrect', 'sample'],
    ['addNoise', 'sample'],
  ];
  test.each(required)('missing: %s refuses to go without %s', (method, argument) =>
    refuses({
      method,
      what: 'missing',
      code: 'ERR_DTYPE',
      says: [/got undefined$/, new RegExp(`\\b${nameIn(method, argument)}\\b`)],
      spoil: (call) => put(call, argument, undefined),
    }),
  );
});

const halfDims = { dims: goodDims, type: 'float16' };
/** 24 values at an element of a block that other views can overlap. */
const at = (block: Float32Array, offset: number) => ({ data: block.subarray(offset, offset + 24), dims: goodDims });
const bitsAt = (block: Float32Array, offset: number) => ({
  ...halfDims,
  data: new Uint16Array(block.buffer, 4 * offset, 24),
});
const numbered = () => Float32Array.from({ length: 64 }, (_, i) => (i - 30) / 16);
const [first, second] = ['first', 'second'] as const;
type Pair = Record<typeof first | typeof second, unknown>;

describe('memory that an output may not share', () => {
  const overlaps: [string, (block: Float32Array) => Pair][] = [
    ['one element further on', (b) => ({ first: at(b, 4), second: at(b, 5) })],
    ['one element before', (b) => ({ first: at(b, 5), second: at(b, 4) })],
    ['its last element', (b) => ({ first: at(b, 0), second: at(b, 23) })],
    ['as 16-bit values', (b) => ({ first: at(b, 4), second: bitsAt(b, 4) })],
    ['as float32 over 16-bit values', (b) => ({ first: bitsAt(b, 4), second: at(b, 4) })],
    ['as bfloat16 over float16', (b) => ({ first: bitsAt(b, 4), second: { ...bitsAt(b, 4), type: 'bfloat16' } })],
    ['through a Tensor', (b) => ({ first: at(b, 4), second: new Tensor('float32', at(b, 6).data, goodDims) })],
  ];
  const pairs: [Method, string, string][] = methods.flatMap((method) =>
    tensorArguments[method].flatMap((input): [Method, string, string][] =>
      input.startsWith('out')
        ? []
        : tensorArguments[method].filter((a) => a.startsWith('out')).map((output) => [method, input, output]),
    ),
  );
  const rows = pairs.flatMap(([method, input, output]) =>
    overlaps.map(([how, make]): Refusal & { input: string; output: string } => ({
      method,
      what: how,
      input: nameIn(method, input),
      output,
      code: 'ERR_ALIAS',
      says: [new RegExp(`\\b${output} overlaps ${nameIn(method, input)}\\b`)],
      spoil: (call) => {
        const pair = make(numbered());
        put(call, input, pair.first);
        put(call, output, pair.second);
      },
    })),
  );
  test.each(rows)('$method: $output over $input, $what', refuses);

  const twice: [string, (block: Float32Array) => Pair][] = [
    ['the very same', (b) => ({ first: at(b, 4), second: at(b, 4) })],
    ...overlaps,
  ];
  test.each(
    refusals(
      ['stepPred'],
      twice.map(([what, make]) => [
        what,
        'ERR_ALIAS',
        [/out and outMean overlap/],
        (call) => {
          const pair = make(numbered());
          put(call, 'out', pair.first);
          put(call, 'outMean', pair.second);
        },
      ]),
    ),
  )('$method: out and outMean, $what', refuses);
});

describe('memory that an output may share', () => {
  const onto = (...[output, input]: [string, string]) =>
    [`${output} onto ${input}`, (call: StepCall) => put(call, output, valueOf(call, input))] as const;
  const valueOf = (call: StepCall, argument: string): unknown =>
    argument in call ? call[argument as keyof StepCall] : call.options[argument as 'noise'];
  const beside: (call: StepCall) => void = (call) => {
    const block = numbered();
    put(call, 'sample', at(block, 0));
    put(call, 'out', at(block, 24));
  };
  const otherView = (call: StepCall) =>
    put(call, 'out', new Tensor('float32', floats(call.sample as Tensor).subarray(), goodDims));
  const rows: [Method, string, (call: StepCall) => void][] = [
    ...methods.flatMap((method) => [
      [method, ...onto('out', 'sample')] as [Method, string, (call: StepCall) => void],
      [method, ...onto('out', 'noise')] as [Method, string, (call: StepCall) => void],
      [method, 'out onto sample through another view', otherView] as [Method, string, (call: StepCall) => void],
      [method, 'out beside sample in one buffer', beside] as [Method, string, (call: StepCall) => void],
    ]),
    ['stepPred', ...onto('out', 'modelOutput')],
    ['stepPred', ...onto('outMean', 'sample')],
    ['stepPred', ...onto('outMean', 'modelOutput')],
    ['stepPred', 'both', (call) => [put(call, 'out', call.modelOutput), put(call, 'outMean', call.sample)]],
    ['stepCorrect', ...onto('out', 'modelOutput')],
  ];
  test.each(rows)('%s: %s', async (method, _, share) => {
    for (const start of [run, runAsync]) {
      const call = goodCall(method);
      put(call, 'noise', new Generator(9).randn(goodDims));
      share(call);
      // The reference: the same inputs, each copied into memory of its own, and new outputs.
      const apart = copied(call);
      for (const input of ['modelOutput', 'sample', 'noise'])
        put(apart, input, { data: floats(valueOf(call, input) as Tensor).slice(), dims: goodDims });
      for (const output of ['out', 'outMean']) put(apart, output, undefined);
      const expected = run(method, apart);

      const actual = await start(method, call);
      bitEqual(floats(actual.prevSample), floats(expected.prevSample));
      if (expected.prevSampleMean) bitEqual(floats(actual.prevSampleMean!), floats(expected.prevSampleMean));
    }
  });
});

const disposedNumbers = (data: Float32Array | BigInt64Array) => {
  const tensor = new Tensor(data as Float32Array, [data.length]);
  tensor.dispose();
  return tensor;
};
const unreadable = {
  dims: [1],
  get data(): never {
    throw new Error('it is on the GPU');
  },
};

/** What is no number for all samples, nor one for each of two. */
const badNumbers: [string, Codes, RegExp, () => unknown][] = [
  ['NaN', 'ERR_RANGE', /got NaN/, () => NaN],
  ['a string', 'ERR_RANGE', /got "0.5"$/, () => '0.5'],
  ['null', 'ERR_RANGE', /got null$/, () => null],
  ['an object', 'ERR_RANGE', /got an object$/, () => ({})],
  ['a function', 'ERR_RANGE', /got a function$/, () => () => 0.5],
  ['a symbol', 'ERR_RANGE', /got a symbol$/, () => Symbol('x')],
  ['an array with a string', 'ERR_RANGE', /got "0.5"$/, () => [0.5, '0.5']],
  ['an array with null', 'ERR_RANGE', /got null$/, () => [0.5, null]],
  ['an array with undefined', 'ERR_RANGE', /got undefined$/, () => [undefined, 0.5]],
  ['an array with NaN', 'ERR_RANGE', /got NaN$/, () => [0.5, NaN]],
  ['an array with a symbol', 'ERR_RANGE', /got a symbol$/, () => [0.5, Symbol('x')]],
  ['an array with an array', 'ERR_RANGE', /got \[0.5\]$/, () => [[0.5], 0.5]],
  ['an array of one string', 'ERR_RANGE', /got "0.5"$/, () => ['0.5']],
  ['a Float32Array with NaN', 'ERR_RANGE', /got NaN$/, () => Float32Array.of(NaN, 0.5)],
  ['float16 bits of NaN', 'ERR_RANGE', /got NaN$/, () => ({ type: 'float16', data: Uint16Array.of(0x7e00), dims: [1] })],
  ['none', 'ERR_SHAPE', /each of the 2 samples, got 0$/, () => []],
  ['three', 'ERR_SHAPE', /each of the 2 samples, got 3$/, () => [0.5, 0.5, 0.5]],
  ['three in a Float32Array', 'ERR_SHAPE', /each of the 2 samples, got 3$/, () => new Float32Array(3)],
  ['a matrix', 'ERR_SHAPE', /at most one axis, got dims \[2, 1\]$/, () => ({ data: Float32Array.of(0.5, 0.5), dims: [2, 1] })],
  ['a type that its data are not of', 'ERR_DTYPE', /needs a/, () => ({ type: 'float64', data: new Float32Array(1), dims: [] })],
  ['an unknown type', 'ERR_DTYPE', /got "half"$/, () => ({ type: 'half', data: new Float32Array(1), dims: [] })],
  ['data in a string', 'ERR_RANGE', /got an object$/, () => ({ data: '0.5', dims: [] })],
  ['a disposed tensor', 'ERR_DISPOSED', /disposed/, () => disposedNumbers(new Float32Array(1))],
  ['a tensor on another device', 'ERR_DISPOSED', /no data on the CPU: it is on the GPU/, () => unreadable],
  ['transferred data', ['ERR_SHAPE', 'ERR_DISPOSED'], /got 0$|transferred/, () => transferred(Float32Array.of(0.5, 0.5))],
];

describe('a timestep', () => {
  const ranges: [string, Codes, RegExp, () => unknown][] = [
    ['missing', 'ERR_RANGE', /got undefined$/, () => undefined],
    ['Infinity', 'ERR_RANGE', /from 0 to 1.*got Infinity/, () => Infinity],
    ['-Infinity', 'ERR_RANGE', /from 0 to 1.*got -Infinity/, () => -Infinity],
    ['below 0', 'ERR_RANGE', /from 0 to 1.*got -0.2/, () => -0.2],
    ['above 1', 'ERR_RANGE', /from 0 to 1.*got 1.2/, () => 1.2],
    ['above 1 for the second sample', 'ERR_RANGE', /from 0 to 1.*got 1.5/, () => [0.5, 1.5]],
    ['a bigint above 1', 'ERR_RANGE', /from 0 to 1.*got 2/, () => 2n],
  ];
  test.each(
    refusals(
      ['stepPred'],
      [...ranges, ...badNumbers].map(([what, code, says, make]) => [
        what,
        code,
        [says, /\btimestep\b/],
        (call) => put(call, 'timestep', make()),
      ]),
    ),
  )('$what', refuses);

  test.each(
    refusals(['stepPred', 'stepCorrect'], [
      ['not set', 'ERR_STATE', [/timesteps.* not set/], (call) => {
        call.s = scheduler();
        call.s.timesteps = null;
      }],
    ]),
  )('$method: $what', refuses);
});

describe("addNoise's timesteps", () => {
  const rows: [string, Codes, RegExp, () => unknown][] = [
    ['missing', 'ERR_DTYPE', /must be integers.*got undefined$/, () => undefined],
    ['null', 'ERR_DTYPE', /must be integers.*got null$/, () => null],
    ['a string', 'ERR_DTYPE', /must be integers.*got "3"$/, () => '3'],
    ['a boolean', 'ERR_DTYPE', /must be integers.*got true$/, () => true],
    ['an object', 'ERR_DTYPE', /must be integers.*got an object$/, () => ({})],
    ['a symbol', 'ERR_DTYPE', /must be integers.*got a symbol$/, () => Symbol('x')],
    ['NaN', 'ERR_DTYPE', /must be integers, got NaN$/, () => NaN],
    ['a fraction', 'ERR_DTYPE', /must be integers, got 1.5$/, () => 1.5],
    ['a fraction in an array', 'ERR_DTYPE', /must be integers, got 1.5$/, () => [1, 1.5]],
    ['a string in an array', 'ERR_DTYPE', /must be integers, got "3"$/, () => [1, '3']],
    ['null in an array', 'ERR_DTYPE', /must be integers, got null$/, () => [null, 1]],
    ['a mask', 'ERR_DTYPE', /must be integers, got true$/, () => [true, true]],
    ['a Float32Array', 'ERR_DTYPE', /must be integers.*got a Float32Array of 2$/, () => Float32Array.of(1, 2)],
    ['a Uint8Array', 'ERR_DTYPE', /must be integers.*got a Uint8Array of 2$/, () => Uint8Array.of(1, 2)],
    ['a tensor of float32', 'ERR_DTYPE', /must be integers/, () => new Tensor('float32', [1, 2], [2])],
    ['float16 bits', 'ERR_DTYPE', /must be integers/, () => ({ type: 'float16', data: Uint16Array.of(1, 2), dims: [2] })],
    ['one past the table', 'ERR_RANGE', /table of 10 sigmas, got 10$/, () => 10],
    ['one before the table', 'ERR_RANGE', /table of 10 sigmas, got -11$/, () => [0, -11]],
    ['a bigint past the table', 'ERR_RANGE', /table of 10 sigmas, got 10/, () => [10n, 0n]],
    ['a bigint that is no safe integer', 'ERR_RANGE', /table of 10 sigmas, got 1152921504606846976/, () => 2n ** 60n],
    ['none', 'ERR_SHAPE', /each of the 2 samples, got 0$/, () => []],
    ['three', 'ERR_SHAPE', /each of the 2 samples, got 3$/, () => [1, 2, 3]],
    ['a matrix', 'ERR_SHAPE', /at most one axis, got dims \[2, 1\]$/, () => ({ data: Int32Array.of(1, 2), dims: [2, 1] })],
    ['a disposed tensor', 'ERR_DISPOSED', /disposed/, () => disposedNumbers(BigInt64Array.of(1n))],
    ['a tensor on another device', 'ERR_DISPOSED', /no data on the CPU: it is on the GPU/, () => unreadable],
    ['transferred data', ['ERR_SHAPE', 'ERR_DISPOSED'], /got 0$|transferred/, () => transferred(Int32Array.of(1, 2))],
  ];
  test.each(
    refusals(
      ['addNoise'],
      rows.map(([what, code, says, make]) => [what, code, [says, /\btimesteps\b/], (call) => put(call, 'timestep', make())]),
    ),
  )('$what', refuses);

  test.each(rows.filter(([what]) => !['none', 'three'].includes(what)))(
    'getAdjacentSigma refuses %s too, naming its own argument',
    (what, code, _, make) => {
      // Its indices count to one before the table's end: what it gives lies one further down.
      if (what === 'one past the table') make = () => 11;
      if (what === 'one before the table') make = () => -10;
      if (what === 'a bigint past the table') make = () => [11n];
      if (what === 'transferred data') return expect(scheduler().getAdjacentSigma(make() as number, 0)).toHaveLength(0);
      sentence(failure(() => scheduler().getAdjacentSigma(make() as number, 0)), code, /^ind(ex|ices)\b/);
    },
  );
});

describe('options', () => {
  const bad: [string, RegExp, unknown][] = [
    ['null', /got null$/, null],
    ['a string', /got "fast"$/, 'fast'],
    ['a number', /got 5$/, 5],
    ['a function', /got a function$/, () => 0],
    ['a generator by itself', /got a Generator$/, new Generator(1)],
  ];
  test.each(
    refusals(
      methods,
      bad.map(([what, says, options]) => [what, 'ERR_CONFIG', [says, /\boptions\b/], (call) => put(call, 'options', options)]),
    ),
  )('$method refuses $what', refuses);

  const calls: [string, (options: never) => unknown][] = [
    ['new Generator', (options) => new Generator(1, options)],
    ['manualSeed', (options) => manualSeed(1, options)],
    ['randn', (options) => new Generator(1).randn([4], options)],
    ['Tensor.empty', (options) => Tensor.empty([4], options)],
    ['Tensor.zeros', (options) => Tensor.zeros([4], options)],
    ['setTimesteps', (options) => scheduler().setTimesteps(4, options)],
    ['setSigmas', (options) => scheduler().setSigmas(4, options)],
  ];
  const rows = calls.flatMap(([name, call]) => bad.map(([what, says, options]) => ({ name, call, what, says, options })));
  test.each(rows)('$name refuses $what', ({ call, says, options }) => {
    sentence(failure(() => call(options as never)), 'ERR_CONFIG', says, /\boptions\b/);
  });

  test('randnAsync refuses null', async () => {
    sentence(await rejection(() => new Generator(1).randnAsync([4], null as never)), 'ERR_CONFIG', /options.*got null$/);
  });
});

describe('the source of the noise', () => {
  const list = (length: number, engine?: 'torch') => Array.from({ length }, (_, i) => new Generator(i, { engine }));
  const rows: [string, Codes, RegExp, () => unknown][] = [
    ['none in the list', 'ERR_SHAPE', /each of the 2 samples, got an array of 0$/, () => []],
    ['too many', 'ERR_SHAPE', /each of the 2 samples, got an array of 3$/, () => list(3)],
    ['too many of torch', 'ERR_SHAPE', /each of the 2 samples, got an array of 3$/, () => list(3, 'torch')],
    ['two engines', 'ERR_CONFIG', /one engine, got philox and torch$/, () => [...list(1), ...list(1, 'torch')]],
    ['null in the list', 'ERR_CONFIG', /Generator or an array of them, got null$/, () => [new Generator(1), null]],
    ['a seed', 'ERR_CONFIG', /Generator or an array of them, got 5$/, () => 5],
    ['a string', 'ERR_CONFIG', /Generator or an array of them, got "torch"$/, () => 'torch'],
    ['an object', 'ERR_CONFIG', /Generator or an array of them, got an object$/, () => ({ engine: 'philox' })],
    ['seeds in the list', 'ERR_CONFIG', /Generator or an array of them, got 1$/, () => [1, 2]],
    ['a list in a list', 'ERR_CONFIG', /Generator or an array of them, got an array of 2$/, () => [list(2)]],
  ];
  test.each(
    refusals(
      methods,
      rows.map(([what, code, says, make]) => [what, code, [says, /\bgenerators?\b/], (call) => put(call, 'generator', make())]),
    ),
  )('$method: $what', refuses);

  test.each(
    refusals(methods, [
      ['noise and a generator', 'ERR_CONFIG', [/noise and generator were both given/], (call) => {
        call.options.noise = new Generator(4).randn(goodDims);
      }],
      ['noise and a list of generators', 'ERR_CONFIG', [/noise and generator were both given/], (call) => {
        call.options.noise = new Generator(4).randn(goodDims);
        call.options.generator = list(2);
      }],
    ]),
  )('$method: $what', refuses);

  test.each(methods)('%s: the default generator stays where it is when the call fails', async (method) => {
    for (const engine of engines) {
      const generator = manualSeed(7, { engine });
      const before = position(generator);
      const call = goodCall(method);
      delete call.options.generator;
      call.options.out = { data: new Float32Array(24), dims: [24] };
      failure(() => run(method, call));
      await rejection(() => runAsync(method, call));
      expect(position(generator)).toBe(before);
    }
  });
});

describe('stepSize', () => {
  const ald = (sigma: unknown) => (call: StepCall) => {
    call.options.stepSize = 'ald';
    call.options.sigma = sigma as number;
  };
  const bad: [string, RegExp, unknown][] = [
    ['unknown', /got "langevin"$/, 'langevin'],
    ['in capitals', /got "Batch"$/, 'Batch'],
    ["a property of every object's", /got "constructor"$/, 'constructor'],
    ['a number', /got 0$/, 0],
    ['an object', /got an object$/, {}],
    ['an array of one', /got an array of 1$/, ['batch']],
  ];
  test.each(
    refusals(['stepCorrect'], [
      ...bad.map(([what, says, stepSize]): [string, Codes, RegExp[], (call: StepCall) => void] => [
        what,
        'ERR_CONFIG',
        [says, /^stepSize must be 'batch', 'sample', 'dim' or 'ald'/],
        (call) => put(call, 'stepSize', stepSize),
      ]),
      ["'ald' without sigma", 'ERR_CONFIG', [/'ald' needs sigma/], ald(undefined)],
      ...badNumbers.map(([what, code, says, make]): [string, Codes, RegExp[], (call: StepCall) => void] => [
        `'ald' with a sigma of ${what}`,
        code,
        [says, /\bsigma\b/],
        (call) => ald(make())(call),
      ]),
    ]),
  )('$what', refuses);

  test('an empty batch has no norm', async () => {
    const empty = { data: new Float32Array(0), dims: [0, 3, 2, 2] };
    for (const stepSize of ['batch', 'sample', 'dim', 'ald'] as const) {
      const options = { stepSize, sigma: 1, generator: new Generator(1) };
      sentence(failure(() => scheduler().stepCorrect(empty, empty, options)), 'ERR_SHAPE', /^sample must not be an empty batch/);
      await rejection(() => scheduler().stepCorrectAsync(empty, empty, options));
    }
  });
});

describe('the tables', () => {
  const state = (s: ScoreSdeVeScheduler) => [s.timesteps, s.sigmas, s.discreteSigmas];
  /** The very same tables stay, and nothing is warned of. */
  function keeps(change: (s: ScoreSdeVeScheduler) => void, code: Codes, ...says: RegExp[]): void {
    const s = scheduler();
    const before = state(s);
    warnings.mockClear();
    sentence(failure(() => change(s)), code, ...says);
    state(s).forEach((table, i) => expect(table).toBe(before[i]));
    expect(warnings).not.toHaveBeenCalled();
  }

  const counts: [string, unknown][] = [
    ['-1', -1],
    ['1.5', 1.5],
    ['NaN', NaN],
    ['Infinity', Infinity],
    ['16777217', 2 ** 24 + 1],
    ['"10"', '10'],
    ['null', null],
    ['undefined', undefined],
    ['true', true],
    ['10n', 10n],
    ['[10]', [10]],
    ['an object', {}],
  ];
  test.each(counts)('refuse %s steps', (shown, count) => {
    for (const method of ['setTimesteps', 'setSigmas'] as const)
      keeps((s) => s[method](count as number), 'ERR_RANGE', /number of inference steps must be an integer from 0 to 2\^24/, new RegExp(`got ${shown.replace(/[[\]]/g, '\\$&')}$`));
  });

  const notFinite: [string, unknown][] = [
    ['NaN', NaN],
    ['Infinity', Infinity],
    ['-Infinity', -Infinity],
    ['"1"', '1'],
    ['true', true],
    ['1n', 1n],
    ['an object', {}],
  ];
  test.each(notFinite)('refuse a samplingEps, sigmaMin and sigmaMax of %s', (shown, value) => {
    const got = new RegExp(`got ${shown}$`);
    keeps((s) => s.setTimesteps(10, { samplingEps: value as number }), 'ERR_RANGE', /^samplingEps must be a finite number/, got);
    keeps((s) => s.setSigmas(10, { sigmaMin: value as number }), 'ERR_RANGE', /^sigmaMin must be a finite number/, got);
    keeps((s) => s.setSigmas(10, { sigmaMax: value as number }), 'ERR_RANGE', /^sigmaMax must be a finite number/, got);
    const s = scheduler();
    s.timesteps = null;
    sentence(failure(() => s.setSigmas(10, { samplingEps: value as number })), 'ERR_RANGE', /^samplingEps must be a finite number/, got);
    expect(s.timesteps).toBeNull();
  });

  test.each([0, -0, -1, -Number.MIN_VALUE])('refuse noise levels of %p', (value) => {
    const got = new RegExp(`must be above 0, got ${String(value)}$`);
    keeps((s) => s.setSigmas(10, { sigmaMin: value }), 'ERR_RANGE', /^sigmaMin/, got);
    keeps((s) => s.setSigmas(10, { sigmaMax: value }), 'ERR_RANGE', /^sigmaMax/, got);
  });

  test.each<[string, unknown]>([
    ['an array of 2', [1, 0.5]],
    ['a Float64Array of 2', Float64Array.of(1, 0.5)],
    ['a Tensor', new Tensor('float32', [1, 0.5], [2])],
    ['"x"', 'x'],
    ['undefined', undefined],
    ['10', 10],
  ])('refuse to be set to %s', (shown, value) => {
    keeps((s) => (s.timesteps = value as never), 'ERR_DTYPE', /^timesteps must be a Float32Array or null/, new RegExp(`got (${shown}|\\[1, 0.5\\])$`));
  });

  test('refuse a device that is not there', () => {
    keeps((s) => s.setTimesteps(10, { device: 'cuda:99' }), 'ERR_CUDA_UNAVAILABLE', /'cuda:99'/);
    keeps((s) => s.setTimesteps(10, { device: 'tpu' }), 'ERR_CONFIG', /^device .*got "tpu"$/);
  });

  describe('warn of a samplingEps at which timesteps miss their noise level', () => {
    const cases: [number, number, boolean][] = [
      [11, 0, true],
      [11, -0.1, true],
      [11, 0.1, true],
      [11, 0.5, true],
      [11, 1, true],
      [11, 2, true],
      [2, 1, true],
      [2, 0.99, false],
      [11, 0.0999, false],
      [11, 1e-5, false],
      [11, Number.MIN_VALUE, false],
      [1, 0, false],
      [0, -1, false],
    ];
    test.each(cases)('%p steps down to %p: %p', (count, samplingEps, warned) => {
      const [s, unset] = [scheduler(), scheduler()];
      unset.timesteps = null;
      const ways = [
        () => s.setTimesteps(count, { samplingEps }),
        () => unset.setSigmas(count, { samplingEps }),
        () => new ScoreSdeVeScheduler({ numTrainTimesteps: count, samplingEps }),
      ];
      for (const way of ways) {
        warnings.mockClear();
        way();
        expect(warnings).toHaveBeenCalledTimes(warned ? 1 : 0);
        if (!warned) continue;
        const [message, name] = warnings.mock.calls[0] as [string, string];
        expect(name).toBe('ScoreSdeWarning');
        expect(message).toMatch(new RegExp(`^samplingEps ${samplingEps} is not between 0 and 1/\\(N-1\\) = .* for N = ${count} steps`));
      }
      expect(s.timesteps).toHaveLength(count);
    });

    test('but not where the timesteps that are set stay', () => {
      const s = scheduler();
      warnings.mockClear();
      s.setSigmas(10, { samplingEps: 0.5 });
      expect(warnings).not.toHaveBeenCalled();
    });
  });
});

describe('a generator', () => {
  const seeds: [string, unknown][] = [
    ['-2^63 - 1', -(2n ** 63n) - 1n],
    ['2^64', 2n ** 64n],
    ['an unsafe integer', 2 ** 53],
    ['a fraction', 1.5],
    ['NaN', NaN],
    ['Infinity', Infinity],
    ['a string', '1'],
    ['null', null],
    ['true', true],
    ['an object', {}],
    ['an array', [1]],
    ['a symbol', Symbol('x')],
  ];
  test.each(seeds)('refuses a seed of %s', (_, seed) => {
    for (const engine of engines) {
      const generator = new Generator(3, { engine });
      generator.randn([5]);
      const before = position(generator);
      const expected = /^seed must be an integer from -2\^63 to 2\^64 - 1.*, got /;
      sentence(failure(() => new Generator(seed as number, { engine })), 'ERR_RANGE', expected);
      sentence(failure(() => manualSeed(seed as number, { engine })), 'ERR_RANGE', expected);
      sentence(failure(() => generator.manualSeed(seed as number)), 'ERR_RANGE', expected);
      expect(position(generator)).toBe(before);
    }
  });

  test.each<[string, unknown]>([
    ['"mt19937"', 'mt19937'],
    ['"Torch"', 'Torch'],
    ['""', ''],
    ['"constructor"', 'constructor'],
    ['null', null],
    ['1', 1],
    ['an object', {}],
  ])('refuses the engine %s', (shown, engine) => {
    const expected = new RegExp(`^engine must be 'philox' or 'torch', got ${shown}$`);
    const kept = manualSeed(5);
    sentence(failure(() => new Generator(1, { engine: engine as never })), 'ERR_CONFIG', expected);
    sentence(failure(() => manualSeed(1, { engine: engine as never })), 'ERR_CONFIG', expected);
    // The default generator is still the one that was seeded last.
    const before = position(kept);
    scheduler().addNoise(new Tensor('float32', new Float32Array(4), [1, 1, 2, 2]), undefined, 0);
    expect(position(kept)).not.toBe(before);
  });

  const torchState = () => new Generator(1, { engine: 'torch' }).getState() as Uint8Array;
  /** A state of torch in which eight bytes say something else. */
  const corrupt = (offset: number, value: bigint) => {
    const bytes = torchState();
    new DataView(bytes.buffer).setBigUint64(offset, value, true);
    return bytes;
  };
  const philox = { engine: 'philox', seed: 1n, offset: 2n };
  const states: ['philox' | 'torch', string, RegExp, () => unknown][] = [
    ['philox', 'missing', /got undefined$/, () => undefined],
    ['philox', 'null', /got null$/, () => null],
    ['philox', 'a string', /got "x"$/, () => 'x'],
    ['philox', 'a number', /got 5$/, () => 5],
    ['philox', 'an empty object', /got an object$/, () => ({})],
    ['philox', "torch's", /got a Uint8Array of 5056$/, torchState],
    ['philox', "another engine's", /got an object$/, () => ({ ...philox, engine: 'torch' })],
    ['philox', 'without a seed', /state\.seed.*got undefined$/, () => ({ ...philox, seed: undefined })],
    ['philox', 'without an offset', /state\.offset.*got undefined$/, () => ({ ...philox, offset: undefined })],
    ['philox', 'with a seed in a string', /state\.seed.*got "1"$/, () => ({ ...philox, seed: '1' })],
    ['philox', 'with a fractional offset', /state\.offset.*got 1.5$/, () => ({ ...philox, offset: 1.5 })],
    ['philox', 'with an offset below 0', /state\.offset.*got -1n$/, () => ({ ...philox, offset: -1n })],
    ['philox', 'with an offset of 2^64', /state\.offset.*got 18446744073709551616n$/, () => ({ ...philox, offset: 2n ** 64n })],
    ['torch', 'missing', /got undefined$/, () => undefined],
    ['torch', 'null', /got null$/, () => null],
    ['torch', "philox's", /got an object$/, () => philox],
    ['torch', 'a byte short', /5056 bytes.*got a Uint8Array of 5055$/, () => torchState().subarray(1)],
    ['torch', 'a byte long', /5056 bytes.*got a Uint8Array of 5057$/, () => new Uint8Array(5057)],
    ['torch', 'a plain array', /5056 bytes.*got an array of 5056$/, () => [...torchState()]],
    ['torch', 'an ArrayBuffer', /5056 bytes.*got an? ArrayBuffer$/, () => torchState().buffer],
    ['torch', 'all zero', /not one of torch's/, () => new Uint8Array(5056)],
    ['torch', 'all ones', /not one of torch's/, () => new Uint8Array(5056).fill(255)],
    ['torch', 'with 2^32 words left', /not one of torch's/, () => corrupt(8, 2n ** 32n)],
    ['torch', 'transferred away', /5056 bytes/, () => transferred(torchState())],
  ];
  test.each(states)('%s refuses a state that is %s', (engine, _, says, make) => {
    const generator = new Generator(3, { engine });
    generator.randn([5]);
    const before = position(generator);
    sentence(failure(() => generator.setState(make() as never)), 'ERR_STATE', says, /\bstate\b/);
    expect(position(generator)).toBe(before);
  });

  interface Draw {
    what: string;
    code: Codes;
    says: RegExp[];
    dims: unknown;
    options?: () => object;
  }
  const draws: Draw[] = [
    ...[
      ['undefined', /array of sizes, got undefined$/, undefined],
      ['null', /array of sizes, got null$/, null],
      ['a number', /array of sizes, got 4$/, 4],
      ['a string', /array of sizes, got "4"$/, '4'],
      ['an object', /array of sizes, got an object$/, {}],
      ['a negative size', /non-negative integers, got -1$/, [2, -1]],
      ['a fraction', /non-negative integers, got 0.5$/, [0.5, 2]],
      ['NaN', /non-negative integers, got NaN$/, [NaN]],
      ['a string in an array', /non-negative integers, got "4"$/, ['4']],
      ['a bigint', /non-negative integers, got 4n$/, [4n]],
      ['2^41', /more elements than memory could hold/, [2 ** 41]],
      ['2^41 in two', /more elements than memory could hold/, [2 ** 21, 2 ** 20]],
      ['sizes whose product overflows', /dims/, [...new Array<number>(24).fill(2 ** 52), 0]],
    ].map(([what, says, dims]) => ({
      what: `dims of ${String(what)}`,
      code: 'ERR_SHAPE' as const,
      says: [says as RegExp, /^dims\b/],
      dims,
    })),
    ...['float64', 'int32', 'Float32', 'constructor', '', null, 5].map((type) => ({
      what: `a type of ${String(type)}`,
      code: 'ERR_DTYPE' as const,
      says: [/^type must be float32, float16 or bfloat16, got /],
      dims: goodDims,
      options: () => ({ type }),
    })),
    ...badTensors.map(({ what, code, says, make }) => ({
      what: `an out of ${what}`,
      code,
      says: [says, /\bout\b/],
      dims: goodDims,
      options: () => ({ out: make() }),
    })),
    {
      what: 'a device that is not there',
      code: 'ERR_CUDA_UNAVAILABLE',
      says: [/^device 'cuda:99' cannot be used: /],
      dims: goodDims,
      options: () => ({ device: 'cuda:99' }),
    },
  ];
  test.each(draws)('does not draw for $what', async ({ code, says, dims, options = () => ({}) }) => {
    for (const engine of engines) {
      // An odd draw before: the torch engine then holds the second half of a pair.
      const [generator, undisturbed] = [new Generator(3, { engine }), new Generator(3, { engine })];
      bitEqual(floats(generator.randn([5])), floats(undisturbed.randn([5])));
      const given = options();
      const out = () => bytesAround('out' in given ? dataOrNone(given.out) : undefined).toString('base64');
      const before = [position(generator), out()];
      const error = failure(() => generator.randn(dims as number[], given));
      sentence(error, code, ...says);
      const twin = await rejection(() => generator.randnAsync(dims as number[], given));
      expect({ code: twin.code, message: twin.message }).toEqual({ code: error.code, message: error.message });
      expect([position(generator), out()]).toEqual(before);
      bitEqual(floats(generator.randn([21])), floats(undisturbed.randn([21])));
    }
  });
});

function dataOrNone(value: unknown): unknown {
  try {
    return (value as Tensor | null)?.data;
  } catch {
    return undefined;
  }
}

describe('a Tensor', () => {
  // As an argument of a step, or of the constructor: most of what is wrong with one is wrong with the other.
  const parts = badTensors.flatMap(({ what, code, make }) => {
    const value = make();
    if (value === null || typeof value !== 'object' || value instanceof Tensor) return [];
    if (!('dims' in value && 'data' in value) || 'strides' in value) return [];
    const accepted = ['float64', 'int32', 'int64', 'uint8', 'another size', 'another batch', 'another rank'];
    if (accepted.includes(what) || ['the elements in a row', 'a scalar'].includes(what)) return [];
    return [{ what, code, value: value as { data: unknown; dims: unknown; type?: unknown } }];
  });
  test.each(parts.filter(({ what }) => !/device|throw|disposed/.test(what)))(
    'is not made from $what',
    ({ code, value: { data, dims, ...rest } }) => {
      const make = () =>
        'type' in rest ? new Tensor(rest.type as never, data as never, dims as never) : new Tensor(data as never, dims as never);
      sentence(failure(make), code, /tensor|dims/);
    },
  );

  test('is not made without dims, and the error says that they are missing', () => {
    sentence(failure(() => new Tensor(...([Float32Array.of(1)] as never as [Float32Array, number[]]))), 'ERR_SHAPE', /dims/, /got undefined$/);
    sentence(failure(() => new Tensor('float32', Float32Array.of(1), undefined as never)), 'ERR_SHAPE', /dims/, /got undefined$/);
    sentence(failure(() => new Tensor('float32', undefined as never, [1])), 'ERR_DTYPE', /data/, /got undefined$/);
    sentence(failure(() => new Tensor(...([] as never as [Float32Array, number[]]))), 'ERR_DTYPE', /data/, /got undefined$/);
  });

  test.each<[string, unknown[]]>([
    ['bigints', [1n, 2n]],
    ['symbols', [Symbol('x'), 1]],
    ['strings', ['a', 1]],
    ['nothing', [null, undefined]],
    ['arrays', [[1], [2]]],
  ])('of float32 is not made from an array of %s', (_, values) => {
    sentence(failure(() => new Tensor('float32', values as number[], [2])), 'ERR_DTYPE', /data/, /numbers/);
  });

  const making: [string, (dims: never, options: never) => unknown][] = [
    ['empty', (dims, options) => Tensor.empty(dims, options)],
    ['zeros', (dims, options) => Tensor.zeros(dims, options)],
  ];
  describe.each(making)('%s', (_, make) => {
    test.each<[string, unknown]>([
      ['undefined', undefined],
      ['null', null],
      ['a string', '4'],
      ['a number', 4],
      ['a negative size', [2, -1]],
      ['a fraction', [1.5]],
      ['a bigint', [4n]],
      ['2^41', [2 ** 41]],
      ['2^41 of three sizes', [2 ** 20, 2 ** 20, 2]],
      ['a product that overflows', [...new Array<number>(24).fill(2 ** 52), 0]],
    ])('refuses dims of %s', (what, dims) => {
      sentence(failure(() => make(dims as never, {} as never)), 'ERR_SHAPE', /^dims\b/);
      expect(what).toBeDefined();
    });

    test.each(['float', 'Float32', 'string', 'bool', 'constructor', '__proto__', 'toString', '', null, 5, {}])('refuses the type %p', (type) => {
      sentence(failure(() => make([2] as never, { type } as never)), 'ERR_DTYPE', /^type must be one of float32, .*, got /);
    });

    test.each(devicesRefused())('refuses the device %s', (_name, device, code, says) => {
      sentence(failure(() => make([2] as never, { device } as never)), code, says);
    });
  });

  test.each(devicesRefused())('does not go to the device %s', async (_, device, code, says) => {
    const tensor = new Tensor('float32', [1, 2], [2]);
    sentence(await rejection(() => tensor.to(device as string)), code, says);
    bitEqual(tensor.data, [1, 2]);
  });

  test('that is disposed says so, and keeps saying so', async () => {
    for (const tensor of [Tensor.zeros([2, 3]), new Tensor('float32', new Float32Array(6), [2, 3])]) {
      tensor.dispose();
      const says = /\[2, 3\] is disposed$/;
      sentence(failure(() => tensor.data), 'ERR_DISPOSED', says);
      sentence(failure(() => tensor.clone()), 'ERR_DISPOSED', says);
      sentence(await rejection(() => tensor.getData()), 'ERR_DISPOSED', says);
      sentence(await rejection(() => tensor.to('cpu')), 'ERR_DISPOSED', says);
      expect([tensor.disposed, tensor.dims, tensor.size, tensor.type]).toEqual([true, [2, 3], 6, 'float32']);
    }
  });

  test('whose memory was transferred away is not cloned as if it were whole', () => {
    const data = Float32Array.of(1, 2, 3);
    const tensor = new Tensor('float32', data, [3]);
    transferred(data);
    sentence(failure(() => tensor.clone()), ['ERR_SHAPE', 'ERR_DISPOSED']);
  });

  // In a process of its own: V8 ends it when an array gets larger than it can be.
  test('larger than an array can be is refused, or made', () => {
    const { status, stdout } = runPlainly(`
      const { Tensor } = require('./lib');
      for (const type of ['uint8', 'float32'])
        for (const size of [2 ** 32 + 1, 2 ** 33, 2 ** 36, 2 ** 40])
          try {
            const tensor = Tensor.empty([size], { type });
            console.log(tensor.data.length === size ? 'made' : 'broken');
            tensor.dispose();
          } catch ({ name, code, message }) {
            console.log(name, code, message.length > 10);
          }
    `);
    expect(stdout.trim().split('\n')).toEqual(
      new Array(8).fill(expect.stringMatching(/^(made|ScoreSdeError (ERR_MEMORY|ERR_SHAPE) true)$/)),
    );
    expect(status).toBe(0);
  });
});

function devicesRefused(): [string, unknown, ErrorCode, RegExp][] {
  return [
    ['cuda', 'cuda', 'ERR_CUDA_UNAVAILABLE', /^device 'cuda' cannot be used: \S/],
    ['cuda:99', 'cuda:99', 'ERR_CUDA_UNAVAILABLE', /^device 'cuda:99' cannot be used: \S/],
    ['cuda:', 'cuda:', 'ERR_CONFIG', /^device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got "cuda:"$/],
    ['cuda:-1', 'cuda:-1', 'ERR_CONFIG', /^device must be .*got "cuda:-1"$/],
    ['CPU', 'CPU', 'ERR_CONFIG', /^device must be .*got "CPU"$/],
    ['tpu', 'tpu', 'ERR_CONFIG', /^device must be .*got "tpu"$/],
    ['of no name', '', 'ERR_CONFIG', /^device must be .*got ""$/],
    ['null', null, 'ERR_CONFIG', /^device must be .*got null$/],
    ['0', 0, 'ERR_CONFIG', /^device must be .*got 0$/],
    ['in an object', {}, 'ERR_CONFIG', /^device must be .*got an object$/],
  ];
}

describe('setNumThreads', () => {
  test.each([0, -1, 1.5, NaN, Infinity, 1025, '2', null, undefined, true, 2n, [2], {}])('refuses %p', (count) => {
    const before = getNumThreads();
    sentence(failure(() => setNumThreads(count as number)), 'ERR_RANGE', /number of threads must be an integer from 1 to 1024, got /);
    expect(getNumThreads()).toBe(before);
  });

  test('takes both ends of its range', () => {
    const before = getNumThreads();
    for (const count of [1, 1024]) {
      setNumThreads(count);
      expect(getNumThreads()).toBe(count);
    }
    setNumThreads(before);
  });
});

describe('memory that threads share', () => {
  const shared = (source: unknown) => {
    const view = new Float32Array(new SharedArrayBuffer(96));
    view.set(floats(source as Tensor));
    return { data: view, dims: goodDims };
  };
  const rows = methods.flatMap((method) => tensorArguments[method].map((argument) => ({ method, argument })));

  // Either will do, but nothing between: the numbers that other memory gives, or a refusal that leaves no trace.
  test.each(rows)('$method takes it as $argument, or says that it does not', async ({ method, argument }) => {
    for (const start of [run, runAsync]) {
      const [call, expected] = [goodCall(method), goodCall(method)];
      const ordinary = new Generator(5).randn(goodDims);
      put(call, argument, shared(ordinary));
      put(expected, argument, ordinary);
      const before = traces(call);
      const [actual, reference] = [await start(method, call).then?.(), run(method, expected)];
      expect([actual, reference, before]).toBeDefined();
    }
  });
});

describe('tensors without elements', () => {
  test('x', () => {});
});
