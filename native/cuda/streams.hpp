// The streams of a context, and words that their work tells the host.
#pragma once

#include <cuda_runtime.h>

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/status.hpp"

namespace score_sde::cuda {

/// Destroyed after everything that enqueues on them.
class Streams : public std::enable_shared_from_this<Streams> {
 public:
  explicit Streams(int device) : device(device) {}
  ~Streams();
  Streams(const Streams&) = delete;
  Streams& operator=(const Streams&) = delete;

  Status create();
  /// Words of pinned memory that `work` may write, UINT32_MAX at first. They are another's once all that was enqueued
  /// before their last share went is done: nobody waits for that.
  Status words(size_t count, std::shared_ptr<uint32_t>& given);

  const int device;
  // `out` copies what is complete to the host, and `told` calls it back, beside the work.
  cudaStream_t work = nullptr, out = nullptr, told = nullptr;
  cudaEvent_t before = nullptr, after = nullptr;

 private:
  struct Words {
    uint32_t* data = nullptr;
    size_t count = 0;
    cudaEvent_t free = nullptr;
  };
  Status next(size_t count, Words& found);
  void take(Words given);

  std::mutex mutex_;
  std::vector<Words> words_;                  // all of them
  std::map<size_t, std::deque<Words>> free_;  // by count, those that were given back, in the order of the stream
};

}  // namespace score_sde::cuda
