import { Matrix } from 'ml-matrix';
import { readDigits, select, type DigitSet } from '../bench/quality/digits.js';
import { frechetDistance, statistics } from '../bench/quality/frechet.js';
import { Classifier, measure, readReal } from '../bench/quality/measure.js';
import { mixtures, samplesOf, scoreOf, slicedWasserstein } from '../bench/quality/mixtures.js';
import { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler } from '../lib';

const matrix = (columns: number, ...values: number[]) => Matrix.from1DArray(values.length / columns, columns, values);
const normal = (mean: number[], covariance: Matrix) => ({ mean, covariance });

describe('the Frechet distance of normal distributions', () => {
  test('of one variable: (m1 - m2)^2 + (s1 - s2)^2', () => {
    expect(frechetDistance(normal([1], matrix(1, 4)), normal([3.5], matrix(1, 9)))).toBeCloseTo(2.5 ** 2 + 1, 12);
  });

  test('of two that do not commute: tr((A B)^(1/2)) = (tr(A B) + 2 det(A B)^(1/2))^(1/2)', () => {
    const a = normal([0, 1], matrix(2, 2, 0.5, 0.5, 1));
    const b = normal([1, -1], matrix(2, 1, -0.3, -0.3, 3));
    const between = Math.sqrt(2 + 2 * 0.5 * -0.3 + 3 + 2 * Math.sqrt(1.75 * 2.91));
    expect(frechetDistance(a, b)).toBeCloseTo(5 + 3 + 4 - 2 * between, 12);
    expect(frechetDistance(b, a)).toBeCloseTo(frechetDistance(a, b), 12);
  });

  test('of a distribution from itself, with fewer samples than dimensions, is 0', () => {
    const few = statistics(matrix(3, 1, 2, 3, 2, 0, 5));
    expect(frechetDistance(few, few)).toBeCloseTo(0, 6); // the root of a rounding error of 1e-15 is 3e-8
  });

  test('statistics are the mean and the covariance with the divisor n - 1', () => {
    const { mean, covariance } = statistics(matrix(2, 0, 1, 2, 1, 4, 4));
    expect(mean).toEqual([2, 2]);
    expect(covariance.to1DArray()).toEqual([4, 3, 3, 3]);
  });
});

describe('the classifier', () => {
  const real = readReal();
  let classifier: Classifier;
  let heldOut: DigitSet;
  let all: DigitSet;
  beforeAll(async () => {
    classifier = await Classifier.load();
    ({ heldOut, all } = readDigits());
  });
  afterAll(() => classifier.dispose());

  test('finds in the held-out digits what was written down of them', async () => {
    const { frechet, accuracy } = await measure(classifier, heldOut, real);
    expect(heldOut.labels).toHaveLength(1000);
    expect(accuracy).toBeGreaterThanOrEqual(0.97);
    expect(accuracy).toBeCloseTo(real.floor.accuracy, 2);
    expect(frechet).toBeCloseTo(real.floor.frechet, 3);
  });

  test('the digits have the statistics that were written down', async () => {
    const { features } = await classifier.classify(all.images);
    expect(frechetDistance(statistics(features), real)).toBeCloseTo(0, 4);
  });

  test('two halves of the digits are near, and damaged digits are far', async () => {
    const [even, odd] = [0, 1].map((rest) => select(all, (i) => i % 2 === rest));
    const half = statistics((await classifier.classify(even!.images)).features);
    const floor = await measure(classifier, odd!, half);
    expect(floor.frechet).toBeLessThan(real.floor.frechet);

    // One pixel in twenty is turned around.
    const images = heldOut.images.map((value, i) => (i % 20 === 0 ? 1 - value : value));
    const damaged = await measure(classifier, { ...heldOut, images }, half);
    expect(damaged.frechet).toBeGreaterThan(5 * real.floor.frechet);
  });

  test('digits of one class, and labels that are not theirs, are told', async () => {
    const ones = select(all, (i) => all.labels[i] === 1);
    const { frechet, accuracy } = await measure(classifier, { ...ones, labels: ones.labels.map(() => 7) }, real);
    expect(frechet).toBeGreaterThan(20 * real.floor.frechet);
    expect(accuracy).toBeLessThan(0.05);
  });
});

