// The normals of a batch, block by block.
#pragma once

#include "core/params.hpp"
#include "cpu/conversions.hpp"
#include "cpu/kernels.hpp"

namespace score_sde::cpu {

/// A view's block as float32: where it lies, or widened into `buffer`.
inline const float* readBlock(ConstView view, size_t at, size_t count, float* buffer) {
  if (view.type == Dtype::Float32) return static_cast<const float*>(view.data) + at;
  toFloat(buffer, static_cast<const uint16_t*>(view.data) + at, count, view.type);
  return buffer;
}

/// Where to compute a block of an output: in place, or in `buffer` until writeBlock narrows it.
inline float* blockTarget(View view, size_t at, float* buffer) {
  return view.type == Dtype::Float32 ? static_cast<float*>(view.data) + at : buffer;
}

/// Returns whether what was narrowed is finite.
inline bool writeBlock(View view, size_t at, size_t count, const float* block) {
  if (view.type == Dtype::Float32) return true;
  return fromFloat(static_cast<uint16_t*>(view.data) + at, block, count, view.type);
}

/// What a thread needs for one block: room for a counter's rest in front of it, and for 16-bit operands.
struct Scratch {
  alignas(64) float noise[kBlock + 4], sample[kBlock], score[kBlock], out[kBlock], mean[kBlock];
  alignas(64) float sum[kBlock], term[kBlock];  // of a linear update
};

/// Noise that any thread can read anywhere: given, or of counter-based streams.
class NoiseSource {
 public:
  /// With `rows`, one record for all of them or one each, these say where a row's normals come from.
  NoiseSource(const Noise& noise, Shape shape, const std::vector<RowStep>* rows = nullptr)
      : noise_(noise), shape_(shape), rows_(rows), perRow_(noise.philox.size() > 1) {}

  /// The `count` <= kBlock normals of row `row` from column `col` on, not drawn yet where that can be left to a kernel.
  Normals normals(size_t row, size_t col, size_t count, Scratch& scratch) const {
    const RowStep::Normals from = source(row);
    if (from == RowStep::Normals::None) return {.none = true};
    if (from == RowStep::Normals::Drawn && phase(row, col) == 0) return {.stream = at(row, col), .type = noise_.type};
    return {.values = values(row, col, count, scratch.noise, scratch)};
  }

  /// The same in memory, of a row that has some. What is not there is drawn into `buffer`, or into scratch where its
  /// bounds would not hold it.
  const float* values(size_t row, size_t col, size_t count, float* buffer, Scratch& scratch) const {
    if (source(row) == RowStep::Normals::Given)
      return readBlock(noise_.given, row * shape_.cols + col, count, scratch.noise);
    const size_t skip = phase(row, col);
    float* const drawn = skip == 0 ? buffer : scratch.noise;
    store(drawn, {.stream = at(row, col), .type = noise_.type}, skip + count);
    return drawn + skip;
  }

 private:
  RowStep::Normals source(size_t row) const {
    return rows_ == nullptr ? RowStep::Normals::Drawn : (*rows_)[rows_->size() == 1 ? 0 : row].normals;
  }
  /// Where an element stands in its stream. Rows with streams of their own may begin within a counter.
  uint64_t element(size_t row, size_t col) const {
    if (!perRow_ && shape_.rows > 1) return row * shape_.cols + col;
    return col + (rows_ == nullptr ? 0 : (*rows_)[rows_->size() == 1 ? 0 : row].phase);
  }
  /// How far into its counter a row's element lies.
  size_t phase(size_t row, size_t col) const { return element(row, col) % 4; }
  PhiloxStream at(size_t row, size_t col) const {
    const PhiloxStream stream = noise_.philox[perRow_ ? row : 0];
    return {stream.key, stream.counter + element(row, col) / 4};
  }

  const Noise& noise_;
  const Shape shape_;
  const std::vector<RowStep>* const rows_;
  const bool perRow_;
};

}  // namespace score_sde::cpu
