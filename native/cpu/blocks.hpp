// A batch's blocks on the pool's threads.
#pragma once

#include <algorithm>

#include "cpu/noise_source.hpp"
#include "cpu/torch_noise.hpp"

namespace score_sde::cpu {

inline constexpr size_t kGrain = 16;  // blocks to a piece of work: about 10 us

inline size_t blocksOf(Shape shape) { return shape.rows * sumGroups(shape.cols); }

/// visit(row, col, count, scratch) for every block of every row, on the pool.
template <class Visit>
void forBlocks(Shape shape, const Visit& visit) {
  const size_t perRow = sumGroups(shape.cols);
  const size_t blocks = blocksOf(shape);
  ThreadPool::instance().forRange(blocks, blocks <= kAlone ? kAlone : kGrain, [&](size_t begin, size_t end) {
    Scratch scratch;
    for (size_t b = begin; b < end; ++b) {
      const size_t col = b % perRow * kBlock;
      visit(b / perRow, col, std::min(kBlock, shape.cols - col), scratch);
    }
  });
}

/// visit(row, col, count, values) for the parts of rows in the flat range [at, at + count).
template <class Visit>
void forSegments(Shape shape, size_t at, size_t count, const float* values, const Visit& visit) {
  while (count > 0) {
    const size_t col = at % shape.cols, take = std::min({count, shape.cols - col, kBlock});
    visit(at / shape.cols, col, take, values);
    at += take;
    values += take;
    count -= take;
  }
}

/// visit(row, col, count, noise, scratch) with the normals of each part, wherever they come from: see NoiseSource for
/// `rows`. A serial stream is drawn into `into`, the batch's memory, where it is not null.
template <class Visit>
void forNoise(Shape shape, const Noise& noise, const std::vector<RowStep>* rows, const Visit& visit,
              float* into = nullptr) {
  if (noise.kind == Noise::Kind::Torch) {
    drawTorch(noise, shape, into, [&](size_t at, size_t count, const float* values) {
      Scratch scratch;
      forSegments(shape, at, count, values, [&](size_t row, size_t col, size_t n, const float* z) {
        visit(row, col, n, Normals{.values = z}, scratch);
      });
    });
    return;
  }
  const NoiseSource source(noise, shape, rows);
  forBlocks(shape, [&](size_t row, size_t col, size_t n, Scratch& scratch) {
    visit(row, col, n, source.normals(row, col, n, scratch), scratch);
  });
}

}  // namespace score_sde::cpu
