#include "cuda/pool.hpp"

#include <algorithm>
#include <bit>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"

namespace score_sde::cuda {

size_t blockSize(size_t bytes) {
  constexpr size_t kLeast = 512;
  if (bytes <= kLeast) return kLeast;
  const size_t unit = std::max(std::bit_floor(bytes - 1) / 8, kLeast);
  return (bytes + unit - 1) / unit * unit;
}

class Pool::Block final : public Buffer {
 public:
  Block(std::shared_ptr<Pool> pool, void* data, size_t bytes, size_t size)
      : Buffer(data, bytes, pool->device_), pool_(std::move(pool)), size_(size) {}
  ~Block() override { pool_->take(data, size_); }

 private:
  const std::shared_ptr<Pool> pool_;
  const size_t size_;
};

Pool::~Pool() {
  const OnDevice here(device_);
  for (const auto& [size, data] : free_) cudaFree(data);
}

Status Pool::allocate(size_t bytes, std::shared_ptr<Buffer>& out) {
  const size_t size = blockSize(bytes);
  const std::lock_guard lock(mutex_);
  void* data = nullptr;
  if (const auto found = free_.find(size); found != free_.end()) {
    data = found->second;
    free_.erase(found);
    usage_.kept -= size;
  } else {
    TRY_ON_DEVICE(device_);
    const Relaxed relaxed;
    TRY_STATUS(relaxed.status());
    cudaError_t error = cudaMalloc(&data, size);
    if (error == cudaErrorMemoryAllocation && !free_.empty()) {
      cudaGetLastError();
      bool captured = false;
      TRY_STATUS(isCapturing(stream_, captured));
      // What is kept is given back once the stream has come to its end, which a captured one does not.
      if (!captured) {
        TRY_STATUS(releaseKept());
        error = cudaMalloc(&data, size);
      }
    }
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return Status::error("ERR_MEMORY",
                           "no memory for " + std::to_string(bytes) + " bytes on cuda:" + std::to_string(device_));
    }
    TRY_STATUS(checked(error, "cudaMalloc"));
  }
  usage_.used += size;
  out = std::make_shared<Block>(shared_from_this(), data, bytes, size);
  return {};
}

void Pool::take(void* data, size_t size) {
  const std::lock_guard lock(mutex_);
  free_.emplace(size, data);
  usage_.used -= size;
  usage_.kept += size;
}

Context::Usage Pool::usage() const {
  const std::lock_guard lock(mutex_);
  return usage_;
}

Status Pool::trim() {
  const std::lock_guard lock(mutex_);
  return releaseKept();
}

Status Pool::releaseKept() {
  TRY_ON_DEVICE(device_);
  TRY_CUDA(cudaStreamSynchronize, stream_);
  while (!free_.empty()) {
    const auto [size, data] = *free_.begin();
    free_.erase(free_.begin());
    usage_.kept -= size;
    TRY_CUDA(cudaFree, data);
  }
  return {};
}

}  // namespace score_sde::cuda
