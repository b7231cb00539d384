import { Generator, manualSeed, Tensor, type ErrorCode, type TensorLike } from '../lib';
import { badTensors, goodDims, transferred } from './support/bad-tensors';
import { Block } from './support/block';
import { devices, elementsOf, on, reshaped } from './support/devices';
import { scheduler } from './support/edge';
import { bitEqual } from './support/golden';
import { failure, own, position, rejection, sentence } from './support/refusals';
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
const refusesOn =
  (device: string) =>
  async ({ method, code, says, spoil }: Refusal): Promise<void> => {
    for (const engine of engines) {
      const sound = goodCall(method, engine, device);
      const spoilt = copied(sound);
      spoil(spoilt);
      const both = async () => [await traces(sound), await traces(spoilt)];
      const before = await both();

      const error = failure(() => run(method, spoilt));
      sentence(error, code, ...says);
      expect(await both()).toEqual(before);

      const twin = await rejection(() => runAsync(method, spoilt));
      expect({ code: twin.code, message: twin.message }).toEqual({ code: error.code, message: error.message });
      expect(await both()).toEqual(before);

      await same(run(method, sound), run(method, goodCall(method, engine)));
    }
  };

async function same(actual: ReturnType<typeof run>, expected: ReturnType<typeof run>): Promise<void> {
  bitEqual(await elementsOf(actual.prevSample), await elementsOf(expected.prevSample));
  if (expected.prevSampleMean)
    bitEqual(await elementsOf(actual.prevSampleMean!), await elementsOf(expected.prevSampleMean));
}

const refusals = (of: Method[], rows: [string, Codes, RegExp[], (call: StepCall, method: Method) => void][]) =>
  rows.flatMap(([what, code, says, spoil]) =>
    of.map((method): Refusal => ({ method, what, code, says, spoil: (call) => spoil(call, method) })),
  );

const tensorArguments: Record<Method, string[]> = {
  stepPred: ['modelOutput', 'sample', 'noise', 'out', 'outMean'],
  stepCorrect: ['modelOutput', 'sample', 'noise', 'out'],
  addNoise: ['sample', 'noise', 'out'],
};

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
  [
    'float16 bits of NaN',
    'ERR_RANGE',
    /got NaN$/,
    () => ({ type: 'float16', data: Uint16Array.of(0x7e00), dims: [1] }),
  ],
  ['none', 'ERR_SHAPE', /each of the 2 samples, got 0$/, () => []],
  ['three', 'ERR_SHAPE', /each of the 2 samples, got 3$/, () => [0.5, 0.5, 0.5]],
  ['three in a Float32Array', 'ERR_SHAPE', /each of the 2 samples, got 3$/, () => new Float32Array(3)],
  [
    'a matrix',
    'ERR_SHAPE',
    /at most one axis, got dims \[2, 1\]$/,
    () => ({ data: Float32Array.of(0.5, 0.5), dims: [2, 1] }),
  ],
  [
    'a type that its data are not of',
    'ERR_DTYPE',
    /needs a/,
    () => ({ type: 'float64', data: new Float32Array(1), dims: [] }),
  ],
  ['an unknown type', 'ERR_DTYPE', /got "half"$/, () => ({ type: 'half', data: new Float32Array(1), dims: [] })],
  ['data in a string', 'ERR_RANGE', /got an object$/, () => ({ data: '0.5', dims: [] })],
  ['a disposed tensor', 'ERR_DISPOSED', /disposed/, () => disposedNumbers(new Float32Array(1))],
  ['a tensor on another device', 'ERR_DISPOSED', /no data on the CPU: it is on the GPU/, () => unreadable],
  [
    'transferred data',
    ['ERR_SHAPE', 'ERR_DISPOSED'],
    /got 0$|transferred/,
    () => transferred(Float32Array.of(0.5, 0.5)),
  ],
];

