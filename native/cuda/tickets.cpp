#include "cuda/tickets.hpp"

#include <algorithm>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"
#include "cuda/pool.hpp"

namespace score_sde::cuda {
namespace {

/// Clears memory that nothing uses yet, on a stream that nobody captures.
Status clear(void* memory, size_t bytes) {
  cudaStream_t stream = nullptr;
  // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): a creation that fails makes no stream
  TRY_CUDA(cudaStreamCreateWithFlags, &stream, cudaStreamNonBlocking);
  Status done = checked(cudaMemsetAsync(memory, 0, bytes, stream), "cudaMemsetAsync");
  if (done.ok()) done = checked(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  const Status gone = checked(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return done.ok() ? gone : done;
}

}  // namespace

Tickets::~Tickets() {
  const OnDevice here(device_);
  const Relaxed relaxed;
  for (uint32_t* const memory : grown_) cudaFree(memory);
}

Status Tickets::take(size_t count, uint32_t*& out) {
  if (count > count_) {
    const Relaxed relaxed;
    TRY_STATUS(relaxed.status());
    const size_t grown = std::max({count, 2 * count_, size_t{1024}});
    void* taken = nullptr;
    TRY_STATUS(allocateOn(device_, grown * sizeof(uint32_t), taken));
    auto* const memory = static_cast<uint32_t*>(taken);
    if (Status cleared = clear(memory, grown * sizeof *memory); !cleared.ok()) {
      cudaFree(memory);
      return cleared;
    }
    grown_.push_back(memory);
    count_ = grown;
  }
  out = grown_.back();
  return {};
}

}  // namespace score_sde::cuda
