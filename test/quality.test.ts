import { Matrix } from 'ml-matrix';
import { readDigits, select, type DigitSet } from '../bench/quality/digits.js';
import { frechetDistance, statistics } from '../bench/quality/frechet.js';
import { Classifier, measure, readReal } from '../bench/quality/measure.js';

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
