// One pass over a batch: each element from its operands and its normal, by a formula of math/ve.hpp. An update is a
// mean and, around it, a normal times a factor.
#pragma once

#include "cuda/kernels/rows.cuh"
#include "cuda/launch.hpp"

namespace score_sde::cuda {

/// Adjacent elements of a row that a thread updates together.
struct Span {
  uint64_t at = 0;  // of the first in the batch
  uint32_t count = 0;
};

/// Whether a linear row reads P, which is also what it pushes.
__device__ inline bool readsOutput(const StepArgs& p, const RowStep& step) {
  return step.terms > 0 && (step.b[0] != 0.0f || p.pushed.data != nullptr);
}

/// The normals themselves, times e.
struct Store {
  static constexpr bool kSample = false, kOutput = false;
  static constexpr int kHistory = 0, kBlocks = 7;
  float factor;
  __device__ Store(const StepArgs&, const RowStep& step, uint32_t) : factor(step.e) {}
  __device__ static bool reads(const StepArgs&, const RowStep&) { return false; }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }
};

struct Predict {
  static constexpr bool kSample = true, kOutput = true;
  static constexpr int kHistory = 0, kBlocks = 7;
  float factor, squared;
  __device__ Predict(const StepArgs&, const RowStep& step, uint32_t)
      : factor(diffusion(step.sigma, step.next)), squared(factor * factor) {}
  __device__ static bool reads(const StepArgs&, const RowStep&) { return true; }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }

  template <Types, int kQuads>
  __device__ void mean(const StepArgs&, const Span&, const Bits<kQuads>*, const float* x, const float* score,
                       float* mean) const {
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) mean[i] = predictMean(x[i], score[i], squared);
  }
};

/// By the steps that `norms` left, or, with Ald, by one that depends on nothing measured.
struct Correct {
  static constexpr bool kSample = true, kOutput = true;
  static constexpr int kHistory = 0, kBlocks = 7;
  float length, factor;
  __device__ Correct(const StepArgs& p, const RowStep& step, uint32_t row)
      : length(measuresScore(step) ? __ldcg(p.measures.steps + row) : correctorStep(step, 0.0f, 0.0f, p.output.type)),
        factor(noiseScale(length)) {}
  __device__ static bool reads(const StepArgs&, const RowStep&) { return true; }
  __device__ static bool readsHistory(const RowStep&, int) { return false; }

  template <Types, int kQuads>
  __device__ void mean(const StepArgs&, const Span&, const Bits<kQuads>*, const float* x, const float* score,
                       float* mean) const {
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) mean[i] = correctMean(x[i], score[i], length);
  }
};

/// Linear updates of up to kCount terms and without a base.
template <int kCount>
struct Linear {
  static constexpr bool kSample = true, kOutput = kCount > 0;
  static constexpr int kHistory = kCount > 0 ? kCount - 1 : 0, kBlocks = kCount > 2 ? 5 : kCount > 1 ? 6 : 7;
  float a, b[kCount > 0 ? kCount : 1], factor;
  __device__ Linear(const StepArgs&, const RowStep& step, uint32_t) : a(step.a), b{}, factor(step.e) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) b[k] = k < step.terms ? step.b[k] : 0.0f;
  }
  __device__ static bool reads(const StepArgs& p, const RowStep& step) { return readsOutput(p, step); }
  __device__ static bool readsHistory(const RowStep& step, int k) { return k < step.terms && step.b[k] != 0.0f; }

  template <Types kTypes, int kQuads>
  __device__ void mean(const StepArgs& p, const Span&, const Bits<kQuads>* history, const float* x, const float* first,
                       float* mean) const {
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) mean[i] = linearStart(a, x[i]);
    if (kCount > 0 && b[0] != 0.0f)
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i) mean[i] = linearTerm(mean[i], b[0], first[i]);
#pragma unroll
    for (int k = 1; k < kCount; ++k) {
      if (b[k] == 0.0f) continue;
      const Dtype type = typed<kTypes>(p.history[k - 1]).type;
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i) mean[i] = linearTerm(mean[i], b[k], history[k - 1].value(type, i));
    }
  }
};

/// Whatever the row says. A block works within one row, so that all its threads take the same branch.
struct Any {
  static constexpr bool kSample = true, kOutput = true;
  static constexpr int kHistory = 0, kBlocks = 7;
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

