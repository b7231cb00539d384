#include "cuda/pool.hpp"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

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
  Block(std::shared_ptr<Pool> pool, Place&& place, size_t bytes)
      : Buffer(place.mapped(), bytes, pool->device_), pool_(std::move(pool)), place_(std::move(place)) {}
  ~Block() override { pool_->take(std::move(place_)); }

 private:
  const std::shared_ptr<Pool> pool_;
  Place place_;
};

Pool::~Pool() {
  const OnDevice here(device_);
  for (const auto& [size, data] : free_) cudaFree(data);
}

Status Pool::allocate(size_t bytes, std::shared_ptr<Buffer>& out) {
  const size_t size = blockSize(bytes);
  const std::lock_guard lock(mutex_);
  Place place;
  // The last of its size that was given back: the device's cache may still hold it.
  if (const auto next = free_.upper_bound(size); next != free_.begin() && std::prev(next)->first == size) {
    place = free_.extract(std::prev(next));
    usage_.kept -= size;
  } else {
    Free fresh;
    place = fresh.extract(fresh.emplace(size, nullptr));
    TRY_ON_DEVICE(device_);
    const Relaxed relaxed;
    TRY_STATUS(relaxed.status());
    cudaError_t error = cudaMalloc(&place.mapped(), size);
    if (error == cudaErrorMemoryAllocation && !free_.empty()) {
      cudaGetLastError();
      bool captured = false;
      TRY_STATUS(isCapturing(stream_, captured));
      // What is kept is given back once the stream has come to its end, which a captured one does not.
      if (!captured) {
        TRY_STATUS(releaseKept());
        error = cudaMalloc(&place.mapped(), size);
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
  out = std::make_shared<Block>(shared_from_this(), std::move(place), bytes);
  return {};
}

void Pool::take(Place&& place) {
  const std::lock_guard lock(mutex_);
  const size_t size = place.key();
  usage_.used -= size;
  usage_.kept += size;
  free_.insert(std::move(place));
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
