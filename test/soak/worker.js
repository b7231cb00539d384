'use strict';
// One thread of the soak: calls of every kind, chosen at random, some aborted, some of their tensors disposed meanwhile.
// What a call gives must be what the same call gave alone.
const { createHash } = require('node:crypto');
const { parentPort, workerData } = require('node:worker_threads');
const { Generator, ScoreSdeVePipeline, ScoreSdeVeScheduler, Tensor, toPng } = require('../..');

const scheduler = new ScoreSdeVeScheduler({ numTrainTimesteps: 6, sigmaMax: 30 });
// The score of a standard normal: the noise level is the same for all rows of these runs.
const model = async (sample, sigma) => {
  const variance = 1 + sigma.data[0] ** 2;
  const score = Tensor.empty(sample.dims);
  sample.data.forEach((x, i) => (score.data[i] = -x / variance));
  return score;
};
const pipeline = new ScoreSdeVePipeline({ scheduler, model, sampleShape: [3, 32, 32] });
const digits = ScoreSdeVePipeline.fromPretrained('digits');
const hash = (data) => createHash('sha1').update(data).digest('hex');
const variants = 5;

/** Each takes a variant and a signal, and gives the bytes that it must always give. */
const kinds = {
  async run(k, signal) {
    const { images } = await pipeline.run({ batchSize: 1 + (k % 3), seed: k, signal });
    return images.data;
  },
  async network(k, signal) {
    // One in five loads the network anew.
    const pipeline = k === 4 ? await ScoreSdeVePipeline.fromPretrained('digits') : await digits;
    const options = { batchSize: 1 + (k % 3), seed: k, numInferenceSteps: 1, modelInputs: { class_labels: k }, signal };
    const run = pipeline.run(options);
    const { images } = await (k === 4 ? run.finally(() => pipeline.dispose()) : run);
    return images.data;
  },
  async steps(k, signal) {
    let last;
    for await (const { index, mean } of pipeline.steps({ batchSize: 2, seed: k, signal })) {
      last = mean.data;
      if (index === 2) break;
    }
    return last;
  },
  async draw(k) {
    const engine = k % 2 ? 'torch' : 'philox';
    const tensor = await new Generator(k, { engine }).randnAsync([3, 128 + k, 128]);
    const copy = tensor.data.slice();
    tensor.dispose();
    return copy;
  },
  async chain(k) {
    const generator = new Generator(k);
    const out = new Generator(k + 1).randn([2, 3, 128, 128], { type: k % 2 ? 'float16' : 'float32' });
    const score = new Generator(k + 2).randn([2, 3, 128, 128]);
    // In place, without waiting in between: the calls keep their order.
    const calls = [
      scheduler.stepCorrectAsync(score, out, { generator, out }),
      scheduler.stepPredAsync(score, 0.5, out, { generator, out, returnMean: false }),
      scheduler.stepCorrectAsync(score, out, { generator, out, stepSize: 'sample' }),
    ];
    score.dispose(); // calls under way keep it
    await Promise.all(calls);
    return out.data.slice();
  },
  async picture(k) {
    return toPng(new Generator(k).randn([4, 3, 32, 32]), { columns: 1 + k });
  },
};
const names = Object.keys(kinds);
const digest = async (name, k, signal) => {
  const data = await kinds[name](k, signal);
  return hash(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
};

async function expectations() {
  const expected = {};
  for (const name of names) for (let k = 0; k < variants; k++) expected[name + k] = await digest(name, k);
  return expected;
}

const random = (n) => Math.floor(Math.random() * n);

async function once(expected, count) {
  const [name, k] = [names[random(names.length)], random(variants)];
  const controller = new AbortController();
  if (random(4) === 0) setTimeout(() => controller.abort(), random(8));
  if (random(8) === 0) await Tensor.zeros([random(1000)]).getData();
  try {
    const found = await digest(name, k, controller.signal);
    if (found !== expected[name + k]) throw new Error(`${name} ${k} gave ${found}`);
    count.calls++;
  } catch (error) {
    if (error.code !== 'ERR_ABORTED') throw error;
    count.aborted++;
  }
}

async function soak(expected) {
  const count = { calls: 0, aborted: 0 };
  const lane = async () => {
    for (;;) {
      await once(expected, count);
      if ((count.calls + count.aborted) % 20 === 0) parentPort.postMessage(count);
    }
  };
  await Promise.all([lane(), lane(), lane()]);
}

if (workerData?.soak) soak(workerData.soak).catch((error) => parentPort.postMessage({ error: error.stack }));

module.exports = { expectations };
