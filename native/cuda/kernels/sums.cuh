// The tree of math/sum_tree.hpp on a warp.
#pragma once

#include <cmath>

#include "cuda/kernels/batch.cuh"
#include "math/mean.hpp"
#include "math/sum_tree.hpp"

namespace score_sde::cuda {

/// Folds lanes that lie four to a thread (thread t has 4t to 4t + 3) over `width` adjacent threads, a power of two. All
/// threads of the warp call it, and get their part's sum.
__device__ inline double foldLanes(double (&lane)[4], uint32_t width) {
  for (uint32_t mask = width / 2; mask > 0; mask /= 2)
#pragma unroll
    for (int i = 0; i < 4; ++i) lane[i] += __shfl_xor_sync(0xffffffffu, lane[i], mask);
  return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/// The sum of up to 1024 values in memory, over `width` adjacent threads of which this is number `t`.
__device__ inline double foldValues(const double* values, uint32_t count, uint32_t t, uint32_t width) {
  double lane[4] = {};
  for (uint32_t first = 4 * t; first < count; first += kSumLanes)
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i)
      if (first + i < count) lane[i] += __ldcg(values + first + i);
  return foldLanes(lane, width);
}

/// Adds the squares of a quad to its lanes: in double they are exact, so that one rounding is all there is.
__device__ inline void addSquares(double (&lane)[4], const float (&values)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const double v = static_cast<double>(values[i]);
    lane[i] = std::fma(v, v, lane[i]);
  }
}

/// The mean of a batch's norms, by the 32 threads of a warp; `partial` is memory that they share.
__device__ inline float warpMean(const float* norms, size_t count, MeanPartials& partial) {
  const uint32_t t = threadIdx.x % 32;
  partial.sum[t / 8][t % 8] = meanPartial(norms, count, t / 8, t % 8);
  __syncwarp();
  const float mean = meanOf(partial, norms, count);
  __syncwarp();
  return mean;
}

}  // namespace score_sde::cuda
