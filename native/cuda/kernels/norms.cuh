// The corrector's steps from the norms of a large batch; kernels/update.cuh then applies them.
#pragma once

#include "cuda/kernels/rows.cuh"
#include "cuda/kernels/sums.cuh"
#include "cuda/launch.hpp"

namespace score_sde::cuda {

/// The sums that a launch takes: both, or the noise's by one launch and then the score's by another, which folds both.
enum class Sums : uint8_t { Both, Noise, Score };

/// Whether this block is the last of `count` that come here. The block's last barrier orders its threads' writes before
/// the fence, and the fence before the ticket; the last block's second fence orders the ticket before its reads.
__device__ inline bool isLast(uint32_t* ticket, uint32_t count) {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1u) == count - 1;
    if (last) *ticket = 0;
    __threadfence();
  }
  __syncthreads();
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

/// Adds P of a group to its lanes; with kWhole the group is whole and aligned. Loads of all rounds are under way
/// together where P is the network's output.
template <Types kTypes, bool kWhole>
__device__ inline void addScores(double (&lane)[4], const StepArgs& p, const RowStep& step, uint32_t row,
                                 uint64_t first) {
  constexpr int kRounds = kSumGroup / kSumLanes;
  const ConstView output = typed<kTypes>(p.output), sample = typed<kTypes>(p.sample);
  if (step.converts) {
#pragma unroll 2
    for (int r = 0; r < kRounds; ++r) {
      const Quad quad = quadAt(row, p.cols, first + r * kSumLanes);
      const Bits<1> x = load<1, kWhole>(sample, quad.at, quad.count), m = load<1, kWhole>(output, quad.at, quad.count);
      float v[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float score = converted(x.value(sample.type, i), m.value(output.type, i), step.px, step.pm);
        v[i] = kWhole || static_cast<uint32_t>(i) < quad.count ? score : 0.0f;
      }
      addSquares(lane, v);
    }
    return;
  }
  Bits<1> m[kRounds];
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    const Quad quad = quadAt(row, p.cols, first + r * kSumLanes);
    m[r] = load<1, kWhole>(output, quad.at, quad.count);
  }
#pragma unroll
  for (int r = 0; r < kRounds; ++r) {
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = m[r].value(output.type, i);
    addSquares(lane, v);
  }
}

/// Adds the normals of a group to its lanes; with kWhole the group is whole and aligned, and its first element a
/// counter's first.
template <Types kTypes, bool kWhole>
__device__ inline void addNormals(double (&lane)[4], const StepArgs& p, const RowStep& step, uint32_t row,
                                  uint64_t first) {
  const ConstView given = typed<kTypes>(p.given);
  const Dtype drawn = kTypes == Types::Float32 ? Dtype::Float32 : p.drawn;
  const PhiloxStream stream = step.normals == RowStep::Normals::Drawn ? p.rowsOf.stream(row) : PhiloxStream{};
  const uint64_t origin = p.rowsOf.origin(row, p.cols, step.phase);
#pragma unroll 1
  for (int r = 0; r < static_cast<int>(kSumGroup / kSumLanes); ++r) {
    const Quad quad = quadAt(row, p.cols, first + r * kSumLanes);
    if (!kWhole && quad.count == 0) break;
    float z[4];
    if (step.normals == RowStep::Normals::Given) {
      const Bits<1> bits = load<1, kWhole>(given, quad.at, quad.count);
#pragma unroll
      for (int i = 0; i < 4; ++i) z[i] = bits.value(given.type, i);
    } else {
      draw<kWhole>(z, stream, origin + quad.col);
      if (drawn != Dtype::Float32) roundAll(drawn, z);
#pragma unroll
      for (uint32_t i = 0; i < 4; ++i)
        if (!kWhole && i >= quad.count) z[i] = 0.0f;
    }
    addSquares(lane, z);
  }
}

/// The sums of a group that are asked for, that of the noise where it is measured.
template <Types kTypes, Sums kSums, bool kWhole>
__device__ inline void sumGroup(const StepArgs& p, const RowStep& step, uint32_t row, uint64_t group, bool measured) {
  const uint64_t at = row * sumGroups(p.cols) + group;
  const uint32_t t = threadIdx.x % 32;
  double lane[4] = {};
  if (kSums != Sums::Noise) {
    addScores<kTypes, kWhole>(lane, p, step, row, group * kSumGroup + 4 * t);
    const double scoreSum = foldLanes(lane, 32);
    if (t == 0) p.measures.scoreSums[at] = scoreSum;
  }
  if (kSums == Sums::Score || !measured) return;
#pragma unroll
  for (double& value : lane) value = 0.0;
  addNormals<kTypes, kWhole>(lane, p, step, row, group * kSumGroup + 4 * t);
  const double noiseSum = foldLanes(lane, 32);
  if (t == 0) p.measures.noiseSums[at] = noiseSum;
}

/// Each warp sums a group; the last block of a row folds the row; the last row of a group of rows makes their steps.
/// Rows that measure nothing are left out. A launch for the noise alone only sums.
template <Types kTypes, Sums kSums>
__global__ void __launch_bounds__(kThreads, kSums == Sums::Score ? 5 : 6) norms(const __grid_constant__ StepArgs p) {
  const uint32_t row = blockRow(), warp = threadIdx.x / 32, t = threadIdx.x % 32;
  if (row >= p.rows) return;
  const uint64_t perRow = sumGroups(p.cols), group = blockIdx.x * uint64_t{kWarpGroups} + warp;
  const RowStep step = p.rowsOf.step(row);
  const bool measured = measuresNoise(step) && step.normals != RowStep::Normals::None;
  if (!measuresScore(step)) return;

  double *const scoreSums = p.measures.scoreSums + row * perRow, *const noiseSums = p.measures.noiseSums + row * perRow;
  if (p.aligned && (group + 1) * kSumGroup <= p.cols && p.rowsOf.origin(row, p.cols, step.phase) % 4 == 0)
    sumGroup<kTypes, kSums, true>(p, step, row, group, measured);
  else if (group < perRow)
    sumGroup<kTypes, kSums, false>(p, step, row, group, measured);
  if (kSums == Sums::Noise) return;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif

  if (!isLast(p.measures.tickets + row, gridDim.x)) return;
  foldRow(scoreSums, noiseSums, perRow, measured);
  const float scoreNorm = score_sde::scoreNorm(step, __ldcg(scoreSums), p.output.type);
  const float noiseNorm = score_sde::noiseNorm(step, measured ? __ldcg(noiseSums) : 0.0, p.cols);
  if (!sharesNorms(step)) {
    if (threadIdx.x == 0) p.measures.steps[row] = correctorStep(step, scoreNorm, noiseNorm, p.output.type);
    return;
  }
  if (threadIdx.x == 0) {
    p.measures.scoreNorms[row] = scoreNorm;
    p.measures.noiseNorms[row] = noiseNorm;
  }
  const Run run = groupOf(p, row, step);
  if (!isLast(p.measures.tickets + p.rows + run.first, run.count)) return;
  __shared__ MeanPartials partial[2];
  __shared__ float mean[2];
  if (warp < 2) {
    const float* const norms = (warp == 0 ? p.measures.scoreNorms : p.measures.noiseNorms) + run.first;
    const float value = warpMean(norms, run.count, partial[warp]);
    if (t == 0) mean[warp] = value;
  }
  __syncthreads();
  for (uint32_t r = threadIdx.x; r < run.count; r += kThreads)
    p.measures.steps[run.first + r] = correctorStep(p.rowsOf.step(run.first + r), mean[0], mean[1], p.output.type);
}

}  // namespace score_sde::cuda
