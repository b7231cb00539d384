// The arguments of an update: its operands, and a record and a stream of normals for each row.
#pragma once

#include "cuda/kernels/batch.cuh"
#include "math/step_rule.hpp"

namespace score_sde::cuda {

/// Bytes of records and streams that travel with a launch; more of them lie in device memory.
inline constexpr size_t kFewBytes = 32 * (sizeof(RowStep) + sizeof(PhiloxStream));

/// Each row's record and stream: one for all rows, or one each. Where one stream serves the batch, every record tells
/// the phase of the batch's first element.
struct Rows {
  const RowStep* steps = nullptr;         // null: in `few`, from byte stepsAt on
  const PhiloxStream* streams = nullptr;  // null: in `few`, from its first byte on
  uint32_t stepsAt = 0;
  uint32_t stepBytes = 0, streamBytes = 0;  // from a row's to the next one's; 0: one for all rows
  alignas(8) unsigned char few[kFewBytes] = {};

  __device__ RowStep step(uint32_t row) const {
    return steps != nullptr ? *moved(steps, row * uint64_t{stepBytes}) : *fewStep(row);
  }
  /// step(row).b[term] for a term that the compiler does not know.
  __device__ float factor(uint32_t row, uint32_t term) const {
    return steps != nullptr ? moved(steps, row * uint64_t{stepBytes})->b[term] : fewStep(row)->b[term];
  }
  __device__ PhiloxStream stream(uint32_t row) const {
    if (streams != nullptr) return *moved(streams, row * uint64_t{streamBytes});
    return *reinterpret_cast<const PhiloxStream*>(few + row * streamBytes);
  }
  /// The element of its stream that a row's first one is.
  __device__ uint64_t origin(uint32_t row, uint64_t cols, uint32_t phase) const {
    return (streamBytes != 0 ? 0 : row * cols) + phase;
  }

 private:
  template <class T>
  __device__ static const T* moved(const T* p, uint64_t bytes) {
    return reinterpret_cast<const T*>(reinterpret_cast<const unsigned char*>(p) + bytes);
  }
  __device__ const RowStep* fewStep(uint32_t row) const {
    return reinterpret_cast<const RowStep*>(few + (stepsAt + row * stepBytes));
  }
};

/// Where correctors leave what they measure; the kernel `norms` fills it, and `update` reads the steps.
struct Measures {
  double *scoreSums = nullptr, *noiseSums = nullptr;   // of each row's groups
  float *scoreNorms = nullptr, *noiseNorms = nullptr;  // of each row
  float* steps = nullptr;                              // of each row
  uint32_t* tickets = nullptr;                         // of each row, then of each group; zero before and after
};

/// The arguments of every kernel of an update.
struct StepArgs {
  uint64_t rows = 0, cols = 0;   // as they are launched: rows that are joined are one
  uint64_t rowSize = 0;          // the elements of a row that has a mark of its own
  bool aligned = false;          // every row of every operand begins at a multiple of 16 bytes
  bool backwards = false;        // from the last row on: what the kernel before read last is still in the cache
  bool waits = false;            // for the kernel before, which is launched to overlap with this one
  Dtype drawn = Dtype::Float32;  // what a drawn normal is rounded to
  ConstView sample, output, history[kTerms - 1], base, given;
  View out, mean, pushed;  // mean and pushed: data null where they are not wanted
  FiniteMark mark;
  Measures measures;
  Rows rowsOf;
};
static_assert(sizeof(StepArgs) <= 4096, "a launch's parameters");

/// The row of a block of a grid that rowGrid() made; p.rows or more where the grid has more blocks than rows.
__device__ inline uint32_t blockRow() { return blockIdx.z * gridDim.y + blockIdx.y; }

/// Notes the rows of the elements from `at` on that are not finite. The words may lie in host memory, so they are read
/// and written here alone. A launch writes one index, and launches on one mark are in order, so that nothing is atomic.
template <int kQuads>
__device__ inline void noteBad(const StepArgs& p, uint64_t at, uint32_t count, Dtype type, const Bits<kQuads>& bits) {
  uint32_t bad = 0;
#pragma unroll
  for (int i = 0; i < 4 * kQuads; ++i)
    if (static_cast<uint32_t>(i) < count && bits.isBad(type, i)) bad |= 1u << i;
  for (; bad != 0; bad >>= 1, ++at)
    if ((bad & 1u) != 0) {
      volatile uint32_t* const word = p.mark.first + at / p.rowSize;
      if (*word > p.mark.index) *word = p.mark.index;
    }
}

/// Adjacent rows.
struct Run {
  uint32_t first, count;
};

/// The rows whose norms a row's step is a mean of, itself where it shares none. All threads of a warp call it.
__device__ inline Run groupOf(const StepArgs& p, uint32_t row, const RowStep& step) {
  const uint32_t rows = static_cast<uint32_t>(p.rows), t = threadIdx.x % 32;
  if (!sharesNorms(step)) return {row, 1};
  if (p.rowsOf.stepBytes == 0) return {0, rows};
  // 32 rows at a time are looked at; `run` of the next ones are of the group.
  const auto length = [&](bool within, uint32_t other) {
    bool mine = within;
    if (mine) {
      const RowStep there = p.rowsOf.step(other);
      mine = sharesNorms(there) && there.group == step.group;
    }
    uint32_t run = mine ? 32 : t;
    for (uint32_t mask = 16; mask > 0; mask /= 2) {
      const uint32_t shorter = __shfl_xor_sync(0xffffffffu, run, mask);
      run = shorter < run ? shorter : run;
    }
    return run;
  };
  uint32_t first = row, end = row + 1;
  for (uint32_t run = 32; run == 32; first -= run) run = length(t < first, first - 1 - t);
  for (uint32_t run = 32; run == 32; end += run) run = length(t < rows - end, end + t);
  return {first, end - first};
}

}  // namespace score_sde::cuda
