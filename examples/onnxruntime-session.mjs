// A session of onnxruntime-node that the program has already, as the model: node examples/onnxruntime-session.mjs [FILE]
import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import ort from 'onnxruntime-node';
import { fromInferenceSession, ScoreSdeVePipeline, ScoreSdeVeScheduler } from 'score-sde';

const folder = join(dirname(createRequire(import.meta.url).resolve('score-sde/package.json')), 'models', 'digits');
const session = await ort.InferenceSession.create(join(folder, 'unet', 'model.onnx'));
const model = fromInferenceSession(session, { defaultInputs: { class_labels: 10 } });
const scheduler = await ScoreSdeVeScheduler.fromPretrained(join(folder, 'scheduler'));

const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: [1, 28, 28] });
const result = await pipeline.run({ batchSize: 4, numInferenceSteps: 50, seed: 7 });
await writeFile(process.argv[2] ?? 'digits.png', await result.toPng());
await pipeline.dispose();
