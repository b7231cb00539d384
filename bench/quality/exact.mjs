// How far samples of two mixtures are from them, by solver and number of network calls: node bench/quality/exact.mjs
import { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler } from 'score-sde';
import { mixtures, samplesOf, scoreOf, slicedWasserstein } from './mixtures.js';

const count = 8000;
const seeds = [0, 1, 2];
const allCalls = [5, 10, 20, 50, 100, 200];
const solvers = {
  er_sde: { solver: 'er_sde' },
  'er_sde, eta 0': { solver: 'er_sde', eta: 0 },
  dpmpp_2m_sde: { solver: 'dpmpp_2m_sde' },
  dpmpp_2m: { solver: 'dpmpp_2m' },
  euler_ancestral: { solver: 'euler_ancestral' },
  pc: { solver: 'pc' },
};

/** The mean over the seeds of the distance to exact samples, x 10^4. */
async function distance(mixture, samples) {
  let sum = 0;
  for (const seed of seeds)
    sum += slicedWasserstein(await samples(seed), samplesOf(mixture, count, 1000 + seed), mixture.dims);
  return (1e4 * sum) / seeds.length;
}

function print(first, cells) {
  console.log(`| ${first.padEnd(16)} | ${cells.map((cell) => cell.padEnd(11)).join(' | ')} |`);
}

const pipelines = mixtures.map(
  (mixture) =>
    new ScoreSdeVePipeline({
      scheduler: new ScoreSdeVeScheduler({ sigmaMin: 0.01, sigmaMax: mixture.sigmaMax }),
      model: scoreOf(mixture),
      sampleShape: [mixture.dims],
      device: 'cpu',
    }),
);
const row = async (samplesFor) => {
  const distances = await Promise.all(mixtures.map((mixture, i) => distance(mixture, samplesFor(mixture, i))));
  return distances.map((value) => value.toFixed(0)).join(' / ');
};

const floor = await row((mixture) => (seed) => samplesOf(mixture, count, seed));
console.log(
  `Sliced Wasserstein distance x 10^4 to exact samples, ${count} samples, ${mixtures.map(({ dims }) => `${dims}-D`).join(' / ')}; of exact samples ${floor}`,
);
print('solver', allCalls.map(String));
for (const [name, options] of Object.entries(solvers)) {
  const cells = [];
  for (const calls of allCalls)
    cells.push(
      await row((_, i) => async (seed) => {
        // One generator for all: the reference measures its corrector's step over the batch.
        const { samples } = await pipelines[i].run({
          ...options,
          calls,
          batchSize: count,
          generator: new Generator(seed),
        });
        return samples.data;
      }),
    );
  print(name, cells);
}
