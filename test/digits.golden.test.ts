import { Generator, ScoreSdeVePipeline, Tensor } from '../lib';
import { bitEqual, camelKeys, golden, goldens, maxAbsDiff, within, type SnakeConfig } from './support/golden';
import { fromGrid, sameBytes, toBytes } from './support/images';

interface DigitsCase {
  config: SnakeConfig;
  num_inference_steps: number;
  batch_size: number;
  class_labels: number[];
  generator_seed: number;
  generator_list_seeds: number[];
  tolerance: { max_abs: number; mean_abs: number };
}

const torch = (seed: number) => new Generator(seed, { engine: 'torch' });
let pipeline: ScoreSdeVePipeline;

beforeAll(async () => {
  pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
});

describe.each(goldens('digits'))('%s: the pictures that PyTorch makes', (name) => {
  const { json, tensor } = golden<DigitsCase>(name);

  test('the built-in model has the configuration they were made with', () => {
    expect(pipeline.scheduler.config).toMatchObject(camelKeys(json.config));
  });

  test.each([
    ['one generator', 'images', () => torch(json.generator_seed)],
    ['one generator per sample', 'images_list', () => json.generator_list_seeds.map(torch)],
  ])(
    '%s',
    async (_, key, generator) => {
      const expected = tensor(key);
      const result = await pipeline.run({
        batchSize: json.batch_size,
        numInferenceSteps: json.num_inference_steps,
        generator: generator(),
        modelInputs: { class_labels: json.class_labels },
      });
      const { images } = result as { images: Tensor };
      const data = images.data as Float32Array;
      expect(images.dims).toEqual(expected.dims);
      within(data, expected.data, json.tolerance.max_abs);
      const mean = data.reduce((total, v, i) => total + Math.abs(v - expected.data[i]!), 0) / data.length;
      expect(mean).toBeLessThanOrEqual(json.tolerance.mean_abs);

      const bytes = fromGrid(await result.toPng(), expected.dims);
      bitEqual(bytes, toBytes(data));
      // No further from an edge than the picture is from the reference's.
      const onEdge = sameBytes(bytes, expected.data, maxAbsDiff(data, expected.data));
      expect(onEdge).toBeLessThanOrEqual(bytes.length / 1000);
    },
    120_000,
  );
});
