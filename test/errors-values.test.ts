import {
  Generator,
  getNumThreads,
  manualSeed,
  ScoreSdeVeScheduler,
  setNumThreads,
  Tensor,
  type ErrorCode,
} from '../lib';
import { badTensors, brokenTensors, goodDims, transferred } from './support/bad-tensors';
import { scheduler } from './support/edge';
import { bitEqual } from './support/golden';
import { runPlainly } from './support/plain';
import { bytesAround, dataOf, failure, position, rejection, sentence } from './support/refusals';
import { engines } from './support/step-calls';

type Codes = ErrorCode | ErrorCode[];

const floats = (tensor: { data: unknown }) => tensor.data as Float32Array;

let warnings: jest.SpyInstance;
beforeEach(() => {
  warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => jest.restoreAllMocks());

describe('the tables', () => {
  const state = (s: ScoreSdeVeScheduler) => [s.timesteps, s.sigmas, s.discreteSigmas];
  /** The very same tables stay, and nothing is warned of. */
  function keeps(change: (s: ScoreSdeVeScheduler) => void, code: Codes, ...says: RegExp[]): void {
    const s = scheduler();
    const before = state(s);
    warnings.mockClear();
    sentence(
      failure(() => change(s)),
      code,
      ...says,
    );
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
      keeps(
        (s) => s[method](count as number),
        'ERR_RANGE',
        /number of inference steps must be an integer from 0 to 2\^24/,
        new RegExp(`got ${shown.replace(/[[\]]/g, '\\$&')}$`),
      );
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
    keeps(
      (s) => s.setTimesteps(10, { samplingEps: value as number }),
      'ERR_RANGE',
      /^samplingEps must be a finite number/,
      got,
    );
    keeps((s) => s.setSigmas(10, { sigmaMin: value as number }), 'ERR_RANGE', /^sigmaMin must be a finite number/, got);
    keeps((s) => s.setSigmas(10, { sigmaMax: value as number }), 'ERR_RANGE', /^sigmaMax must be a finite number/, got);
    const s = scheduler();
    s.timesteps = null;
    sentence(
      failure(() => s.setSigmas(10, { samplingEps: value as number })),
      'ERR_RANGE',
      /^samplingEps must be a finite number/,
      got,
    );
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
    keeps(
      (s) => (s.timesteps = value as never),
      'ERR_DTYPE',
      /^timesteps must be a Float32Array or null/,
      new RegExp(`got (${shown}|\\[1, 0.5\\])$`),
    );
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
        expect(message).toMatch(
          new RegExp(`^samplingEps ${samplingEps} is not between 0 and 1/\\(N-1\\) = .* for N = ${count} steps`),
        );
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
      sentence(
        failure(() => new Generator(seed as number, { engine })),
        'ERR_RANGE',
        expected,
      );
      sentence(
        failure(() => manualSeed(seed as number, { engine })),
        'ERR_RANGE',
        expected,
      );
      sentence(
        failure(() => generator.manualSeed(seed as number)),
        'ERR_RANGE',
        expected,
      );
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
    sentence(
      failure(() => new Generator(1, { engine: engine as never })),
      'ERR_CONFIG',
      expected,
    );
    sentence(
      failure(() => manualSeed(1, { engine: engine as never })),
      'ERR_CONFIG',
      expected,
    );
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
  /** Begun, so that position and words left say the same twice. */
  const contradicting = (left: bigint, next: bigint) => {
    const bytes = corrupt(8, (1n << 32n) | BigInt.asUintN(32, left));
    new DataView(bytes.buffer).setBigUint64(16, BigInt.asUintN(64, next), true);
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
    [
      'philox',
      'with an offset of 2^64',
      /state\.offset.*got 18446744073709551616n$/,
      () => ({ ...philox, offset: 2n ** 64n }),
    ],
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
    ['torch', 'with no word left', /not one of torch's/, () => corrupt(8, 1n << 32n)],
    ['torch', 'with a word left of too many', /not one of torch's/, () => corrupt(8, (1n << 32n) | 626n)],
    ['torch', 'never seeded', /not one of torch's/, () => corrupt(8, 1n)],
    ...(
      [
        [-2n, 627n],
        [626n, -1n],
        [625n, 0n],
        [1n, 625n],
        [0n, 625n],
      ] as const
    ).map(([left, next]): (typeof states)[number] => [
      'torch',
      `at word ${next} with ${left} left`,
      /not one of torch's/,
      () => contradicting(left, next),
    ]),
    ['torch', 'far past its words', /not one of torch's/, () => corrupt(16, 2n ** 64n - 1n)],
    ['torch', 'transferred away', /5056 bytes/, () => transferred(torchState())],
  ];
  test.each(states)('%s refuses a state that is %s', (engine, _, says, make) => {
    const generator = new Generator(3, { engine });
    generator.randn([5]);
    const before = position(generator);
    sentence(
      failure(() => generator.setState(make() as never)),
      'ERR_STATE',
      says,
      /\bstate\b/,
    );
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
      const out = () => bytesAround('out' in given ? dataOf(given.out) : undefined).toString('base64');
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

describe('a Tensor', () => {
  // What is wrong with these as arguments of a step, the constructor finds as well.
  const without = ({ what }: { what: string }) => what !== 'dims of undefined'; // which are one axis, below
  test.each(brokenTensors.filter(without))('is not made from $what', ({ code, make }) => {
    const { data, dims, ...rest } = make() as { data: never; dims: never; type?: never };
    const construct = () => ('type' in rest ? new Tensor(rest.type as never, data, dims) : new Tensor(data, dims));
    sentence(failure(construct), code, /tensor|dims/);
  });

  test('is of one axis unless it has dims, as an ort.Tensor', () => {
    const data = Float32Array.of(1, 2);
    for (const tensor of [new Tensor(data), new Tensor('float32', data), new Tensor('float32', [1, 2], undefined)]) {
      expect([tensor.type, tensor.dims]).toEqual(['float32', [2]]);
      expect(tensor.data).toEqual(data);
    }
  });

  test.each<[string, unknown[]]>([
    ['bigints', [1n, 2n]],
    ['symbols', [Symbol('x'), 1]],
    ['strings', ['a', 1]],
    ['nothing', [null, undefined]],
    ['arrays', [[1], [2]]],
  ])('of float32 is not made from an array of %s', (_, values) => {
    sentence(
      failure(() => new Tensor('float32', values as number[], [2])),
      'ERR_DTYPE',
      /data/,
      /numbers/,
    );
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
    ])('refuses dims of %s', (_what, dims) => {
      sentence(
        failure(() => make(dims as never, {} as never)),
        'ERR_SHAPE',
        /^dims\b/,
      );
    });

    test.each(['float', 'Float32', 'string', 'bool', 'constructor', '__proto__', 'toString', '', null, 5, {}])(
      'refuses the type %p',
      (type) => {
        sentence(
          failure(() => make([2] as never, { type } as never)),
          'ERR_DTYPE',
          /^type must be one of float32, .*, got /,
        );
      },
    );

    test.each(devicesRefused())('refuses the device %s', (_name, device, code, says) => {
      sentence(
        failure(() => make([2] as never, { device } as never)),
        code,
        says,
      );
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
      sentence(
        failure(() => tensor.data),
        'ERR_DISPOSED',
        says,
      );
      sentence(
        failure(() => tensor.clone()),
        'ERR_DISPOSED',
        says,
      );
      sentence(await rejection(() => tensor.getData()), 'ERR_DISPOSED', says);
      sentence(await rejection(() => tensor.to('cpu')), 'ERR_DISPOSED', says);
      expect([tensor.disposed, tensor.dims, tensor.size, tensor.type]).toEqual([true, [2, 3], 6, 'float32']);
    }
  });

  test('whose memory was transferred away is not cloned as if it were whole', () => {
    const data = Float32Array.of(1, 2, 3);
    const tensor = new Tensor('float32', data, [3]);
    transferred(data);
    sentence(
      failure(() => tensor.clone()),
      ['ERR_SHAPE', 'ERR_DISPOSED'],
    );
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

describe('an option that is none: ERR_CONFIG', () => {
  const [s, x] = [scheduler(), Tensor.zeros([1, 1, 2, 2])];
  const calls: Record<string, (options: never) => unknown> = {
    Generator: (options) => new Generator(1, options),
    randn: (options) => new Generator(1).randn([2], options),
    'Tensor.zeros': (options) => Tensor.zeros([2], options),
    setTimesteps: (options) => s.setTimesteps(5, options),
    setSigmas: (options) => s.setSigmas(5, options),
    stepPred: (options) => s.stepPred(x, 0.5, x, options),
    stepCorrect: (options) => s.stepCorrect(x, x, options),
    addNoise: (options) => s.addNoise(x, x, 0, options),
  };
  test.each(Object.keys(calls))('%s', (name) => {
    sentence(
      failure(() => calls[name]!({ returndict: false } as never)),
      'ERR_CONFIG',
      /unknown option "returndict"( \(did you mean "returnDict"\?\))?; expected \w+/,
    );
  });

  test('randn to a device, and an out elsewhere', () => {
    sentence(
      failure(() => new Generator(1).randn([2], { out: Tensor.zeros([2]), device: 'gpu' })),
      'ERR_CONFIG',
      /device must be/,
    );
  });

  test('a scheduler is no config', () => {
    sentence(
      failure(() => ScoreSdeVeScheduler.fromConfig(s)),
      'ERR_CONFIG',
      /expected a JSON object, got/,
    );
  });
});

describe('setNumThreads', () => {
  test.each([0, -1, 1.5, NaN, Infinity, 1025, '2', null, undefined, true, 2n, [2], {}])('refuses %p', (count) => {
    const before = getNumThreads();
    sentence(
      failure(() => setNumThreads(count as number)),
      'ERR_RANGE',
      /number of threads must be an integer from 1 to 1024, got /,
    );
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
