#pragma once
#include <cuda_runtime.h>

namespace cooperative_groups {

/** All blocks of a cooperative launch, or of a cluster where the grid is one cluster. */
struct grid_group {
  void sync() const { emulator::meetGrid(); }
};
using cluster_group = grid_group;
inline grid_group this_grid() { return {}; }
inline cluster_group this_cluster() { return {}; }

}  // namespace cooperative_groups