describe.each(devices)('on %s', (device) => {
  const refuses = refusesOn(device);

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

  describe('memory that an output may not share', () => {
    type Pair = (block: Block) => [first: TensorLike, second: TensorLike];
    const tensor = (like: TensorLike) =>
      like instanceof Tensor ? like : new Tensor('float32', like.data as Float32Array, goodDims);
    const overlaps: [string, Pair][] = [
      ['one element further on', (b) => [b.at(4), b.at(5)]],
      ['one element before', (b) => [b.at(5), b.at(4)]],
      ['its last element', (b) => [b.at(0), b.at(23)]],
      ['as 16-bit values', (b) => [b.at(4), b.at(4, 'float16')]],
      ['as float32 over 16-bit values', (b) => [b.at(4, 'float16'), b.at(4)]],
      ['as bfloat16 over float16', (b) => [b.at(4, 'float16'), b.at(4, 'bfloat16')]],
      ['through a Tensor', (b) => [b.at(4), tensor(b.at(6))]],
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
          const [first, second] = make(new Block(device));
          put(call, input, first);
          put(call, output, second);
        },
      })),
    );
    test.each(rows)('$method: $output over $input, $what', refuses);

    const twice: [string, Pair][] = [['the very same', (b) => [b.at(4), b.at(4)]], ...overlaps];
    test.each(
      refusals(
        ['stepPred'],
        twice.map(([what, make]) => [
          what,
          'ERR_ALIAS',
          [/out and outMean overlap/],
          (call) => {
            const [first, second] = make(new Block(device));
            put(call, 'out', first);
            put(call, 'outMean', second);
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
      const block = new Block(device);
      put(call, 'sample', block.at(0));
      put(call, 'out', block.at(24));
    };
    const otherView = (call: StepCall) => {
      const sample = call.sample as Tensor;
      const view = device === 'cpu' ? new Tensor('float32', floats(sample).subarray(), goodDims) : undefined;
      put(call, 'out', view ?? reshaped(sample, goodDims));
    };
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
        const call = goodCall(method, 'philox', device);
        put(call, 'noise', new Generator(9).randn(goodDims, { device }));
        share(call);
        // The reference: the same inputs, each copied into memory of its own, and new outputs.
        const apart = copied(call);
        for (const input of ['modelOutput', 'sample', 'noise']) {
          const data = (await elementsOf(valueOf(call, input) as Tensor)).slice();
          put(apart, input, await on(device, { data, dims: goodDims }));
        }
        for (const output of ['out', 'outMean']) put(apart, output, undefined);
        const expected = run(method, apart);

        await same(await start(method, call), expected);
      }
    });
  });

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
      refusals(
        ['stepPred', 'stepCorrect'],
        [
          [
            'not set',
            'ERR_STATE',
            [/timesteps.* not set/],
            (call) => {
              call.s = scheduler();
              call.s.timesteps = null;
            },
          ],
        ],
      ),
    )('$method: $what', refuses);
  });

  describe('indices', () => {
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
      ['float16', 'ERR_DTYPE', /integers/, () => ({ type: 'float16', data: Uint16Array.of(1, 2), dims: [2] })],
      ['past the table', 'ERR_RANGE', /table of 10 sigmas, got 11$/, () => 11],
      ['before the table', 'ERR_RANGE', /table of 10 sigmas, got -11$/, () => [0, -11]],
      ['a bigint past the table', 'ERR_RANGE', /table of 10 sigmas, got 11/, () => [11n, 0n]],
      ['an unsafe bigint', 'ERR_RANGE', /table of 10 sigmas, got 11529215046068/, () => 2n ** 60n],
      ['a matrix', 'ERR_SHAPE', /one axis, got dims \[2, 1\]$/, () => ({ data: Int32Array.of(1, 2), dims: [2, 1] })],
      ['a disposed tensor', 'ERR_DISPOSED', /disposed/, () => disposedNumbers(BigInt64Array.of(1n))],
      ['a tensor on another device', 'ERR_DISPOSED', /no data on the CPU: it is on the GPU/, () => unreadable],
    ];
    const ofNoise: typeof rows = [
      ['one past the table', 'ERR_RANGE', /table of 10 sigmas, got 10$/, () => 10],
      ['none', 'ERR_SHAPE', /each of the 2 samples, got 0$/, () => []],
      ['three', 'ERR_SHAPE', /each of the 2 samples, got 3$/, () => [1, 2, 3]],
      ['transferred', ['ERR_SHAPE', 'ERR_DISPOSED'], /got 0$|transferred/, () => transferred(Int32Array.of(1, 2))],
    ];
    test.each(
      refusals(
        ['addNoise'],
        [...rows, ...ofNoise].map(([what, code, says, make]) => [
          what,
          code,
          [says, /\btimesteps\b/],
          (call) => put(call, 'timestep', make()),
        ]),
      ),
    )('$method refuses $what', refuses);

    // Its index counts to one past the table, as in the reference: it looks one further down.
    const ofAdjacent: typeof rows = [['one before the table', 'ERR_RANGE', /table of 10 sigmas, got -10$/, () => -10]];
    if (device !== 'cpu') return;
    test.each([...rows, ...ofAdjacent])('getAdjacentSigma refuses %s', (_, code, says, make) => {
      const error = failure(() => scheduler().getAdjacentSigma(make() as number, 0));
      sentence(error, code, says, /^ind(ex|ices)\b/);
    });
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
        bad.map(([what, says, options]) => [
          what,
          'ERR_CONFIG',
          [says, /\boptions\b/],
          (call) => put(call, 'options', options),
        ]),
      ),
    )('$method refuses $what', refuses);

    if (device !== 'cpu') return;
    const calls: [string, (options: never) => unknown][] = [
      ['new Generator', (options) => new Generator(1, options)],
      ['manualSeed', (options) => manualSeed(1, options)],
      ['randn', (options) => new Generator(1).randn([4], options)],
      ['Tensor.empty', (options) => Tensor.empty([4], options)],
      ['Tensor.zeros', (options) => Tensor.zeros([4], options)],
      ['setTimesteps', (options) => scheduler().setTimesteps(4, options)],
      ['setSigmas', (options) => scheduler().setSigmas(4, options)],
    ];
    const rows = calls.flatMap(([name, call]) =>
      bad.map(([what, says, options]) => ({ name, call, what, says, options })),
    );
    test.each(rows)('$name refuses $what', ({ call, says, options }) => {
      sentence(
        failure(() => call(options as never)),
        'ERR_CONFIG',
        says,
        /\boptions\b/,
      );
    });

    test('randnAsync refuses null', async () => {
      sentence(
        await rejection(() => new Generator(1).randnAsync([4], null as never)),
        'ERR_CONFIG',
        /options.*got null$/,
      );
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
        rows.map(([what, code, says, make]) => [
          what,
          code,
          [says, /\bgenerators?\b/],
          (call) => put(call, 'generator', make()),
        ]),
      ),
    )('$method: $what', refuses);

    test.each(
      refusals(methods, [
        [
          'noise and a generator',
          'ERR_CONFIG',
          [/noise and generator were both given/],
          (call) => {
            call.options.noise = new Generator(4).randn(goodDims);
          },
        ],
        [
          'noise and a list of generators',
          'ERR_CONFIG',
          [/noise and generator were both given/],
          (call) => {
            call.options.noise = new Generator(4).randn(goodDims);
            call.options.generator = list(2);
          },
        ],
      ]),
    )('$method: $what', refuses);

    test.each(methods)('%s: the default generator stays where it is when the call fails', async (method) => {
      for (const engine of engines) {
        const generator = manualSeed(7, { engine });
        const before = position(generator);
        const call = goodCall(method, engine, device);
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
      refusals(
        ['stepCorrect'],
        [
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
        ],
      ),
    )('$what', refuses);

    test('an empty batch has no norm', async () => {
      const empty = Tensor.empty([0, 3, 2, 2], { device });
      for (const stepSize of ['batch', 'sample', 'dim', 'ald'] as const) {
        const options = { stepSize, sigma: 1, generator: new Generator(1) };
        sentence(
          failure(() => scheduler().stepCorrect(empty, empty, options)),
          'ERR_SHAPE',
          /^sample must not be an empty batch/,
        );
        await rejection(() => scheduler().stepCorrectAsync(empty, empty, options));
      }
    });
  });

  describe('tensors without elements', () => {
    const empty = (dims: number[]) => Tensor.empty(dims, { device });
    const shapes = [[0], [2, 0], [0, 3, 2, 2], [2, 0, 2, 2], [2, 3, 2, 0]];
    const sources = engines.flatMap((engine) => [1, 2].map((count) => ({ engine, count })));

    /** Each sample has its generator, or all have one: none moves, since nothing is drawn. */
    async function nothing(dims: number[], step: (generator: Generator[]) => Promise<Tensor[]>): Promise<void> {
      for (const { engine, count } of sources) {
        if (count > 1 && dims[0] !== count) continue;
        const generators = Array.from({ length: count }, (_, i) => new Generator(i, { engine }));
        const before = generators.map(position);
        for (const result of await step(generators)) expect([result.dims, result.size]).toEqual([dims, 0]);
        expect(generators.map(position)).toEqual(before);
      }
    }

    test.each(shapes.map((dims) => ({ dims })))('$dims goes through the predictor', ({ dims }) =>
      nothing(dims, async (generator) => {
        const args = [empty(dims), 0.5, empty(dims), { generator }] as const;
        const results = [scheduler().stepPred(...args), await scheduler().stepPredAsync(...args)];
        return results.flatMap(({ prevSample, prevSampleMean }) => [prevSample, prevSampleMean]);
      }),
    );

    const withSamples = shapes.filter((dims) => dims[0] !== 0);
    test.each(withSamples.map((dims) => ({ dims })))('$dims goes through the corrector', async ({ dims }) => {
      for (const stepSize of ['batch', 'sample', 'dim', 'ald'] as const)
        await nothing(dims, async (generator) => {
          const args = [empty(dims), empty(dims), { generator, stepSize, sigma: 1 }] as const;
          return [
            scheduler().stepCorrect(...args).prevSample,
            (await scheduler().stepCorrectAsync(...args)).prevSample,
          ];
        });
    });

    test.each(shapes.filter((dims) => dims.length === 4).map((dims) => ({ dims })))('$dims takes noise', ({ dims }) =>
      nothing(dims, async (generator) => {
        const args = [empty(dims), undefined, 3, { generator }] as const;
        return [scheduler().addNoise(...args), await scheduler().addNoiseAsync(...args)];
      }),
    );

    test.each(shapes.map((dims) => ({ dims })))('$dims is made, drawn, cloned and disposed', async ({ dims }) => {
      await nothing(dims, async ([generator]) => [
        generator!.randn(dims, { device }),
        await generator!.randnAsync(dims, { device }),
      ]);
      for (const tensor of [Tensor.zeros(dims, { device }), empty(dims), empty(dims).clone()]) {
        expect([tensor.dims, tensor.size, (await tensor.getData()).length]).toEqual([dims, 0, 0]);
        tensor.dispose();
        expect(tensor.disposed).toBe(true);
      }
    });
  });
});

