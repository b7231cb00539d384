// Trains the digit classifier and writes classifier.onnx and real.json: node bench/quality/train.mjs
// The same seed gives the same files.
import { writeFile } from 'node:fs/promises';
import { create, toBinary } from '@bufbuild/protobuf';
import { ModelProtoSchema } from 'onnx-buf';
import prettier from 'prettier';
import { pixels, readDigits } from './digits.js';
import { statistics } from './frechet.js';
import { Classifier, measure, toTriangle } from './measure.js';
import { Adam, Convolution, crossEntropyGradient, uniform } from './network.mjs';

const [epochs, batch, rate] = [16, 50, 2e-3];
const random = uniform(1);
const { train, heldOut, all } = readDigits();

// 52,266 parameters. The features are the 64 numbers of the third layer, after its ReLU.
const layers = [
  new Convolution({ channels: 1, size: 28, kernel: 5, stride: 2, padding: 2, filters: 8 }, random),
  new Convolution({ channels: 8, size: 14, kernel: 3, stride: 2, padding: 1, filters: 16 }, random),
  new Convolution({ channels: 16, size: 7, kernel: 7, filters: 64 }, random),
  new Convolution({ channels: 64, size: 1, kernel: 1, filters: 10, relu: false }, random),
];
const forward = (image) => layers.reduce((value, layer) => layer.forward(value), image);

const adam = new Adam(layers);
const order = Array.from(train.labels.keys());
const steps = epochs * Math.ceil(order.length / batch);
let step = 0;
for (let epoch = 0; epoch < epochs; epoch++) {
  shuffle(order);
  for (let start = 0; start < order.length; start += batch) {
    const indices = order.slice(start, start + batch);
    for (const index of indices) {
      const logits = forward(shifted(train.images.subarray(index * pixels, (index + 1) * pixels)));
      let gradient = crossEntropyGradient(logits, train.labels[index], 10);
      for (const layer of layers.toReversed()) gradient = layer.backward(gradient);
    }
    // The learning rate falls to 0 along half a cosine.
    adam.step((rate / 2) * (1 + Math.cos((Math.PI * step++) / steps)), indices.length);
  }
  console.log(`epoch ${epoch + 1} of ${epochs}: ${(performance.now() / 1000).toFixed(0)} s`);
}

const network = onnxOf(layers);
await writeFile(new URL('classifier.onnx', import.meta.url), network);

const classifier = await Classifier.load(network);
const real = statistics((await classifier.classify(all.images)).features);
const floor = await measure(classifier, heldOut, real);
await classifier.dispose();
const digits = (value) => Number(value.toPrecision(10));
const json = JSON.stringify({
  digits: all.labels.length,
  floor: { digits: heldOut.labels.length, frechet: digits(floor.frechet), accuracy: floor.accuracy },
  mean: real.mean.map(digits),
  covariance: toTriangle(real.covariance).map(digits),
});
const file = new URL('real.json', import.meta.url);
await writeFile(file, await prettier.format(json, { ...(await prettier.resolveConfig(file)), parser: 'json' }));
console.log(`held-out digits: ${floor.accuracy} right, Frechet distance ${floor.frechet.toFixed(2)} from all digits`);

function shuffle(values) {
  for (let i = values.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [values[i], values[j]] = [values[j], values[i]];
  }
}

/** The digit moved by up to one pixel in both directions, in double, followed by the zero that layers take as padding. */
function shifted(image) {
  const [dx, dy] = [Math.floor(random() * 3) - 1, Math.floor(random() * 3) - 1];
  const moved = new Float64Array(pixels + 1);
  for (let y = Math.max(0, dy); y < Math.min(28, 28 + dy); y++)
    for (let x = Math.max(0, dx); x < Math.min(28, 28 + dx); x++) moved[y * 28 + x] = image[(y - dy) * 28 + x - dx];
  return moved;
}

/** The layers as an ONNX network (ir 8, opset 17): images [n, 1, 28, 28] to features [n, 64] and logits [n, 10]. */
function onnxOf(layers) {
  const float = 1;
  const nodes = [];
  const initializers = [];
  const add = (opType, input, output, attribute = []) =>
    void nodes.push({ opType, input, output: [output], attribute });
  const ints = (name, values) => ({ name, type: 7, ints: values.map(BigInt) });
  const weights = (name, dims, values) => {
    const rawData = new Uint8Array(Float32Array.from(values).buffer);
    initializers.push({ name, dataType: float, dims: dims.map(BigInt), rawData });
    return name;
  };
  const port = (name, dims) => {
    const dim = dims.map((value) => ({
      value: typeof value === 'number' ? { case: 'dimValue', value: BigInt(value) } : { case: 'dimParam', value },
    }));
    return { name, type: { value: { case: 'tensorType', value: { elemType: float, shape: { dim } } } } };
  };

  const last = layers.length - 1;
  let value = 'images';
  layers.forEach(({ channels, kernel, stride, padding, filters, relu, weight, bias }, i) => {
    const dims = [filters, channels, kernel, kernel];
    const input = [value, weights(`weight${i}`, dims, weight.value), weights(`bias${i}`, [filters], bias.value)];
    value = `layer${i}`;
    add('Conv', input, value, [ints('strides', [stride, stride]), ints('pads', Array(4).fill(padding))]);
    if (relu) add('Relu', [value], (value = `relu${i}`));
  });
  add('Flatten', [`relu${last - 1}`], 'features');
  add('Flatten', [value], 'logits');
  const model = create(ModelProtoSchema, {
    irVersion: 8n,
    opsetImport: [{ domain: '', version: 17n }],
    graph: {
      name: 'digits',
      node: nodes,
      initializer: initializers,
      input: [port('images', ['batch', 1, 28, 28])],
      output: [port('features', ['batch', 64]), port('logits', ['batch', 10])],
    },
  });
  return toBinary(ModelProtoSchema, model);
}
