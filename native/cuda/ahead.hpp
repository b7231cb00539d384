// The sums of a corrector's noise, taken on a stream of their own while the network before the corrector still runs.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <vector>

#include "core/status.hpp"

namespace score_sde::cuda {

/// For the thread of an environment, whose current device is the stream's.
class NoiseAhead {
 public:
  NoiseAhead(int device, cudaStream_t work) : device_(device), work_(work) {}
  ~NoiseAhead();
  NoiseAhead(const NoiseAhead&) = delete;
  NoiseAhead& operator=(const NoiseAhead&) = delete;

  Status create();
  /// Whether `work` has something to do, so that time is won; false while it is captured.
  Status isWorthwhile(bool& out) const;
  /// Memory for `count` sums, and the stream on which they can be taken at once. Not while `work` is captured.
  Status begin(size_t count, double*& sums, cudaStream_t& stream);
  /// What is enqueued on `work` next comes after what was enqueued on that stream.
  Status join();
  /// What is enqueued on `work` by now was the last to use the sums.
  Status end();

 private:
  /// One is used while the next one is written.
  struct Half {
    double* sums = nullptr;
    size_t count = 0;
    cudaEvent_t taken = nullptr, used = nullptr;
    bool isOpen = false;  // begun, and not ended: an error came between
  };

  const int device_;
  const cudaStream_t work_;
  cudaStream_t stream_ = nullptr;
  std::array<Half, 2> halves_;
  size_t turn_ = 0;
  std::vector<double*> outgrown_;  // what is enqueued may still use them
};

}  // namespace score_sde::cuda
