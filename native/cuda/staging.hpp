// Host memory to and from a device through pieces of pinned memory, which are filled in turn.
#pragma once

#include <cuda_runtime.h>

#include <mutex>
#include <vector>

#include "core/status.hpp"

namespace score_sde::cuda {

/// For any thread.
class Staging {
 public:
  /// Of so many pieces, each of that size and allocated when its first turn comes. The host waits where none is free.
  Staging(int device, cudaStream_t stream, size_t pieces, size_t bytes)
      : device_(device), stream_(stream), bytes_(bytes), pieces_(pieces) {}
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  Status upload(void* to, const void* from, size_t bytes);
  Status download(void* to, const void* from, size_t bytes);

 private:
  struct Piece {
    void* data = nullptr;
    cudaEvent_t free = nullptr;
  };
  Status next(Piece*& out);
  Status enqueue(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Piece& piece);

  const int device_;
  const cudaStream_t stream_;
  const size_t bytes_;
  std::mutex mutex_;
  std::vector<Piece> pieces_;
  size_t turn_ = 0;
};

}  // namespace score_sde::cuda
