import { Generator, Tensor, type EngineName } from '../lib';

// Taken once: a look-up of a global is slow in jest's realms.
const { abs, atan2, exp, max, sqrt, LN2, PI } = Math;

const chunk = 2 ** 20;
const chunks = 10;
const draws = chunk * chunks; // > 10^7
const floats = (tensor: Tensor) => tensor.data as Float32Array;

/** The normal distribution function by Marsaglia's series (J. Stat. Soft. 11(4), 2004), to about 1e-15. */
function phi(x: number): number {
  let [term, total] = [x, x];
  for (let i = 3; abs(term) > 1e-17 * abs(total); i += 2) total += term *= (x * x) / i;
  return 0.5 + (total * exp(-0.5 * x * x)) / sqrt(2 * PI);
}

/** Kolmogorov and Smirnov's sqrt(n) D: above 1.95 once in a thousand samples of the distribution. */
function kolmogorov(values: Float32Array | Float64Array, distribution: (value: number) => number): number {
  const n = values.length;
  let distance = 0;
  values.sort().forEach((value, i) => {
    const p = distribution(value);
    distance = max(distance, (i + 1) / n - p, p - i / n);
  });
  return distance * sqrt(n);
}

/** sqrt(n) times the mean of f(i), for f of mean 0 and variance 1: standard normal if so. */
function score(n: number, f: (i: number) => number): number {
  let total = 0;
  for (let i = 0; i < n; i++) total += f(i);
  return total / sqrt(n);
}

describe('philox: 10 * 2^20 draws', () => {
  const thresholds = [1, 2, 3, 4, 4.5, 5];
  const lags = [1, 2, 3, 4, 16];
  const above = thresholds.map(() => 0);
  const below = thresholds.map(() => 0);
  const products = lags.map(() => 0);
  const squares = lags.map(() => 0);
  const moments = { mean: 0, second: 0, third: 0, fourth: 0 };
  let largest = 0;

  beforeAll(() => {
    const generator = new Generator(20240229n);
    const out = Tensor.empty([chunk]);
    for (let c = 0; c < chunks; c++) {
      const z = floats(generator.randn([chunk], { out }));
      let [sum, sum2, sum3, sum4] = [0, 0, 0, 0];
      for (const v of z) {
        const v2 = v * v;
        sum += v;
        sum2 += v2;
        sum3 += v2 * v;
        sum4 += v2 * v2;
        const size = abs(v);
        if (size > largest) largest = size;
        for (let k = 0; size > thresholds[k]!; k++) (v > 0 ? above : below)[k]!++;
      }
      moments.mean += sum / draws;
      moments.second += sum2 / draws;
      moments.third += sum3 / draws;
      moments.fourth += sum4 / draws;
      lags.forEach((lag, k) => {
        let [product, square] = [0, 0];
        for (let i = lag; i < chunk; i++) {
          const [a, b] = [z[i]!, z[i - lag]!];
          product += a * b;
          square += ((a * a - 1) * (b * b - 1)) / 2;
        }
        products[k]! += product / sqrt(draws);
        squares[k]! += square / sqrt(draws);
      });
    }
  });

  // The variances of the sample's moments: Kendall & Stuart, section 10.
  test.each([
    ['mean', () => moments.mean, 1],
    ['variance', () => moments.second - moments.mean ** 2 - 1, 2],
    [
      'skewness',
      () => (moments.third - 3 * moments.mean * moments.second + 2 * moments.mean ** 3) / moments.second ** 1.5,
      6,
    ],
    ['excess kurtosis', () => (moments.fourth - 4 * moments.mean * moments.third) / moments.second ** 2 - 3, 24],
  ])('the %s is within 5 standard errors', (_, moment, variance) => {
    expect(abs(moment()) / sqrt(variance / draws)).toBeLessThan(5);
  });

  test.each(thresholds.map((sigma, k) => ({ sigma, k })))('tails beyond $sigma sigma, both sides', ({ sigma, k }) => {
    const p = phi(-sigma);
    const room = 5 * sqrt(draws * p * (1 - p));
    for (const count of [above[k]!, below[k]!]) expect(abs(count - draws * p)).toBeLessThan(room);
  });

  test('the largest magnitude: beyond 5, within what 32-bit uniforms can give', () => {
    expect(largest).toBeGreaterThan(5);
    expect(largest).toBeLessThanOrEqual(sqrt(66 * LN2)); // u >= 2^-33
  });

  test.each(lags.map((lag, k) => ({ lag, k })))('values and their squares do not correlate at lag $lag', ({ k }) => {
    expect(abs(products[k]!)).toBeLessThan(5);
    expect(abs(squares[k]!)).toBeLessThan(5);
  });
});

test('the distribution function that the values are held against', () => {
  expect(phi(1.96)).toBeCloseTo(0.97500210485177952, 14);
  expect(phi(-1)).toBeCloseTo(0.15865525393145705, 14);
  expect(phi(-5) * 1e7).toBeCloseTo(2.8665157187919391, 6);
});

test.each<EngineName>(['philox', 'torch'])('%s: 10^6 values are normal by Kolmogorov and Smirnov', (engine) => {
  expect(kolmogorov(floats(new Generator(5, { engine }).randn([10 ** 6])), phi)).toBeLessThan(1.95);
});

test.each<[EngineName, (i: number) => [number, number]]>([
  ['philox', (i) => [2 * i, 2 * i + 1]],
  ['torch', (i) => [16 * (i >> 3) + (i & 7), 16 * (i >> 3) + (i & 7) + 8]],
])('%s: radius and angle of the pairs are uniform and independent', (engine, pair) => {
  const z = floats(new Generator(6, { engine }).randn([2 ** 20]));
  const n = z.length / 2;
  const radius = new Float64Array(n);
  const angle = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    const [a, b] = pair(i);
    radius[i] = exp(-0.5 * (z[a]! ** 2 + z[b]! ** 2));
    angle[i] = atan2(z[b]!, z[a]!) / (2 * PI) + 0.5;
  }
  expect(abs(score(n, (i) => 12 * (radius[i]! - 0.5) * (angle[i]! - 0.5)))).toBeLessThan(5);
  expect(kolmogorov(radius, (u) => u)).toBeLessThan(1.95);
  expect(kolmogorov(angle, (u) => u)).toBeLessThan(1.95);
});

test('streams of neighbouring seeds do not correlate', () => {
  const n = 2 ** 18;
  const seeds = [0n, 1n, 2n, 3n, 2n ** 32n, 2n ** 32n + 1n, 2n ** 63n, 2n ** 64n - 1n];
  const streams = seeds.map((seed) => floats(new Generator(seed).randn([n])));
  streams.forEach((a, k) => {
    for (const b of streams.slice(0, k)) expect(abs(score(n, (i) => a[i]! * b[i]!))).toBeLessThan(5);
  });
});

test.each<EngineName>(['philox', 'torch'])('%s: 1000 seeds begin with 1000 values, normal ones', (engine) => {
  const first = Float32Array.from(
    { length: 1000 },
    (_, seed) => floats(new Generator(seed, { engine }).randn([1]))[0]!,
  );
  expect(new Set(first).size).toBe(1000);
  expect(kolmogorov(first, phi)).toBeLessThan(1.95);
});
