// One pass over a batch: each element from its operands and its normal, by a formula of math/ve.hpp. An update is a
// mean and, around it, a normal times a factor.
#pragma once

#include "cuda/kernels/rows.cuh"
#include "cuda/launch.hpp"

namespace score_sde::cuda {

/// Adjacent elements of a row that a thread updates together; with kWhole all of them are there and aligned, and the
/// first is a counter's first.
template <bool kIsWhole, int kSize>
struct Span {
  static constexpr bool kWhole = kIsWhole;
  static constexpr int kQuads = kSize, kEach = 4 * kSize;
  uint64_t at = 0;  // of the first in the batch
  uint32_t count = 0;
  __device__ Bits<kSize> load(ConstView view) const { return cuda::load<kSize, kIsWhole>(view, at, count); }
  __device__ void store(View view, const Bits<kSize>& bits) const {
    cuda::store<kSize, kIsWhole>(view, at, count, bits);
  }
};

/// Whether a linear row reads P, which is also what it pushes.
__device__ inline bool readsOutput(const StepArgs& p, const RowStep& step) {
  return step.terms > 0 && (step.b[0] != 0.0f || p.pushed.data != nullptr);
}

/// The normals themselves, times e.
struct Store {
  static constexpr bool kSample = false, kOutput = false, kLinear = false;
  static constexpr int kHistory = 0, kBlocks = 10;
  float factor;
  __device__ Store(const StepArgs&, const RowStep& step, uint32_t) : factor(step.e) {}
  __device__ static bool reads(const StepArgs&, const RowStep&) { return false; }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }
};

struct Predict {
  static constexpr bool kSample = true, kOutput = true, kLinear = false;
  static constexpr int kHistory = 0, kBlocks = 10;
  float factor, squared;
  __device__ Predict(const StepArgs&, const RowStep& step, uint32_t)
      : factor(diffusion(step.sigma, step.next)), squared(factor * factor) {}
  __device__ static bool reads(const StepArgs&, const RowStep&) { return true; }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }

  template <Types, class Part, class Bits>
  __device__ void mean(const StepArgs&, const Part&, const Bits*, const float* x, const float* score,
                       float* mean) const {
#pragma unroll
    for (int i = 0; i < Part::kEach; ++i) mean[i] = predictMean(x[i], score[i], squared);
  }
};

/// By the steps that `norms` left, or, with Ald, by one that depends on nothing measured.
struct Correct {
  static constexpr bool kSample = true, kOutput = true, kLinear = false;
  static constexpr int kHistory = 0, kBlocks = 10;
  float length, factor;
  __device__ Correct(const StepArgs& p, const RowStep& step, uint32_t row)
      : length(measuresScore(step) ? __ldcg(p.measures.steps + row) : correctorStep(step, 0.0f, 0.0f, p.output.type)),
        factor(noiseScale(length)) {}
  __device__ static bool reads(const StepArgs&, const RowStep&) { return true; }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }

  template <Types, class Part, class Bits>
  __device__ void mean(const StepArgs&, const Part&, const Bits*, const float* x, const float* score,
                       float* mean) const {
#pragma unroll
    for (int i = 0; i < Part::kEach; ++i) mean[i] = correctMean(x[i], score[i], length);
  }
};

/// Linear updates of up to kCount terms and without a base.
template <int kCount>
struct Linear {
  static constexpr bool kSample = true, kOutput = kCount > 0, kLinear = true;
  static constexpr int kHistory = kCount > 0 ? kCount - 1 : 0, kBlocks = kCount > 1 ? 8 : 10;
  float a, b[kCount > 0 ? kCount : 1], factor;
  __device__ Linear(const StepArgs&, const RowStep& step, uint32_t) : a(step.a), b{}, factor(step.e) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) b[k] = k < step.terms ? step.b[k] : 0.0f;
  }
  __device__ static bool reads(const StepArgs& p, const RowStep& step) { return readsOutput(p, step); }
  __device__ static bool readsHistory(const RowStep& step, int k) { return k < step.terms && step.b[k] != 0.0f; }

  template <Types kTypes, class Part, class Bits>
  __device__ void mean(const StepArgs& p, const Part&, const Bits* history, const float* x, const float* first,
                       float* mean) const {
#pragma unroll
    for (int i = 0; i < Part::kEach; ++i) mean[i] = linearStart(a, x[i]);
    if (kCount > 0 && b[0] != 0.0f)
#pragma unroll
      for (int i = 0; i < Part::kEach; ++i) mean[i] = linearTerm(mean[i], b[0], first[i]);
#pragma unroll
    for (int k = 1; k < kCount; ++k) {
      if (b[k] == 0.0f) continue;
      const Dtype type = typed<kTypes>(p.history[k - 1]).type;
#pragma unroll
      for (int i = 0; i < Part::kEach; ++i) mean[i] = linearTerm(mean[i], b[k], history[k - 1].value(type, i));
    }
  }
};

