// On a machine with a GPU and the CUDA provider beside ONNX Runtime's library: the built-in network with the whole loop on
// the device, beside the same network with its states carried to the host and back at each call, and beside the CPU.
// node scripts/network-gpu.mjs; "nsys profile --stats=true node scripts/network-gpu.mjs device" counts the copies.
import { createRequire } from 'node:module';

const { OnnxModel, ScoreSdeVePipeline, ScoreSdeVeScheduler } = createRequire(import.meta.url)('../dist/index.js');
const file = new URL('../models/digits/unet/model.onnx', import.meta.url).pathname;
const steps = 100;

const scheduler = new ScoreSdeVeScheduler({ sigmaMax: 50 });
const pipelineOf = (model, device) => new ScoreSdeVePipeline({ scheduler, model, sampleShape: [1, 28, 28], device });
const onDevice = await OnnxModel.load(file, { device: 'cuda' });
const onHost = await OnnxModel.load(file, { device: 'cpu' });
// Without `devices` the loop brings the states to the host, from where the runtime takes them to the device again.
const carried = (sample, sigma, inputs) => onDevice.run(sample, sigma, inputs);
carried.prepare = (dims, inputs) => onDevice.prepare(dims, inputs);

const ways = {
  device: pipelineOf(onDevice, 'cuda'),
  carried: pipelineOf(carried, 'cuda'),
  cpu: pipelineOf(onHost, 'cpu'),
};
const wanted = process.argv[2];
for (const batchSize of [1, 16, 64]) {
  const images = {};
  for (const [way, pipeline] of Object.entries(ways)) {
    if (wanted !== undefined && way !== wanted) continue;
    const run = (numInferenceSteps) =>
      pipeline.run({ batchSize, numInferenceSteps, seed: 1, modelInputs: { class_labels: 3 } });
    await run(3);
    const result = await run(steps);
    images[way] = await result.images.getData();
    const off = images.cpu && images.device && Math.max(...images.device.map((v, i) => Math.abs(v - images.cpu[i])));
    const from = off === undefined ? '' : `, images of the device within ${off.toExponential(1)} of the CPU's`;
    console.log(
      `${way}, batch ${batchSize}: ${(steps / result.seconds).toFixed(1)} steps a second on ${result.device}${from}`,
    );
  }
}
await onDevice.dispose();
await onHost.dispose();
