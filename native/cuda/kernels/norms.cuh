// The corrector's steps from the norms of a large batch; kernels/update.cuh then applies them.
#pragma once

#include "cuda/kernels/sums.cuh"
#include "cuda/launch.hpp"
#include "math/ve.hpp"

namespace score_sde::cuda {

struct NormArgs {
  uint64_t rows = 0, cols = 0, blocksPerRow = 0;
  ConstView score;
  NoiseArgs noise;
  StepRule rule;
  double *gradSums = nullptr, *noiseSums = nullptr;   // of each row's groups
  float *gradNorms = nullptr, *noiseNorms = nullptr;  // of each row
  float* steps = nullptr;                             // the result, for each row
  uint32_t* tickets = nullptr;                        // one for each row and one more; zero before and after
};

/// Whether this block is the last of `count` to come here; what the others wrote before is then to be seen.
__device__ inline bool isLast(uint32_t* ticket, uint64_t count) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(ticket, 1u) == count - 1;
    if (last) *ticket = 0;
  }
  __syncthreads();
  if (last) __threadfence();
  return last;
}

/// The upper levels of a row's two trees, in place, by a block.
__device__ inline void foldRow(double* grad, double* noise, uint64_t count, bool both) {
  const uint32_t warp = threadIdx.x / 32, t = threadIdx.x % 32;
  while (count > 1) {
    const uint64_t groups = sumGroups(count), tasks = both ? 2 * groups : groups;
    for (uint64_t first = 0; first < tasks; first += kWarpGroups) {
      const uint64_t task = first + warp, g = both ? task / 2 : task;
      double* const sums = both && task % 2 == 1 ? noise : grad;
      double sum = 0.0;
      if (task < tasks) {
        const uint64_t left = count - g * kSumGroup;
        sum = foldValues(sums + g * kSumGroup, static_cast<uint32_t>(left < kSumGroup ? left : kSumGroup), t, 32);
      }
      __syncthreads();  // the sums take the place of values that all have read
      if (task < tasks && t == 0) sums[g] = sum;
      __threadfence();
      __syncthreads();
    }
    count = groups;
  }
}

/// Each warp sums a group; the last block of a row folds the row, and the last of all makes the batch's step.
template <bool kPlain>
__global__ void __launch_bounds__(kThreads, 6) norms(const __grid_constant__ NormArgs p) {
  const uint64_t row = blockIdx.x / p.blocksPerRow;
  const uint32_t warp = threadIdx.x / 32, t = threadIdx.x % 32;
  const uint64_t perRow = sumGroups(p.cols), group = blockIdx.x % p.blocksPerRow * kWarpGroups + warp;
  const bool measured = p.rule.measuresNoise(), given = p.noise.given.data != nullptr;
  const ConstView score{p.score.data, kPlain ? Dtype::Float32 : p.score.type};
  const ConstView noise{p.noise.given.data, kPlain ? Dtype::Float32 : p.noise.given.type};

  if (group < perRow) {
    constexpr int kRounds = kSumGroup / kSumLanes;
    double grad[4] = {}, drawn[4] = {};
    Bits<1> m[kRounds];
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const Quad quad = quadAt(row, p.cols, group * kSumGroup + r * kSumLanes + 4 * t);
      m[r] = load<1>(score, quad.at, quad.count);
    }
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = m[r].value(score.type, i);
      addSquares(grad, v);
    }
    if (measured) {
#pragma unroll 2
      for (int r = 0; r < kRounds; ++r) {
        const Quad quad = quadAt(row, p.cols, group * kSumGroup + r * kSumLanes + 4 * t);
        if (quad.count == 0) continue;
        float z[4];
        if (given) {
          const Bits<1> bits = load<1>(noise, quad.at, quad.count);
#pragma unroll
          for (int i = 0; i < 4; ++i) z[i] = bits.value(noise.type, i);
        } else {
          draw(z, p.noise, kPlain ? Dtype::Float32 : p.noise.type, row, quad.at, quad.col);
#pragma unroll
          for (uint32_t i = 0; i < 4; ++i)
            if (i >= quad.count) z[i] = 0.0f;
        }
        addSquares(drawn, z);
      }
    }
    const double gradSum = foldLanes(grad, 32), drawnSum = measured ? foldLanes(drawn, 32) : 0.0;
    if (t == 0) {
      p.gradSums[row * perRow + group] = gradSum;
      if (measured) p.noiseSums[row * perRow + group] = drawnSum;
    }
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif

  if (!isLast(p.tickets + row, p.blocksPerRow)) return;
  double *const rowGrad = p.gradSums + row * perRow, *const rowNoise = p.noiseSums + row * perRow;
  foldRow(rowGrad, rowNoise, perRow, measured);
  const float gradNorm = p.rule.gradNorm(__ldcg(rowGrad));
  const float noiseNorm = p.rule.noiseNorm(measured ? __ldcg(rowNoise) : 0.0);
  if (p.rule.size != StepSize::Batch) {
    if (threadIdx.x == 0) p.steps[row] = p.rule.step(row, noiseNorm, gradNorm);
    return;
  }
  if (threadIdx.x == 0) {
    p.gradNorms[row] = gradNorm;
    p.noiseNorms[row] = noiseNorm;
  }
  if (!isLast(p.tickets + p.rows, p.rows)) return;
  __shared__ MeanPartials partial[2];
  __shared__ float mean[2];
  if (warp < 2) {
    const float value = warpMean(warp == 0 ? p.gradNorms : p.noiseNorms, p.rows, partial[warp]);
    if (t == 0) mean[warp] = warp == 0 ? rounded(value, p.rule.scoreType) : value;
  }
  __syncthreads();
  for (uint64_t r = threadIdx.x; r < p.rows; r += kThreads) p.steps[r] = p.rule.step(r, mean[1], mean[0]);
}

}  // namespace score_sde::cuda
