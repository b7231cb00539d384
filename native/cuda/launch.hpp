// Launch shapes: pure functions of a batch's shape and of what a device is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/params.hpp"
#include "math/sum_tree.hpp"

namespace score_sde::cuda {

struct Traits {
  int major = 0;           // of the compute capability
  int maxCooperative = 0;  // blocks of kWholeThreads that a cooperative launch may have; 0 where there are none
  int maxCluster = 0;      // blocks of a cluster of such; 0 where there are none
};

inline constexpr uint32_t kThreads = 128;               // of most kernels
inline constexpr uint32_t kUpdateThreads = 64;          // of an update, which has sixteen elements each
inline constexpr size_t kTile = 16 * kUpdateThreads;    // elements of a row that a block updates
inline constexpr size_t kConverted = 8 * kThreads;      // elements that a block converts
inline constexpr uint32_t kWarpGroups = kThreads / 32;  // groups of the sum tree that a block of `norms` sums
inline constexpr uint32_t kWholeThreads = 1024;
inline constexpr size_t kWholeGroups = kWholeThreads * 4 / kSumGroup;  // that a block of `correctWhole` holds
inline constexpr size_t kWholeRows = 512;
inline constexpr size_t kMaxBlocks = (size_t{1} << 31) - 1, kMaxRowBlocks = (size_t{1} << 16) - 1;  // along x; y or z

/// Blocks of a launch. Where they stand row by row, x counts those of a row, and y and z together the rows.
struct Grid {
  size_t x = 1, y = 1, z = 1;
  bool fits() const { return x <= kMaxBlocks && z <= kMaxRowBlocks; }
};

inline Grid rowGrid(size_t perRow, size_t rows) {
  const size_t z = (rows + kMaxRowBlocks - 1) / kMaxRowBlocks;
  return {perRow, (rows + z - 1) / z, z};
}

inline Grid updateGrid(Shape shape) { return rowGrid((shape.cols + kTile - 1) / kTile, shape.rows); }

inline Grid normGrid(Shape shape) {
  return rowGrid((sumGroups(shape.cols) + kWarpGroups - 1) / kWarpGroups, shape.rows);
}

/// How a batch of which every row measures norms is launched: at once where every element has a place in a register, so
/// that the blocks of a cluster, or of a cooperative grid, can wait for one another; else as norms and update.
struct CorrectPlan {
  enum class Kind : uint8_t { Cluster, Cooperative, Split };
  Kind kind = Kind::Split;
  uint32_t blocks = 0;
};

inline CorrectPlan correctPlan(Shape shape, const Traits& device) {
  using Kind = CorrectPlan::Kind;
  const size_t perRow = sumGroups(shape.cols);
  // The whole corrector folds a row's sums in one level of the tree.
  if (shape.size() == 0 || shape.rows > kWholeRows || perRow > kSumGroup) return {};
  const size_t blocks = (shape.rows * perRow + kWholeGroups - 1) / kWholeGroups;
  size_t cluster = 1;  // a power of two: what is left over waits with the others
  while (cluster < blocks) cluster *= 2;
  if (cluster <= static_cast<size_t>(std::max(device.maxCluster, 0)))
    return {Kind::Cluster, static_cast<uint32_t>(cluster)};
  if (blocks <= static_cast<size_t>(std::max(device.maxCooperative, 0)))
    return {Kind::Cooperative, static_cast<uint32_t>(blocks)};
  return {};
}

}  // namespace score_sde::cuda
