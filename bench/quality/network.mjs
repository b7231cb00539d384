// A small convolutional network with its gradients, in double.

/** Uniform numbers in [0, 1) of a seed (mulberry32). */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A convolution over square images [channels, size, size], with a ReLU unless it is the last. Weights as ONNX has them. */
export class Convolution {
  constructor({ channels, size, kernel, stride = 1, padding = 0, filters, relu = true }, random) {
    Object.assign(this, { channels, kernel, stride, padding, filters, relu });
    const outSize = Math.floor((size + 2 * padding - kernel) / stride) + 1;
    this.positions = outSize ** 2;
    this.patch = channels * kernel ** 2;

    // He's initialisation, uniform.
    const limit = Math.sqrt(6 / this.patch);
    this.weight = parameter(Float64Array.from({ length: filters * this.patch }, () => (2 * random() - 1) * limit));
    this.bias = parameter(new Float64Array(filters));

    // Where each element of each patch lies in the image. The padding is one element of zero after the image.
    this.index = new Int32Array(this.positions * this.patch);
    let i = 0;
    for (let row = 0; row < outSize; row++)
      for (let column = 0; column < outSize; column++)
        for (let channel = 0; channel < channels; channel++)
          for (let dy = 0; dy < kernel; dy++)
            for (let dx = 0; dx < kernel; dx++) {
              const [y, x] = [row * stride + dy - padding, column * stride + dx - padding];
              const inside = y >= 0 && y < size && x >= 0 && x < size;
              this.index[i++] = inside ? (channel * size + y) * size + x : channels * size ** 2;
            }
    this.patches = new Float64Array(this.index.length);
    this.patchesGradient = new Float64Array(this.index.length);
    this.output = new Float64Array(filters * this.positions + 1);
    this.inputGradient = new Float64Array(channels * size ** 2 + 1);
  }

  /** The output, followed by one element of zero. */
  forward(input) {
    const { filters, positions, patch, index, patches, output, relu } = this;
    const [weight, bias] = [this.weight.value, this.bias.value];
    for (let i = 0; i < index.length; i++) patches[i] = input[index[i]];
    for (let filter = 0; filter < filters; filter++)
      for (let position = 0; position < positions; position++) {
        const [w, p] = [filter * patch, position * patch];
        let sum = bias[filter];
        for (let k = 0; k < patch; k++) sum += weight[w + k] * patches[p + k];
        output[filter * positions + position] = relu && sum < 0 ? 0 : sum;
      }
    return output;
  }

  /** Adds to the gradients of the parameters; returns the gradient of the input. */
  backward(gradient) {
    const { filters, positions, patch, index, patches, patchesGradient, inputGradient, output, relu } = this;
    const [weight, weightGradient] = [this.weight.value, this.weight.gradient];
    patchesGradient.fill(0);
    for (let filter = 0; filter < filters; filter++)
      for (let position = 0; position < positions; position++) {
        const g = gradient[filter * positions + position];
        if (g === 0 || (relu && output[filter * positions + position] === 0)) continue;
        this.bias.gradient[filter] += g;
        const [w, p] = [filter * patch, position * patch];
        for (let k = 0; k < patch; k++) {
          weightGradient[w + k] += g * patches[p + k];
          patchesGradient[p + k] += g * weight[w + k];
        }
      }
    inputGradient.fill(0);
    for (let i = 0; i < index.length; i++) inputGradient[index[i]] += patchesGradient[i];
    return inputGradient;
  }
}

function parameter(value) {
  return { value, gradient: new Float64Array(value.length) };
}

/** Adam (Kingma & Ba 2015) over the parameters of layers. */
export class Adam {
  #parameters;
  #steps = 0;

  constructor(layers) {
    this.#parameters = layers
      .flatMap(({ weight, bias }) => [weight, bias])
      .map((parameter) => ({
        ...parameter,
        first: new Float64Array(parameter.value.length),
        second: new Float64Array(parameter.value.length),
      }));
  }

  /** One step along the mean of the gradients of `count` samples, which are set to zero. */
  step(rate, count) {
    this.#steps++;
    const [beta1, beta2] = [0.9, 0.999];
    const [scale1, scale2] = [1 - beta1 ** this.#steps, 1 - beta2 ** this.#steps];
    for (const { value, gradient, first, second } of this.#parameters) {
      for (let i = 0; i < value.length; i++) {
        const g = gradient[i] / count;
        first[i] = beta1 * first[i] + (1 - beta1) * g;
        second[i] = beta2 * second[i] + (1 - beta2) * g * g;
        value[i] -= (rate * (first[i] / scale1)) / (Math.sqrt(second[i] / scale2) + 1e-8);
      }
      gradient.fill(0);
    }
  }
}

/** Turns logits into the gradient of their cross-entropy with a label. */
export function crossEntropyGradient(logits, label, count) {
  const gradient = logits.slice(0, count);
  const largest = Math.max(...gradient);
  for (let i = 0; i < count; i++) gradient[i] = Math.exp(gradient[i] - largest);
  const sum = gradient.reduce((a, b) => a + b);
  for (let i = 0; i < count; i++) gradient[i] = gradient[i] / sum - (i === label ? 1 : 0);
  return gradient;
}
