// Counters by which the blocks of a launch find out which of them is the last.
#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "core/status.hpp"
#include "cuda/device.hpp"

namespace score_sde::cuda {

/// Zero between launches: the last block clears what it counted by.
class Tickets {
 public:
  explicit Tickets(int device) : device_(device) {}
  ~Tickets();
  Tickets(const Tickets&) = delete;
  Tickets& operator=(const Tickets&) = delete;

  /// So many of them, for launches of one stream. They are cleared at once and not in the order of the stream, which
  /// may be captured: a capture would clear them only when its graph is launched.
  Status take(size_t count, uint32_t*& out);

 private:
  const int device_;
  size_t count_ = 0;              // of the last one's
  std::vector<uint32_t*> grown_;  // the last one is in use; the others may stand in captured graphs
};

}  // namespace score_sde::cuda
