// A score that is known, as a callback: samples of a normal distribution with mean 3 and standard deviation 0.5.
import { ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor } from 'score-sde';

const [mean, deviation] = [3, 0.5];
const model = async (sample, sigma) => {
  // Perturbed by noise of level sigma, it is a normal distribution of variance deviation^2 + sigma^2.
  const variance = deviation ** 2 + sigma.data[0] ** 2;
  return new Tensor(
    'float32',
    sample.data.map((x) => (mean - x) / variance),
    sample.dims,
  );
};
const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 300, sigmaMax: 20 });
const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: [2] });

let values;
// The pipeline's images are clamped to [0, 1]; the last step's mean is not.
// So few numbers a sample make its own norms a poor measure: the corrector takes their mean over the batch.
for await (const step of pipeline.steps({ batchSize: 5000, seed: 1, stepSize: 'batch' })) values = step.mean.data;

const average = values.reduce((sum, x) => sum + x, 0) / values.length;
const spread = Math.sqrt(values.reduce((sum, x) => sum + (x - average) ** 2, 0) / values.length);
console.log(`mean ${average.toFixed(3)}, standard deviation ${spread.toFixed(3)}`);
