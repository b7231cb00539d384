// The normals of a batch, block by block.
#pragma once

#include <algorithm>
#include <cstring>

#include "core/params.hpp"
#include "cpu/kernels.hpp"
#include "cpu/thread_pool.hpp"
#include "cpu/torch_stream.hpp"

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

inline void writeBlock(View view, size_t at, size_t count, const float* block) {
  if (view.type != Dtype::Float32) fromFloat(static_cast<uint16_t*>(view.data) + at, block, count, view.type);
}

/// What a thread needs for one block: room for the counters at both edges, and for 16-bit operands.
struct Scratch {
  alignas(64) float noise[kBlock + 8], sample[kBlock], score[kBlock], out[kBlock], mean[kBlock];
  uint16_t rounded[kBlock];
};

/// Noise that any thread can read anywhere: given, or of a counter-based stream.
class NoiseSource {
 public:
  NoiseSource(const Noise& noise, Shape shape) : noise_(noise), shape_(shape) {}

  /// The `count` <= kBlock normals of row `row` from column `col` on. Generated ones are written to `store` when it is
  /// not null, else they lie in scratch.
  const float* block(size_t row, size_t col, size_t count, Scratch& scratch, float* store = nullptr) const {
    if (noise_.kind == Noise::Kind::Given)
      return readBlock(noise_.given, row * shape_.cols + col, count, scratch.noise);
    const bool perRow = noise_.philox.size() > 1;
    const PhiloxStream stream = noise_.philox[perRow ? row : 0];
    const uint64_t element = (perRow ? 0 : row * shape_.cols) + col;
    const size_t phase = element % 4, counters = (phase + count + 3) / 4;
    const bool direct = store != nullptr && phase == 0 && count % 4 == 0;
    float* const values = direct ? store : scratch.noise;
    philoxNormals(values, counters, stream.counter + element / 4, stream.key);
    float* const first = values + phase;
    if (noise_.type != Dtype::Float32) {
      fromFloat(scratch.rounded, first, count, noise_.type);
      toFloat(first, scratch.rounded, count, noise_.type);
    }
    if (store == nullptr || direct) return first;
    std::memcpy(store, first, count * sizeof(float));
    return store;
  }

 private:
  const Noise& noise_;
  const Shape shape_;
};

/// Draws the torch streams of a batch in pieces: consume(at, count, values) over all of [0, size) of the batch, each
/// stream's part in order. Different streams run on different threads, one stream is serial by nature.
template <class Consume>
void drawTorch(const Noise& noise, Shape shape, const Consume& consume) {
  constexpr size_t kPiece = 8 * kBlock;  // what a second-level cache holds beside the operands
  const size_t streams = noise.torch.size(), each = shape.size() / streams;
  // A generator may stand in the list more than once; then its draws follow one another.
  auto sorted = noise.torch;
  std::sort(sorted.begin(), sorted.end());
  const bool distinct = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  ThreadPool::instance().forRange(streams, distinct ? 1 : streams, [&](size_t begin, size_t end) {
    alignas(64) float values[kPiece + TorchDraw::kTransform];
    for (size_t s = begin; s < end; ++s) {
      TorchDraw draw(*noise.torch[s], each, noise.type);
      for (size_t done = 0; done < each;) {
        const size_t count = draw.pieceOf(kPiece);
        draw.next(values, count);
        consume(s * each + done, count, values);
        done += count;
      }
    }
  });
}

}  // namespace score_sde::cpu