/// Whatever the row says. A block works within one row, so that all its threads take the same branch.
struct Any {
  static constexpr bool kSample = true, kOutput = true, kLinear = true;
  static constexpr int kHistory = 0, kBlocks = 10;
  RowStep::Kind kind;
  uint32_t row, terms;
  float a, b, base;  // a: the start's factor; b: that of P, or the corrector's step
  float factor;
  __device__ Any(const StepArgs& p, const RowStep& step, uint32_t row)
      : kind(step.kind), row(row), terms(step.terms), a(step.a), b(step.b[0]), base(step.base), factor(step.e) {
    if (kind == RowStep::Kind::Predict) {
      const Predict op(p, step, row);
      b = op.squared;
      factor = op.factor;
    } else if (kind == RowStep::Kind::Correct) {
      const Correct op(p, step, row);
      b = op.length;
      factor = op.factor;
    }
  }
  __device__ static bool reads(const StepArgs& p, const RowStep& step) {
    return step.kind != RowStep::Kind::Linear || readsOutput(p, step);
  }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }

  template <Types kTypes, class Part, class Bits>
  __device__ void mean(const StepArgs& p, const Part& span, const Bits*, const float* x, const float* first,
                       float* mean) const {
    constexpr int kEach = Part::kEach;
    const auto add = [&](ConstView view, float factor) {
      if (factor == 0.0f) return;
      const ConstView operand = typed<kTypes>(view);
      const Bits bits = span.load(operand);
#pragma unroll
      for (int i = 0; i < kEach; ++i) mean[i] = linearTerm(mean[i], factor, bits.value(operand.type, i));
    };
    if (kind == RowStep::Kind::Predict) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) mean[i] = predictMean(x[i], first[i], b);
    } else if (kind == RowStep::Kind::Correct) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) mean[i] = correctMean(x[i], first[i], b);
    } else {
#pragma unroll
      for (int i = 0; i < kEach; ++i) mean[i] = linearStart(a, x[i]);
      if (terms > 0 && b != 0.0f)
#pragma unroll
        for (int i = 0; i < kEach; ++i) mean[i] = linearTerm(mean[i], b, first[i]);
#pragma unroll 1
      for (uint32_t k = 1; k < terms; ++k) add(p.history[k - 1], p.rowsOf.factor(row, k));
      add(p.base, base);
    }
  }
};

