// The image that diffusers makes from torch.Generator().manual_seed(SEED): node examples/pytorch-seed.mjs SEED [FILE]
import { writeFile } from 'node:fs/promises';
import { Generator, ScoreSdeVePipeline } from 'score-sde';

const seed = BigInt(process.argv[2] ?? 0);
const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
const result = await pipeline.run({
  batchSize: 4,
  numInferenceSteps: 50,
  generator: new Generator(seed, { engine: 'torch' }),
});
await writeFile(process.argv[3] ?? 'digits.png', await result.toPng());
await pipeline.dispose();
