'use strict';
// The Frechet distance between two sets of feature vectors, each taken as a normal distribution (Heusel et al. 2017).
const { EigenvalueDecomposition, Matrix, covariance } = require('ml-matrix');

/**
 * Mean and covariance of the rows, in double. The covariance has the divisor n - 1.
 * @param {Matrix} features [n, dimensions]
 * @returns {Normal}
 * @typedef {{ mean: number[], covariance: Matrix }} Normal
 */
function statistics(features) {
  return { mean: features.mean('column'), covariance: covariance(features) };
}

/**
 * |m1 - m2|^2 + tr(C1) + tr(C2) - 2 tr((C1 C2)^(1/2)).
 * C1 C2 has the eigenvalues of the symmetric S C2 S with S = C1^(1/2), so that two symmetric eigendecompositions are enough.
 * @param {Normal} a
 * @param {Normal} b
 * @returns {number}
 */
function frechetDistance(a, b) {
  const root = squareRoot(a.covariance);
  const { realEigenvalues } = symmetric(root.mmul(b.covariance).mmul(root));
  const between = realEigenvalues.reduce((sum, value) => sum + Math.sqrt(Math.max(value, 0)), 0);
  const distance = a.mean.reduce((sum, value, i) => sum + (value - b.mean[i]) ** 2, 0);
  return distance + a.covariance.trace() + b.covariance.trace() - 2 * between;
}

/** The symmetric square root of a covariance. Rounding can leave an eigenvalue of 0 below 0. */
function squareRoot(matrix) {
  const { realEigenvalues, eigenvectorMatrix } = symmetric(matrix);
  const roots = Matrix.diag(realEigenvalues.map((value) => Math.sqrt(Math.max(value, 0))));
  return eigenvectorMatrix.mmul(roots).mmul(eigenvectorMatrix.transpose());
}

const symmetric = (matrix) => new EigenvalueDecomposition(matrix, { assumeSymmetric: true });

module.exports = { frechetDistance, statistics };
