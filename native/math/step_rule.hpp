// The corrector's step (algorithm 4) of each row, from the sums of squares of its score P and of its noise.
#pragma once

#include "core/params.hpp"
#include "math/half.hpp"
#include "math/mean.hpp"
#include "math/sum_tree.hpp"
#include "math/ve.hpp"

namespace score_sde {

/// Whether a row's step depends on the norm of its score.
HD bool measuresScore(const RowStep& row) {
  return row.kind == RowStep::Kind::Correct && row.stepSize != StepSize::Ald;
}

/// Whether a row's step depends on the norm of its noise.
HD bool measuresNoise(const RowStep& row) {
  return row.kind == RowStep::Kind::Correct && (row.stepSize == StepSize::Batch || row.stepSize == StepSize::Sample);
}

/// Whether a row's step depends on the means of its group's norms. A group is a run of adjacent rows for which this
/// holds and whose `group` is the same; rows of one record are one group.
HD bool sharesNorms(const RowStep& row) {
  return row.kind == RowStep::Kind::Correct && row.stepSize == StepSize::Batch;
}

/// The type of a row's score: the network's output's, or float32 where the score is computed from that.
HD Dtype scoreType(const RowStep& row, Dtype output) { return row.converts ? Dtype::Float32 : output; }

/// The norm of a row's score, from its sum of squares. With Batch it is of the score's type, as torch.norm's result is.
HD float scoreNorm(const RowStep& row, double sum, Dtype output) {
  return sharesNorms(row) ? rounded(normOf(sum), scoreType(row, output)) : normOf(sum);
}

/// The norm of a row's noise, from its sum of squares; with Dim it is what such norms are near, the root of their
/// number of elements, and the sum is not used.
HD float noiseNorm(const RowStep& row, double sum, size_t cols) {
  return measuresNoise(row) ? normOf(sum) : std::sqrt(static_cast<float>(cols));
}

/// The step of a row from both norms. With Batch these are the means of its group's norms as batchMean gives them, and
/// that of the scores is rounded to their type. With Ald both are unused.
HD float correctorStep(const RowStep& row, float score, float noise, Dtype output) {
  if (row.stepSize == StepSize::Ald) return annealedStep(row.snr, row.sigma);
  return langevinStep(row.snr, noise, sharesNorms(row) ? rounded(score, scoreType(row, output)) : score);
}

}  // namespace score_sde
