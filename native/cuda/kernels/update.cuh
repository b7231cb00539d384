// One pass over a batch: each element from its operands and its normal, by a formula of math/ve.hpp.
#pragma once

#include "cuda/kernels/batch.cuh"
#include "cuda/launch.hpp"
#include "math/ve.hpp"

namespace score_sde::cuda {

struct UpdateArgs {
  uint64_t cols = 0;
  uint64_t blocksPerRow = 0;
  bool backwards = false;  // from the last row on: what the kernel before read last is still in the cache
  bool waits = false;      // for the kernel before, which is launched to overlap with this one
  ConstView sample, score;
  NoiseArgs noise;
  View out, mean;  // mean: data null where it is not wanted
  Values first, second;
  float scale = 1.0f;
  FiniteMark mark;
};

struct Store {
  static constexpr bool kSample = false, kScore = false;
  float scale;
  __device__ Store(const UpdateArgs& p, size_t) : scale(p.scale) {}
  __device__ float operator()(float, float, float z, float&) const { return z * scale; }
};

/// first: sigma, second: adjacentSigma
struct Predict {
  static constexpr bool kSample = true, kScore = true;
  float diffusion, squared;
  __device__ Predict(const UpdateArgs& p, size_t row)
      : diffusion(score_sde::diffusion(p.first[row], p.second[row])), squared(diffusion * diffusion) {}
  __device__ float operator()(float x, float m, float z, float& mean) const {
    mean = predictMean(x, m, squared);
    return predict(mean, z, diffusion);
  }
};

/// first: the step
struct Correct {
  static constexpr bool kSample = true, kScore = true;
  float step, scale;
  __device__ Correct(const UpdateArgs& p, size_t row) : step(p.first[row]), scale(noiseScale(step)) {}
  __device__ float operator()(float x, float m, float z, float&) const { return correct(x, m, z, step, scale); }
};

/// Annealed Langevin dynamics. first: snr, second: sigma
struct Anneal {
  static constexpr bool kSample = true, kScore = true;
  float step, scale;
  __device__ Anneal(const UpdateArgs& p, size_t row)
      : step(annealedStep(p.first[row], p.second[row])), scale(noiseScale(step)) {}
  __device__ float operator()(float x, float m, float z, float&) const { return correct(x, m, z, step, scale); }
};

/// first: sigma
struct Perturb {
  static constexpr bool kSample = true, kScore = false;
  float sigma;
  __device__ Perturb(const UpdateArgs& p, size_t row) : sigma(p.first[row]) {}
  __device__ float operator()(float x, float, float z, float&) const { return perturb(x, z, sigma); }
};

/// A thread has eight elements: two quads a block apart where all is float32 (kPlain), so that a warp's accesses are
/// dense, else two adjacent ones, which are 128 bits of a 16-bit type.
template <class Op, bool kPlain>
__global__ void __launch_bounds__(kThreads, 7) update(const __grid_constant__ UpdateArgs p) {
  constexpr int kSpans = kPlain ? 2 : 1, kQuads = kPlain ? 1 : 2;
  const uint64_t block = p.backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  const uint64_t row = block / p.blocksPerRow;
  const uint64_t tile = block % p.blocksPerRow * kTile;
  const bool given = p.noise.given.data != nullptr;
  const auto typed = [](auto view) { return decltype(view){view.data, kPlain ? Dtype::Float32 : view.type}; };
  const ConstView sample = typed(p.sample), score = typed(p.score), noise = typed(p.noise.given);
  const View out = typed(p.out), mean = typed(p.mean);
  const Dtype drawn = kPlain ? Dtype::Float32 : p.noise.type;

  const uint64_t start = row * p.cols + tile, left = p.cols - tile;
  const uint32_t size = static_cast<uint32_t>(left < kTile ? left : kTile);  // of this block's part of the row
  uint32_t counts[kSpans];
  const auto place = [](int span) { return kPlain ? 4 * (threadIdx.x + span * kThreads) : 8 * threadIdx.x; };
  Bits<kQuads> x[kSpans], m[kSpans];
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    const uint32_t first = place(s);
    counts[s] = first < size ? (size - first < 4u * kQuads ? size - first : 4u * kQuads) : 0;
    if (Op::kSample) x[s] = load<kQuads>(sample, start + first, counts[s]);
    if (Op::kScore) m[s] = load<kQuads>(score, start + first, counts[s]);
  }
  float z[kSpans][4 * kQuads];
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    if (given) {
      const Bits<kQuads> bits = load<kQuads>(noise, start + place(s), counts[s]);
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i) z[s][i] = bits.value(noise.type, i);
    } else {
#pragma unroll
      for (uint32_t q = 0; q < kQuads; ++q)
        if (counts[s] > 4 * q)
          draw(z[s] + 4 * q, p.noise, drawn, row, start + place(s) + 4 * q, tile + place(s) + 4 * q);
    }
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (p.waits) cudaGridDependencySynchronize();
#endif
  const Op op(p, row);
  bool bad = false;
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    if (counts[s] == 0) continue;
    Bits<kQuads> result = {}, centre = {};
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) {
      float middle = 0.0f;
      const float xi = Op::kSample ? x[s].value(sample.type, i) : 0.0f;
      const float mi = Op::kScore ? m[s].value(score.type, i) : 0.0f;
      const float value = op(xi, mi, z[s][i], middle);
      bad |= static_cast<uint32_t>(i) < counts[s] && isBad(value);
      result.set(out.type, i, value);
      centre.set(mean.type, i, middle);
    }
    if (mean.data != nullptr) store<kQuads>(mean, start + place(s), counts[s], centre);
    store<kQuads>(out, start + place(s), counts[s], result);
  }
  if (bad && p.mark.first != nullptr) atomicMin(p.mark.first, p.mark.index);
}

}  // namespace score_sde::cuda
