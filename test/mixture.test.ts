import { Generator, ScoreSdeVePipeline } from '../lib';
import { devices, elementsOf, isEmulated } from './support/devices';
import { readJson, schedulerOf, type SnakeConfig } from './support/golden';
import { modelOf, type ModelSpec } from './support/models';

type Spec = Required<Pick<ModelSpec, 'name' | 'weights' | 'means' | 'stds'>>;

const json = readJson<{
  config: SnakeConfig;
  num_inference_steps: number;
  batch: number;
  model: Spec;
  expect: {
    fraction_nearest: number[];
    mean: number[];
    cov: number[][];
    cluster_means: number[][];
    cluster_std: number[];
  };
}>('loops/gmm_statistics');

const average = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** What is stored of the reference's own samples, of ours. */
function statistics(points: [number, number][], centres: number[][]): typeof json.expect {
  const clusters = centres.map<[number, number][]>(() => []);
  for (const point of points) {
    const distances = centres.map((mu) => Math.hypot(point[0] - mu[0]!, point[1] - mu[1]!));
    clusters[distances.indexOf(Math.min(...distances))]!.push(point);
  }
  const meanOf = (group: [number, number][]) => [0, 1].map((k) => average(group.map((p) => p[k]!)));
  const mean = meanOf(points);
  const cov = [0, 1].map((i) => [0, 1].map((j) => average(points.map((p) => (p[i]! - mean[i]!) * (p[j]! - mean[j]!)))));
  return {
    fraction_nearest: clusters.map((group) => group.length / points.length),
    mean,
    cov,
    cluster_means: clusters.map(meanOf),
    cluster_std: clusters.map((group) => {
      const centre = meanOf(group);
      return Math.sqrt(average(group.flatMap((p) => [(p[0] - centre[0]!) ** 2, (p[1] - centre[1]!) ** 2])));
    }),
  };
}

// An emulated device would take many minutes for so many samples.
describe.each(isEmulated ? ['cpu'] : devices)('on %s', (device) => {
  // Both are samples of the same size, so a difference has twice the variance of one: 4.5 of its standard deviations.
  test.each(['torch', 'philox'] as const)(
    'an analytic mixture is sampled as the reference does, engine %s',
    async (engine) => {
      const n = json.batch;
      const pipeline = new ScoreSdeVePipeline({
        scheduler: schedulerOf(json.config),
        model: modelOf(json.model),
        sampleShape: [2, 1, 1],
        device,
      });
      const points: [number, number][] = [];
      const options = {
        batchSize: n,
        numInferenceSteps: json.num_inference_steps,
        generator: new Generator(2024, { engine }),
      };
      for await (const { index, total, sample } of pipeline.steps(options)) {
        if (index < total - 1) continue;
        const data = await elementsOf(sample);
        for (let i = 0; i < n; i++) points.push([data[2 * i]!, data[2 * i + 1]!]);
      }
      const got = statistics(points, json.model.means);
      const reach = 4.5 * Math.SQRT2;
      const close = (actual: number, expected: number, deviation: number) =>
        expect(Math.abs(actual - expected)).toBeLessThanOrEqual(reach * deviation);

      json.expect.fraction_nearest.forEach((p, k) => {
        const size = n * p;
        const sd = json.expect.cluster_std[k]!;
        close(got.fraction_nearest[k]!, p, Math.sqrt((p * (1 - p)) / n));
        close(got.cluster_std[k]!, sd, sd / Math.sqrt(4 * size));
        for (const axis of [0, 1]) {
          close(got.cluster_means[k]![axis]!, json.expect.cluster_means[k]![axis]!, sd / Math.sqrt(size));
        }
      });
      for (const i of [0, 1]) {
        close(got.mean[i]!, json.expect.mean[i]!, Math.sqrt(json.expect.cov[i]![i]! / n));
        for (const j of [0, 1]) {
          // The covariance's own error, taken as that of a Gaussian: the mixture's tails are lighter.
          const { cov } = json.expect;
          close(got.cov[i]![j]!, cov[i]![j]!, Math.sqrt((cov[i]![i]! * cov[j]![j]! + cov[i]![j]! ** 2) / n));
        }
      }
    },
  );
});