  template <Types kTypes, int kQuads>
  __device__ void mean(const StepArgs& p, const Span& span, const Bits<kQuads>*, const float* x, const float* first,
                       float* mean) const {
    constexpr int kEach = 4 * kQuads;
    const auto add = [&](ConstView view, float factor) {
      if (factor == 0.0f) return;
      const ConstView operand = typed<kTypes>(view);
      const Bits<kQuads> bits = load<kQuads>(operand, span.at, span.count);
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

/// A thread has eight elements: two quads a block apart where all is float32, so that a warp's accesses are dense, else
/// two adjacent ones, which are 128 bits of a 16-bit type. It reads all its operands before it writes, so that outputs
/// may be the memory of operands.
template <class Op, Types kTypes>
__global__ void __launch_bounds__(kThreads, Op::kBlocks) update(const __grid_constant__ StepArgs p) {
  constexpr bool kPlain = kTypes == Types::Float32;
  constexpr int kSpans = kPlain ? 2 : 1, kQuads = kPlain ? 1 : 2, kEach = 4 * kQuads;
  constexpr int kHistory = Op::kHistory > 0 ? Op::kHistory : 1;
  const uint32_t block = p.backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
  const uint32_t row = block / p.blocksPerRow;
  const uint64_t tile = static_cast<uint64_t>(block % p.blocksPerRow) * kTile;
  const RowStep record = p.rowsOf.step(row);
  const RowStep::Normals normals = record.normals;
  const ConstView sample = typed<kTypes>(p.sample), output = typed<kTypes>(p.output), given = typed<kTypes>(p.given);
  const View out = typed<kTypes>(p.out), centres = typed<kTypes>(p.mean), pushed = typed<kTypes>(p.pushed);
  const Dtype drawn = kPlain ? Dtype::Float32 : p.drawn;

  const uint64_t left = p.cols - tile;
  const uint32_t size = static_cast<uint32_t>(left < kTile ? left : kTile);  // of this block's part of the row
  const auto place = [](int span) { return kPlain ? 4 * (threadIdx.x + span * kThreads) : 8 * threadIdx.x; };
  Span spans[kSpans];
  Bits<kQuads> x[kSpans], m[kSpans], history[kSpans][kHistory] = {};
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    const uint32_t first = place(s);
    const uint32_t count = first < size ? (size - first < kEach ? size - first : kEach) : 0;
    spans[s] = {row * p.cols + tile + first, count};
    if (Op::kSample) x[s] = load<kQuads>(sample, spans[s].at, count);
    if (Op::kOutput) m[s] = load<kQuads>(output, spans[s].at, Op::reads(p, record) ? count : 0);
#pragma unroll
    for (int k = 1; k <= Op::kHistory; ++k)
      history[s][k - 1] =
          load<kQuads>(typed<kTypes>(p.history[k - 1]), spans[s].at, Op::readsHistory(record, k) ? count : 0);
  }
  float z[kSpans][kEach];
#pragma unroll
  for (int s = 0; s < kSpans; ++s) {
    if (normals == RowStep::Normals::Given) {
      const Bits<kQuads> bits = load<kQuads>(given, spans[s].at, spans[s].count);
#pragma unroll
      for (int i = 0; i < kEach; ++i) z[s][i] = bits.value(given.type, i);
    } else if (normals == RowStep::Normals::Drawn) {
#pragma unroll
      for (uint32_t q = 0; q < kQuads; ++q)
        if (spans[s].count > 4 * q)
          draw(z[s] + 4 * q, p.rowsOf, drawn, row, spans[s].at + 4 * q, tile + place(s) + 4 * q);
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
    if (spans[s].count == 0) continue;
    Bits<kQuads> result = {};
    bool bad = false;
    if constexpr (!Op::kSample) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) result.set(out.type, i, op.factor * z[s][i]);
    } else {
      float values[kEach], score[kEach], mean[kEach];
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        values[i] = x[s].value(sample.type, i);
        score[i] = Op::kOutput ? m[s].value(output.type, i) : 0.0f;
      }
      if (Op::kOutput && step.converts)
#pragma unroll
        for (int i = 0; i < kEach; ++i) score[i] = converted(values[i], score[i], step.px, step.pm);
      op.template mean<kTypes>(p, spans[s], history[s], values, score, mean);
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const bool noisy = normals != RowStep::Normals::None;
        const float value = noisy ? linearTerm(mean[i], op.factor, z[s][i]) : mean[i];
        result.set(out.type, i, value);
        bad |= static_cast<uint32_t>(i) < spans[s].count && result.isBad(out.type, i);
      }
      const auto keep = [&](View view, const float* values) {
        Bits<kQuads> bits = {};
#pragma unroll
        for (int i = 0; i < kEach; ++i) bits.set(view.type, i, values[i]);
        store<kQuads>(view, spans[s].at, spans[s].count, bits);
      };
      if (centres.data != nullptr) keep(centres, mean);
      if (Op::kOutput && pushed.data != nullptr && step.kind == RowStep::Kind::Linear && step.terms > 0)
        keep(pushed, score);
    }
    store<kQuads>(out, spans[s].at, spans[s].count, result);
    if (bad && p.mark.first != nullptr) noteBad<kQuads>(p, spans[s].at, spans[s].count, out.type, result);
  }
}

}  // namespace score_sde::cuda
