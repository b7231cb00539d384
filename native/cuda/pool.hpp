// Device memory in the order of a stream, behind plain cudaMalloc: what is given back is used again by what the stream
// does next, without waiting for anything.
#pragma once

#include <cuda_runtime.h>

#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "cuda/device.hpp"
#include "cuda/streams.hpp"

namespace score_sde::cuda {

/// Allocates on the thread of its environment, takes blocks back on any. Lives as long as its blocks.
class Pool : public std::enable_shared_from_this<Pool> {
 public:
  explicit Pool(std::shared_ptr<const Streams> streams);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  Status allocate(size_t bytes, std::shared_ptr<Buffer>& out);
  /// What is given back from now on is used again after what is on `other` now. On any thread. It only records an
  /// event: whether the pool's stream is captured is known to the thread of its environment alone.
  Status reuseAfter(cudaStream_t other);
  /// Has the stream wait for the events of reuseAfter(), unless it is captured. allocate() does so, too.
  Status order();
  /// Gives back to the device what nobody uses; waits for it. Memory of a stream that is captured stays, since such a
  /// stream does not come to its end.
  Status trim();
  /// As trim(), of every pool of the process on a device. Memory of a pool that fails stays.
  static void trimAll(int device);
  Context::Usage usage() const;

 private:
  class Block;
  using Free = std::multimap<size_t, void*>;
  /// The place of a block in `free_`. The block keeps it while it is used, so that giving back allocates nothing.
  using Place = Free::node_type;
  void take(Place&& place);
  Status orderLocked();

  const std::shared_ptr<const Streams> streams_;
  std::mutex trimming_;  // taken before `mutex_`: who finds memory short waits for what another gives back already
  mutable std::mutex mutex_;
  Free free_;
  std::list<cudaEvent_t> others_;  // of reuseAfter(), for which the stream does not wait yet
  Context::Usage usage_;
};

/// cudaMalloc on the current device, `device`, also while a stream is captured. Where memory is short, all pools give
/// back what they keep, and it is tried again. ERR_MEMORY.
Status allocateOn(int device, size_t bytes, void*& out);

/// The size that is asked of the device for a request: with three significant bits, so that what one tensor gives back
/// fits the next that is a little smaller.
size_t blockSize(size_t bytes);

}  // namespace score_sde::cuda
