import { createHash } from 'node:crypto';
import { Generator, getNumThreads, setNumThreads, type PhiloxState } from '../lib';
import { Dtype } from '../lib/native/abi';
import { native } from '../lib/native/addon';
import { bitEqual, golden } from './support/golden';

interface RngCase {
  cases: { seed: number; n: number; dtype: string; keys: string[] }[];
  mixed: { seed: number; sequence: { n: number; dtype: string; key: string }[] };
  initial_seed: Record<string, string>;
}

type Bits = Float32Array | Uint16Array;
type HalfOrFloat = 'float32' | 'float16' | 'bfloat16';

const { json, tensor } = golden<RngCase>('rng/torch_cpu_randn');
const torch = (seed: number | bigint) => new Generator(seed, { engine: 'torch' });
const draw = (generator: Generator, n: number, type: HalfOrFloat = 'float32') =>
  generator.randn([n], { type }).data as Bits;

describe('engine torch', () => {
  // float64 is no state type here; its draws are not offered.
  const cases = json.cases.filter(({ dtype }) => dtype !== 'float64');

  test.each(cases)('seed $seed: consecutive draws of $n, $dtype', ({ seed, n, dtype, keys }) => {
    const generator = torch(seed);
    for (const key of keys) bitEqual(draw(generator, n, dtype as HalfOrFloat), tensor<Bits>(key).data);
  });

  test('a mixed sequence, through which the cached half survives', () => {
    const generator = torch(json.mixed.seed);
    for (const { n, dtype, key } of json.mixed.sequence) {
      if (dtype === 'float32') bitEqual(draw(generator, n), tensor(key).data);
      // A small float64 draw is the float32 one before rounding; a large one takes two words a value.
      else if (n < 16) bitEqual(draw(generator, n), Float32Array.from(tensor<Float64Array>(key).data));
      else draw(generator, 2 * n);
    }
  });

  // More than one thread draws, the last 16 values are drawn again, and every uniform of the type comes up.
  describe.each([
    ['float16', 11, 10, -14],
    ['bfloat16', 8, 7, -126],
  ] as const)('70,003 values, %s', (type, uniformBits, bits, leastExponent) => {
    const n = 70_003;
    const everyOperation = type === 'bfloat16';
    const round = (x: number) => rounded(x, bits, leastExponent);
    const inner = (x: number) => (everyOperation ? round(x) : Math.fround(x));

    test('are what the algorithm makes of the words of MT19937', () => {
      const next = mersenneTwister(7);
      const uniforms = (count: number) =>
        Array.from({ length: count }, () => (next() & (2 ** uniformBits - 1)) / 2 ** uniformBits);
      const normals = uniforms(n);
      const transform = (at: number) => {
        for (let j = at; j < at + 8; j++) {
          const radius = round(Math.sqrt(inner(-2 * inner(Math.log(round(1 - normals[j]!))))));
          const angle = round(2 * Math.PI * normals[j + 8]!);
          normals[j] = round(radius * inner(Math.cos(angle)));
          normals[j + 8] = round(radius * inner(Math.sin(angle)));
        }
      };
      for (let at = 0; at + 16 <= n; at += 16) transform(at);
      normals.splice(n - 16, 16, ...uniforms(16));
      transform(n - 16);

      const drawn = new Float32Array(n);
      native.convert(n, draw(torch(7), n, type), Dtype[type], drawn, Dtype.float32);
      const unequal = normals.flatMap((value, i) => (value === drawn[i] ? [] : [[value, drawn[i]!] as const]));
      // The C library's logarithm or cosine may be the other neighbour of the exact one.
      expect(unequal.length).toBeLessThan(n / 1000);
      for (const [a, b] of unequal) expect(Math.abs(a - b)).toBeLessThanOrEqual(2 ** -bits * Math.abs(a));
    });
  });

  describe('however many threads draw', () => {
    const threads = getNumThreads();
    afterAll(() => setNumThreads(threads));

    test.each(['float32', 'float16', 'bfloat16'] as const)('%s: the same values, the same state', (type) => {
      const on = (count: number) => {
        setNumThreads(count);
        const generator = torch(11);
        const hash = createHash('sha256');
        for (const n of [5, 200_001, 3, 131_072, 70_000]) hash.update(draw(generator, n, type));
        return hash.update(generator.getState() as Uint8Array).digest('hex');
      };
      const alone = on(1);
      for (const count of [2, 3, 5]) expect(on(count)).toBe(alone);
    });
  });

  test('the values that torch 2.x prints for seed 42', () => {
    const six = [0.3367, 0.1288, 0.2345, 0.2303, -1.1229, -0.1863];
    const sixteen = [1.9269, 1.4873, 0.9007, -2.1055];
    six.forEach((value, i) => expect(draw(torch(42), 6)[i]).toBeCloseTo(value, 4));
    sixteen.forEach((value, i) => expect(draw(torch(42), 16)[i]).toBeCloseTo(value, 4));
  });

  test.each([
    ['2^32 + 5', 2n ** 32n + 5n, 5n],
    ['2^63', 2n ** 63n, 0n],
    ['-1', -1n, 2n ** 64n - 1n],
    ['-2^63', -(2n ** 63n), 0n],
  ])('only the low 32 bits of a seed count: %s', (_, seed, same) => {
    bitEqual(draw(torch(seed), 40), draw(torch(same), 40));
  });
});