describe.each(mixtures.map((mixture) => [mixture.dims, mixture] as const))(
  'a mixture in %d dimensions',
  (dims, mixture) => {
    const { weights, means, stds, sigmaMax } = mixture;

    test('its samples have its mean and its variance', () => {
      const count = 40_000;
      const samples = samplesOf(mixture, count, 1);
      for (let axis = 0; axis < Math.min(dims, 8); axis++) {
        const values = Array.from({ length: count }, (_, i) => samples[i * dims + axis]!);
        const mean = weights.reduce((sum, w, k) => sum + w * means[k]![axis]!, 0);
        const variance = weights.reduce((sum, w, k) => sum + w * (stds[k]! ** 2 + (means[k]![axis]! - mean) ** 2), 0);
        const average = values.reduce((sum, value) => sum + value, 0) / count;
        const spread = values.reduce((sum, value) => sum + (value - average) ** 2, 0) / count;
        // 4.5 standard deviations; the squares of a mixture spread less than those of a normal.
        expect(Math.abs(average - mean)).toBeLessThan(4.5 * Math.sqrt(variance / count));
        expect(Math.abs(spread / variance - 1)).toBeLessThan(4.5 * Math.sqrt(2 / count));
      }
    });

    test.each([0.01, 0.3, sigmaMax])('its score at sigma %d is the gradient of its log density', (sigma) => {
      const logDensity = (x: readonly number[]) => {
        const logs = weights.map((w, k) => {
          const variance = stds[k]! ** 2 + sigma ** 2;
          const square = x.reduce((sum, value, j) => sum + (value - means[k]![j]!) ** 2, 0);
          return Math.log(w) - (dims * Math.log(variance) + square / variance) / 2;
        });
        const largest = Math.max(...logs);
        return largest + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - largest), 0));
      };
      const z = new Generator(3).randn([dims]).data;
      const x = Array.from(samplesOf(mixture, 1, 2), (value, j) => Math.fround(value + sigma * z[j]!));
      const { data } = scoreOf(mixture)({ data: x, dims: [1, dims] }, { data: [sigma] });
      const h = 1e-6;
      x.forEach((value, j) => {
        const at = (shift: number) => logDensity(x.map((other, k) => (k === j ? value + shift : other)));
        const slope = (at(h) - at(-h)) / (2 * h);
        expect(Math.abs(data[j]! - slope)).toBeLessThan(1e-4 * (1 + Math.abs(slope)));
      });
    });

    test('a shift is as far as its mean projection', () => {
      const samples = samplesOf(mixture, 500, 4);
      expect(slicedWasserstein(samples, samples, dims)).toBe(0);
      // All samples go by 1 in each direction: the mean of |sum of a unit vector's elements| is near sqrt(2 / pi) for many dims.
      const far = slicedWasserstein(
        samples,
        samples.map((value) => value + 1),
        dims,
      );
      expect(far).toBeGreaterThan(dims === 2 ? 0.8 : 0.6);
      expect(far).toBeLessThan(1);
    });

    // Half as much again as docs/quality.md has; pc is there with 100 calls.
    test.each(
      dims === 2
        ? [
            [10, 75],
            [20, 75],
          ]
        : [
            [10, 107],
            [20, 56],
          ],
    )('%d calls come near it', async (calls, most) => {
      const pipeline = new ScoreSdeVePipeline({
        scheduler: new ScoreSdeVeScheduler({ sigmaMin: 0.01, sigmaMax }),
        model: scoreOf(mixture),
        sampleShape: [dims],
        device: 'cpu',
      });
      const distances = [];
      for (const seed of [0, 1]) {
        const { samples } = await pipeline.run({ calls, batchSize: 8000, generator: new Generator(seed) });
        distances.push(1e4 * slicedWasserstein(await samples.getData(), samplesOf(mixture, 8000, 1000 + seed), dims));
      }
      expect((distances[0]! + distances[1]!) / 2).toBeLessThanOrEqual(most!);
    });
  },
);
