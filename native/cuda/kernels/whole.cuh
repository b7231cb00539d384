// The whole corrector in one launch, for batches of which each thread holds four elements in registers.
#pragma once

#include <cooperative_groups.h>

#include "cuda/kernels/norms.cuh"

namespace score_sde::cuda {

struct WholeArgs {
  uint64_t rows = 0, cols = 0;
  ConstView sample, score;
  NoiseArgs noise;
  View out;
  StepRule rule;
  double *gradSums = nullptr, *noiseSums = nullptr;  // of each row's groups
  FiniteMark mark;
};

/// All blocks of the grid, which is one cluster.
struct ClusterBarrier {
  __device__ static void wait() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
    __threadfence();
    cooperative_groups::this_cluster().sync();
#endif
  }
};

/// All blocks of a cooperative grid.
struct GridBarrier {
  __device__ static void wait() { cooperative_groups::this_grid().sync(); }
};

template <class Barrier>
__global__ void __launch_bounds__(kWholeThreads, 1) correctWhole(const __grid_constant__ WholeArgs p) {
  __shared__ float values[2][kWholeGroups][kSumGroup];  // of the score and of the noise
  __shared__ float rowNorms[2][kWholeRows];
  __shared__ MeanPartials partial[2];
  __shared__ float mean[2];
  const uint32_t perGroup = kWholeThreads / kWholeGroups, sub = threadIdx.x / perGroup, place = threadIdx.x % perGroup;
  const uint32_t warp = threadIdx.x / 32, t = threadIdx.x % 32;
  const uint64_t perRow = sumGroups(p.cols), groups = p.rows * perRow, group = blockIdx.x * kWholeGroups + sub;
  const bool there = group < groups, given = p.noise.given.data != nullptr;
  const uint64_t row = there ? group / perRow : p.rows - 1;
  const Quad quad = there ? quadAt(row, p.cols, group % perRow * kSumGroup + 4 * place) : Quad{};

  const Bits<1> x = load<1>(p.sample, quad.at, quad.count);
  const Bits<1> m = load<1>(p.score, quad.at, quad.count);
  float z[4] = {};
  if (given) {
    const Bits<1> bits = load<1>(p.noise.given, quad.at, quad.count);
#pragma unroll
    for (int i = 0; i < 4; ++i) z[i] = bits.value(p.noise.given.type, i);
  } else if (quad.count > 0) {
    draw(z, p.noise, p.noise.type, row, quad.at, quad.col);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[0][sub][4 * place + i] = m.value(p.score.type, i);
    values[1][sub][4 * place + i] = static_cast<uint32_t>(i) < quad.count ? z[i] : 0.0f;
  }
  __syncthreads();
  if (warp < 2 * kWholeGroups) {
    const uint32_t kind = warp % 2, which = warp / 2;
    const uint64_t mine = blockIdx.x * kWholeGroups + which;
    double lane[4] = {};
    for (uint32_t r = 0; r < kSumGroup / kSumLanes; ++r) {
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = values[kind][which][r * kSumLanes + 4 * t + i];
      addSquares(lane, v);
    }
    const double sum = foldLanes(lane, 32);
    if (t == 0 && mine < groups) (kind == 0 ? p.gradSums : p.noiseSums)[mine] = sum;
  }
  Barrier::wait();

  // Each block folds the rows that it needs: its own, or all.
  const bool batch = p.rule.size == StepSize::Batch;
  const uint64_t first = batch ? 0 : blockIdx.x * kWholeGroups / perRow;
  const uint64_t last = batch ? p.rows : (blockIdx.x + 1) * kWholeGroups / perRow + 1;
  const uint64_t end = last < p.rows ? last : p.rows, tasks = first < end ? 2 * (end - first) : 0;
  uint32_t width = 1;  // threads to a row: four of its sums each, or more where those are many
  while (width < 32 && 4 * width < perRow) width *= 2;
  const uint32_t teams = kWholeThreads / width, team = threadIdx.x / width;
  for (uint64_t begin = 0; begin < tasks; begin += teams) {
    const uint64_t task = begin + team, r = first + task / 2;
    const bool mine = task < tasks;
    const double* const sums = (task % 2 == 0 ? p.gradSums : p.noiseSums) + r * perRow;
    const double sum = foldValues(sums, mine ? static_cast<uint32_t>(perRow) : 0, threadIdx.x % width, width);
    if (mine && threadIdx.x % width == 0)
      rowNorms[task % 2][r - first] = task % 2 == 0 ? p.rule.gradNorm(sum) : p.rule.noiseNorm(sum);
  }
  __syncthreads();
  if (batch) {
    if (warp < 2) {
      const float value = warpMean(rowNorms[warp], p.rows, partial[warp]);
      if (t == 0) mean[warp] = warp == 0 ? rounded(value, p.rule.scoreType) : value;
    }
    __syncthreads();
  }
  if (quad.count == 0) return;
  const float grad = batch ? mean[0] : rowNorms[0][row - first], noise = batch ? mean[1] : rowNorms[1][row - first];
  const float step = p.rule.step(row, noise, grad), scale = noiseScale(step);
  Bits<1> result = {};
  bool bad = false;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t at = 4 * place + i;
    const float value = correct(x.value(p.sample.type, i), values[0][sub][at], values[1][sub][at], step, scale);
    bad |= static_cast<uint32_t>(i) < quad.count && isBad(value);
    result.set(p.out.type, i, value);
  }
  store<1>(p.out, quad.at, quad.count, result);
  if (bad && p.mark.first != nullptr) atomicMin(p.mark.first, p.mark.index);
}

}  // namespace score_sde::cuda