describe('memory that may change its size', () => {
  const size = goodDims.reduce((a, b) => a * b);
  const rows = methods.flatMap((method) => tensorArguments[method].map((argument) => ({ method, argument })));

  test.each(rows)('$method refuses it as $argument', async ({ method, argument }) => {
    const data = new Float32Array(new (ArrayBuffer as any)(4 * size, { maxByteLength: 8 * size }) as ArrayBuffer);
    for (const start of [run, runAsync]) {
      const call = goodCall(method);
      put(call, argument, { data, dims: goodDims });
      const before = await traces(call);
      const error = await rejection(async () => start(method, call));
      sentence(error, 'ERR_DTYPE', new RegExp(`\\b${nameIn(method, argument)}\\b`), /ArrayBuffer of fixed size/);
      expect(await traces(call)).toEqual(before);
    }
  });
});

describe('memory that threads share', () => {
  const shared = ({ data }: Tensor) => {
    const view = new Float32Array(new SharedArrayBuffer(data.byteLength));
    view.set(data as Float32Array);
    return { data: view, dims: goodDims };
  };
  const rows = methods.flatMap((method) => tensorArguments[method].map((argument) => ({ method, argument })));

  // Either will do, but nothing between: the numbers that other memory gives, or a refusal that leaves no trace.
  test.each(rows)('$method takes it as $argument, or says that it does not', async ({ method, argument }) => {
    const ordinary = new Generator(5).randn(goodDims);
    const expected = goodCall(method);
    put(expected, argument, ordinary);
    const reference = run(method, expected);
    for (const start of [run, runAsync]) {
      const call = goodCall(method);
      put(call, argument, shared(ordinary.clone()));
      const before = await traces(call);
      const outcome = await Promise.resolve()
        .then(() => start(method, call))
        .catch((error: unknown) => error as Error);
      if (outcome instanceof Error || !('prevSample' in outcome)) {
        sentence(own(outcome), 'ERR_DTYPE', new RegExp(`\\b${nameIn(method, argument)}\\b`), /SharedArrayBuffer/);
        expect(await traces(call)).toEqual(before);
      } else {
        bitEqual(floats(outcome.prevSample), floats(reference.prevSample));
        if (reference.prevSampleMean) bitEqual(floats(outcome.prevSampleMean!), floats(reference.prevSampleMean));
      }
    }
  });
});
