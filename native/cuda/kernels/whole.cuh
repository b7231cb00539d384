// The whole corrector in one launch, for batches of which each thread holds four elements in registers.
#pragma once

#include <cooperative_groups.h>

#include "cuda/kernels/norms.cuh"

namespace score_sde::cuda {

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

/// For batches of which every row measures its score. All sums of a row are one level of the tree.
template <class Barrier>
__global__ void __launch_bounds__(kWholeThreads, 1) correctWhole(const __grid_constant__ StepArgs p) {
  __shared__ float values[2][kWholeGroups][kSumGroup];  // of the score and of the noise
  __shared__ float rowNorms[2][kWholeRows];
  __shared__ Run shared[kWholeGroups];  // the rows whose norms the row of each of the block's groups needs
  __shared__ MeanPartials partial[2 * kWholeGroups];
  __shared__ float norm[2][kWholeGroups];
  const uint32_t perGroup = kWholeThreads / kWholeGroups, sub = threadIdx.x / perGroup, place = threadIdx.x % perGroup;
  const uint32_t warp = threadIdx.x / 32, t = threadIdx.x % 32, rows = static_cast<uint32_t>(p.rows);
  const uint32_t perRow = static_cast<uint32_t>(sumGroups(p.cols)), groups = rows * perRow;
  const uint32_t group = blockIdx.x * kWholeGroups + sub;
  const bool there = group < groups;
  const uint32_t row = there ? group / perRow : rows - 1;
  const Quad quad = there ? quadAt(row, p.cols, group % perRow * kSumGroup + 4 * place) : Quad{};
  const RowStep step = p.rowsOf.step(row);

  const bool whole = p.aligned && quad.count == 4;
  const Bits<1> x = load<1>(p.sample, quad.at, quad.count, whole);
  const Bits<1> m = load<1>(p.output, quad.at, quad.count, whole);
  float z[4] = {};
  if (step.normals == RowStep::Normals::Given) {
    const Bits<1> bits = load<1>(p.given, quad.at, quad.count, whole);
#pragma unroll
    for (int i = 0; i < 4; ++i) z[i] = bits.value(p.given.type, i);
  } else if (step.normals == RowStep::Normals::Drawn && quad.count > 0) {
    draw(z, p.rowsOf.stream(row), p.rowsOf.origin(row, p.cols, step.phase) + quad.col);
    if (p.drawn != Dtype::Float32) roundAll(p.drawn, z);
  }
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) {
    float score = m.value(p.output.type, i);
    if (step.converts) score = converted(x.value(p.sample.type, i), score, step.px, step.pm);
    values[0][sub][4 * place + i] = i < quad.count ? score : 0.0f;
    values[1][sub][4 * place + i] = i < quad.count ? z[i] : 0.0f;
  }
  const Run run = groupOf(p, row, step);
  if (place == 0) shared[sub] = run;
  __syncthreads();
  if (warp < 2 * kWholeGroups) {
    const uint32_t kind = warp % 2, which = warp / 2, mine = blockIdx.x * kWholeGroups + which;
    double lane[4] = {};
    for (uint32_t r = 0; r < kSumGroup / kSumLanes; ++r) {
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] = values[kind][which][r * kSumLanes + 4 * t + i];
      addSquares(lane, v);
    }
    const double sum = foldLanes(lane, 32);
    if (t == 0 && mine < groups) (kind == 0 ? p.measures.scoreSums : p.measures.noiseSums)[mine] = sum;
  }
  Barrier::wait();

  // Each block folds the rows that it needs: its own, and those that share a group with them.
  const uint32_t first = shared[0].first, end = shared[kWholeGroups - 1].first + shared[kWholeGroups - 1].count;
  const uint32_t tasks = 2 * (end - first);
  uint32_t width = 1;  // threads to a row: four of its sums each, or more where those are many
  while (width < 32 && 4 * width < perRow) width *= 2;
  const uint32_t teams = kWholeThreads / width, team = threadIdx.x / width;
  for (uint32_t begin = 0; begin < tasks; begin += teams) {
    const uint32_t task = begin + team, r = first + task / 2;
    const bool mine = task < tasks;
    const double* const sums = (task % 2 == 0 ? p.measures.scoreSums : p.measures.noiseSums) + r * perRow;
    const double sum = foldValues(sums, mine ? perRow : 0, threadIdx.x % width, width);
    if (mine && threadIdx.x % width == 0) {
      const RowStep there = p.rowsOf.step(r);
      rowNorms[task % 2][r - first] =
          task % 2 == 0 ? scoreNorm(there, sum, p.output.type) : noiseNorm(there, sum, p.cols);
    }
  }
  __syncthreads();
  if (warp < 2 * kWholeGroups) {
    const uint32_t kind = warp % 2, which = warp / 2;
    const Run rowsOf = shared[which];
    const float* const norms = rowNorms[kind] + rowsOf.first - first;
    // A row that shares its norm with none keeps it: the mean of one number is that number.
    const float value = warpMean(norms, rowsOf.count, partial[warp]);
    if (t == 0) norm[kind][which] = value;
  }
  __syncthreads();
  if (quad.count == 0) return;
  const float length = correctorStep(step, norm[0][sub], norm[1][sub], p.output.type), scale = noiseScale(length);
  float mean[4], next[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t at = 4 * place + i;
    mean[i] = correctMean(x.value(p.sample.type, i), values[0][sub][at], length);
    const bool noisy = step.normals != RowStep::Normals::None;
    next[i] = noisy ? linearTerm(mean[i], scale, values[1][sub][at]) : mean[i];
  }
  const bool bad = anyBad(p.out.type, next, quad.count);
  Bits<1> result = {};
  if (p.mean.data != nullptr) {
    result.setAll(p.mean.type, mean, bad);  // a NaN among the means makes one of the results NaN
    store<1>(p.mean, quad.at, quad.count, result, whole);
  }
  result.setAll(p.out.type, next, bad);
  store<1>(p.out, quad.at, quad.count, result, whole);
  if (bad && p.mark.first != nullptr) noteBad(p, quad.at, quad.count, p.out.type, result);
}

}  // namespace score_sde::cuda
