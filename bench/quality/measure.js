'use strict';
// How good a set of digits is: the Frechet distance of its features from those of real digits, and how often the classifier
// sees the label that was asked for.
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { Matrix } = require('ml-matrix');
const ort = require('onnxruntime-node');
const { pixels } = require('./digits.js');
const { frechetDistance, statistics } = require('./frechet.js');

const path = (name) => join(__dirname, name);

/** The features of 10,000 real digits as a normal distribution, and what real digits reach: written by train.mjs. */
function readReal() {
  const { mean, covariance, ...floors } = JSON.parse(readFileSync(path('real.json'), 'utf8'));
  return { mean, covariance: fromTriangle(covariance, mean.length), ...floors };
}

/** A symmetric matrix of its upper triangle, row by row. */
function fromTriangle(values, size) {
  const matrix = new Matrix(size, size);
  let i = 0;
  for (let row = 0; row < size; row++)
    for (let column = row; column < size; column++) {
      matrix.set(row, column, values[i]);
      matrix.set(column, row, values[i++]);
    }
  return matrix;
}

function toTriangle(matrix) {
  return matrix.to2DArray().flatMap((row, i) => row.slice(i));
}

/** The classifier of classifier.onnx, or of the bytes of such a network. */
class Classifier {
  #session;

  static async load(network = path('classifier.onnx')) {
    const classifier = new Classifier();
    classifier.#session = await ort.InferenceSession.create(network);
    return classifier;
  }

  /**
   * @param {Float32Array} images [n, 1, 28, 28] in [0, 1]
   * @returns {Promise<{ features: Matrix, predicted: Uint8Array }>} features: [n, 64] in double
   */
  async classify(images) {
    const count = images.length / pixels;
    const features = new Matrix(count, 64);
    const predicted = new Uint8Array(count);
    const batch = 500;
    for (let start = 0; start < count; start += batch) {
      const part = images.subarray(start * pixels, (start + batch) * pixels);
      const dims = [part.length / pixels, 1, 28, 28];
      const output = await this.#session.run({ images: new ort.Tensor('float32', part, dims) });
      for (let i = 0; i < dims[0]; i++) {
        features.setRow(start + i, Array.from(output.features.data.subarray(i * 64, (i + 1) * 64)));
        const logits = output.logits.data.subarray(i * 10, (i + 1) * 10);
        predicted[start + i] = logits.indexOf(Math.max(...logits));
      }
    }
    return { features, predicted };
  }

  async dispose() {
    await this.#session.release();
  }
}

/** The share of labels that were predicted. */
function accuracyOf(predicted, labels) {
  return predicted.filter((label, i) => label === labels[i]).length / predicted.length;
}

/**
 * @param {Classifier} classifier
 * @param {{ images: Float32Array, labels: ArrayLike<number> }} digits
 * @param {import('./frechet.js').Normal} real
 */
async function measure(classifier, { images, labels }, real) {
  const { features, predicted } = await classifier.classify(images);
  return { frechet: frechetDistance(statistics(features), real), accuracy: accuracyOf(predicted, labels) };
}

module.exports = { Classifier, measure, readReal, toTriangle };