describe("torch's get_state layout", () => {
  const state = (generator: Generator) => {
    const bytes = generator.getState() as Uint8Array;
    return { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
  };

  test.each(Object.entries(json.initial_seed))('a fresh generator: seed %s reads as %s', (seed, expected) => {
    const { bytes, view } = state(torch(BigInt(seed)));
    expect(bytes).toHaveLength(5056);
    expect(view.getBigUint64(0, true)).toBe(BigInt(expected));
    // left, seeded, next: the first draw twists.
    expect([view.getInt32(8, true), view.getInt32(12, true), view.getBigUint64(16, true)]).toEqual([1, 1, 0n]);
    bitEqual(engineWords(view), seedWords(Number(BigInt.asUintN(32, BigInt(seed)))));
    expect(view.getInt32(5040, true)).toBe(0);
  });

  test('a small odd draw: position, and the cached half of the pair', () => {
    const generator = torch(0);
    draw(generator, 1);
    const { view } = state(generator);
    expect([view.getInt32(8, true), view.getBigUint64(16, true)]).toEqual([624 - 3, 4n]);
    expect(view.getInt32(5040, true)).toBe(1);
    const cached = view.getFloat64(5024, true);
    expect(draw(generator, 1)[0]).toBe(Math.fround(cached));
    expect(state(generator).view.getInt32(5040, true)).toBe(0);
  });

  test.each([0, 1, 3, 15, 16, 17, 311, 624, 1000, 5000])('a state taken after a draw of %d resumes there', (n) => {
    const generator = torch(1234);
    draw(generator, n);
    const saved = generator.getState();
    const resumed = torch(99);
    resumed.setState(saved);
    const cloned = generator.clone();
    for (const size of [1, 20, 2, 700, 5]) {
      const expected = draw(generator, size);
      bitEqual(draw(resumed, size), expected);
      bitEqual(draw(cloned, size), expected);
    }
    generator.setState(saved);
    bitEqual(draw(generator, 33), draw(fromState(saved), 33));
  });

  test('a state written by hand, as torch would write it', () => {
    const view = new DataView(new ArrayBuffer(5056));
    view.setBigUint64(0, 42n, true);
    view.setInt32(8, 1, true);
    view.setInt32(12, 1, true);
    seedWords(42).forEach((word, i) => view.setBigUint64(24 + 8 * i, BigInt(word), true));
    view.setFloat64(5024, 0.25, true);
    view.setInt32(5040, 1, true);
    const generator = fromState(new Uint8Array(view.buffer));
    expect(draw(generator, 1)[0]).toBe(0.25);
    bitEqual(draw(generator, 100), tensor('s42.n100.c0').data);
  });

  function fromState(saved: ReturnType<Generator['getState']>): Generator {
    const generator = torch(0);
    generator.setState(saved);
    return generator;
  }

  function engineWords(view: DataView): number[] {
    return Array.from({ length: 624 }, (_, i) => Number(view.getBigUint64(24 + 8 * i, true)));
  }
});

/** MT19937's state after seeding. */
function seedWords(seed: number): number[] {
  const words = [seed];
  for (let i = 1; i < 624; i++) {
    const last = words[i - 1]!;
    words.push((Math.imul(1812433253, last ^ (last >>> 30)) + i) >>> 0);
  }
  return words;
}

/** The words of MT19937 (Matsumoto & Nishimura 1998), one a call. */
function mersenneTwister(seed: number): () => number {
  const state = seedWords(seed);
  let k = 0;
  return () => {
    const joined = (state[k]! & 0x80000000) | (state[k + 1]! & 0x7fffffff);
    let y = (state[k + 397]! ^ (joined >>> 1) ^ (joined & 1 ? 0x9908b0df : 0)) >>> 0;
    state.push(y);
    k++;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** The nearest number with so many bits behind the leading one, half to even; fewer below the least exponent. */
function rounded(x: number, bits: number, leastExponent: number): number {
  const unit = 2 ** (Math.max(Math.floor(Math.log2(Math.abs(x))), leastExponent) - bits);
  const [below, rest] = [Math.floor(x / unit), x / unit - Math.floor(x / unit)];
  return (rest > 0.5 || (rest === 0.5 && below % 2 !== 0) ? below + 1 : below) * unit;
}

describe('philox4x32-10', () => {
  const ones = 0xffffffff;

  // Random123 1.14.0, tests/kat_vectors
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [ones, ones, ones, ones],
      [ones, ones],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ])('known answer of counter %p, key %p', (counter, key, words) => {
    bitEqual(native.philoxWords(Uint32Array.from(counter), Uint32Array.from(key)), words);
  });

  test('a draw of n values moves the state by ceil(n / 4), and the state resumes', () => {
    const generator = new Generator(7n, { engine: 'philox' });
    const start = generator.getState() as PhiloxState;
    const first = draw(generator, 10);
    const { engine, seed, offset } = generator.getState() as PhiloxState;
    expect([engine, seed, offset]).toEqual(['philox', 7n, start.offset + 3n]);
    const second = draw(generator, 10);
    generator.setState(start);
    bitEqual(draw(generator, 10), first);
    bitEqual(draw(generator, 10), second);
  });
});
