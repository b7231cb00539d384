'use strict';
// Mixtures of normals, whose scores are known exactly, and how far samples are from one: a sampler's own error, without a
// network's.
const { Generator } = require('../..');

/**
 * A mixture of isotropic normals in [0, 1]^dims.
 * @typedef {object} Mixture
 * @property {number} dims
 * @property {number} sigmaMax about the largest distance of two of its points
 * @property {readonly number[]} weights
 * @property {readonly number[]} stds
 * @property {readonly ArrayLike<number>[]} means
 */

/** @type {readonly Mixture[]} */
const mixtures = [
  {
    dims: 2,
    sigmaMax: 1.5,
    weights: [0.25, 0.15, 0.2, 0.1, 0.2, 0.1],
    stds: [0.08, 0.05, 0.03, 0.02, 0.06, 0.04],
    means: [
      [0.2, 0.2],
      [0.8, 0.25],
      [0.75, 0.8],
      [0.25, 0.75],
      [0.5, 0.5],
      [0.5, 0.85],
    ],
  },
  {
    dims: 64,
    sigmaMax: 7,
    weights: [0.25, 0.15, 0.2, 0.1, 0.2, 0.1],
    stds: [0.1, 0.06, 0.04, 0.03, 0.08, 0.05],
    means: Array.from({ length: 6 }, (_, k) => new Generator(k).randn([64]).data.map((z) => 0.5 + 0.2 * z)),
  },
];

/**
 * Samples of a mixture.
 * @param {Mixture} mixture
 * @param {number} count
 * @param {number} seed
 * @returns {Float32Array} [count, dims]
 */
function samplesOf({ dims, weights, stds, means }, count, seed) {
  const generator = new Generator(seed);
  const pairs = generator.randn([count, 2]).data;
  const samples = generator.randn([count, dims]).data.slice();
  for (let i = 0; i < count; i++) {
    // The squares of two normals have the sum -2 ln u, u uniform.
    let u = Math.exp(-(pairs[2 * i] ** 2 + pairs[2 * i + 1] ** 2) / 2);
    let k = 0;
    while (k < weights.length - 1 && u > weights[k]) u -= weights[k++];
    for (let j = i * dims; j < (i + 1) * dims; j++) samples[j] = means[k][j - i * dims] + stds[k] * samples[j];
  }
  return samples;
}

/**
 * The exact score of a mixture with noise, in double.
 * @param {Mixture} mixture
 * @returns {(sample: Values & { dims: readonly number[] }, sigma: Values) => { data: Float32Array, dims: readonly number[] }}
 * @typedef {{ data: ArrayLike<number> }} Values
 */
function scoreOf({ dims, weights, stds, means }) {
  return ({ data: x, dims: batch }, sigma) => {
    const score = new Float32Array(x.length);
    const logs = new Float64Array(weights.length);
    for (let row = 0; row < batch[0]; row++) {
      const variances = stds.map((std) => std ** 2 + sigma.data[row] ** 2);
      const first = row * dims;
      means.forEach((mean, k) => {
        let square = 0;
        for (let j = 0; j < dims; j++) square += (x[first + j] - mean[j]) ** 2;
        logs[k] = Math.log(weights[k]) - (dims * Math.log(variances[k]) + square / variances[k]) / 2;
      });
      const largest = Math.max(...logs);
      const shares = logs.map((log) => Math.exp(log - largest));
      const total = shares.reduce((sum, share) => sum + share);
      means.forEach((mean, k) => {
        const pull = shares[k] / total / variances[k];
        for (let j = 0; j < dims; j++) score[first + j] += pull * (mean[j] - x[first + j]);
      });
    }
    return { data: score, dims: batch };
  };
}

/** Directions of a sliced distance. */
const directions = 64;

/**
 * The sliced Wasserstein distance of two sets of as many samples: the mean over directions of the 1-Wasserstein distance of
 * their projections.
 * @param {ArrayLike<number>} a [count, dims]
 * @param {ArrayLike<number>} b [count, dims]
 * @param {number} dims
 */
function slicedWasserstein(a, b, dims) {
  const count = a.length / dims;
  const draw = new Generator(0).randn([directions, dims]).data;
  let sum = 0;
  for (let i = 0; i < directions; i++) {
    const direction = draw.subarray(i * dims, (i + 1) * dims);
    const length = Math.hypot(...direction);
    const [p, q] = [a, b].map((set) => projected(set, direction).sort());
    for (let k = 0; k < count; k++) sum += Math.abs(p[k] - q[k]) / length;
  }
  return sum / count / directions;
}

/** The product of each sample with the direction. */
function projected(samples, direction) {
  const dims = direction.length;
  return Float64Array.from({ length: samples.length / dims }, (_, row) => {
    let sum = 0;
    for (let j = 0; j < dims; j++) sum += direction[j] * samples[row * dims + j];
    return sum;
  });
}

module.exports = { mixtures, samplesOf, scoreOf, slicedWasserstein };