/// The spans of a thread, from column `col` of a row on and a block's spans apart, so that a warp's accesses are dense.
/// All operands are read before anything is written, so that outputs may be the memory of operands.
template <class Op, Types kTypes, int kSpans, class Part>
__device__ inline void updateSpans(const StepArgs& p, const RowStep& record, uint64_t origin, uint32_t row,
                                   uint64_t col) {
  using Quads = Bits<Part::kQuads>;
  constexpr int kEach = Part::kEach, kHistory = Op::kHistory > 0 ? Op::kHistory : 1;
  const RowStep::Normals normals = record.normals;
  const ConstView sample = typed<kTypes>(p.sample), output = typed<kTypes>(p.output), given = typed<kTypes>(p.given);
  const View out = typed<kTypes>(p.out), centres = typed<kTypes>(p.mean), pushed = typed<kTypes>(p.pushed);
  const Dtype drawn = kTypes == Types::Float32 ? Dtype::Float32 : p.drawn;

  Part spans[kSpans];
  Quads x[kSpans], m[kSpans] = {}, history[kSpans][kHistory] = {};
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    const uint64_t first = col + s * kEach * kUpdateThreads, left = p.cols - first;
    spans[s] = {row * p.cols + first, static_cast<uint32_t>(Part::kWhole || left > kEach ? kEach : left)};
    if (Op::kSample) x[s] = spans[s].load(sample);
    if (Op::kOutput && Op::reads(p, record)) m[s] = spans[s].load(output);
#pragma unroll
    for (int k = 1; k <= Op::kHistory; ++k)
      if (Op::readsHistory(record, k)) history[s][k - 1] = spans[s].load(typed<kTypes>(p.history[k - 1]));
  }
  float z[kSpans][kEach];
  if (normals == RowStep::Normals::Given) {
#pragma unroll
    for (int s = 0; s < kSpans; ++s) {
      const Quads bits = spans[s].load(given);
#pragma unroll
      for (int i = 0; i < kEach; ++i) z[s][i] = bits.value(given.type, i);
    }
  } else if (normals == RowStep::Normals::Drawn) {
    const PhiloxStream stream = p.rowsOf.stream(row);
    const uint64_t element = origin + col;
#pragma unroll
    for (int s = 0; s < kSpans; ++s) {
#pragma unroll
      for (int q = 0; q < Part::kQuads; ++q)
        draw<Part::kWhole>(z[s] + 4 * q, stream, element + s * kEach * kUpdateThreads + 4 * q);
      if (drawn != Dtype::Float32) roundAll(drawn, z[s]);
    }
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (p.waits) cudaGridDependencySynchronize();
#endif
  // Read again: its numbers take no registers while the normals are drawn.
  const RowStep step = p.rowsOf.step(row);
  const Op op(p, step, row);
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    float values[kEach];
    if constexpr (!Op::kSample) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) values[i] = op.factor * z[s][i];
    } else {
      float score[kEach], mean[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        values[i] = x[s].value(sample.type, i);
        score[i] = Op::kOutput ? m[s].value(output.type, i) : 0.0f;
      }
      if (Op::kOutput && step.converts)
#pragma unroll
        for (int i = 0; i < kEach; ++i) score[i] = converted(values[i], score[i], step.px, step.pm);
      op.template mean<kTypes>(p, spans[s], history[s], values, score, mean);
      if (normals == RowStep::Normals::None) {
#pragma unroll
        for (int i = 0; i < kEach; ++i) values[i] = mean[i];
      } else {
#pragma unroll
        for (int i = 0; i < kEach; ++i) values[i] = linearTerm(mean[i], op.factor, z[s][i]);
      }
      if (centres.data != nullptr) {
        Quads bits = {};
        bits.setAll(centres.type, mean, anyBad(centres.type, mean, kEach));
        spans[s].store(centres, bits);
      }
      if (Op::kLinear && Op::kOutput && pushed.data != nullptr && step.kind == RowStep::Kind::Linear &&
          step.terms > 0) {
        const bool bad = anyBad(pushed.type, score, kEach);
        if (bad && !step.converts)  // a NaN that nothing was done to keeps its bits
#pragma unroll
          for (int i = 0; i < kEach; ++i) score[i] = m[s].exact(output.type, i);
        Quads bits = {};
        bits.setAll(pushed.type, score, bad);
        spans[s].store(pushed, bits);
      }
    }
    const bool bad = anyBad(out.type, values, kEach);
    Quads result = {};
    result.setAll(out.type, values, bad);
    spans[s].store(out, result);
    if (bad && p.mark.first != nullptr) noteBad(p, spans[s].at, spans[s].count, out.type, result);
  }
}

/// A thread has sixteen elements, which share some 120 to 180 instructions that are done once. Where a block's are
/// whole, they are four quads, or two pairs of adjacent quads where not all is float32, of which 128 bits are a pair of
/// a 16-bit type; else one quad after the other.
template <class Op, Types kTypes>
__global__ void __launch_bounds__(kUpdateThreads, Op::kBlocks) update(const __grid_constant__ StepArgs p) {
  if (blockRow() >= p.rows) return;
  const uint32_t row = p.backwards ? static_cast<uint32_t>(p.rows) - 1 - blockRow() : blockRow();
  const uint64_t tile = kTile * uint64_t{p.backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x};
  const RowStep record = p.rowsOf.step(row);
  const uint64_t origin = p.rowsOf.origin(row, p.cols, record.phase);
  if (p.aligned && p.cols - tile >= kTile && static_cast<uint32_t>(origin) % 4 == 0) {
    if constexpr (kTypes == Types::Float32)
      updateSpans<Op, kTypes, 4, Span<true, 1>>(p, record, origin, row, tile + 4 * threadIdx.x);
    else
      updateSpans<Op, kTypes, 2, Span<true, 2>>(p, record, origin, row, tile + 8 * threadIdx.x);
    return;
  }
#pragma unroll 1
  for (uint64_t col = tile + 4 * threadIdx.x; col < p.cols && col < tile + kTile; col += 4 * kUpdateThreads)
    updateSpans<Op, kTypes, 1, Span<false, 1>>(p, record, origin, row, col);
}

}  // namespace score_sde::cuda
