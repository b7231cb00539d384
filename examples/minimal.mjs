// Ten digits, one of each, to digits.png: node examples/minimal.mjs [FILE]
import { writeFile } from 'node:fs/promises';
import { ScoreSdeVePipeline } from 'score-sde';

const pipeline = await ScoreSdeVePipeline.fromPretrained('digits');
const result = await pipeline.run({
  calls: 20,
  batchSize: 10,
  seed: 7,
  modelInputs: { class_labels: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] },
});
await writeFile(process.argv[2] ?? 'digits.png', await result.toPng({ columns: 5 }));
await pipeline.dispose();
