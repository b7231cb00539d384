#include "cuda/pool.hpp"

#include <algorithm>
#include <bit>
#include <iterator>
#include <new>
#include <unordered_set>
#include <utility>
#include <vector>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"

namespace score_sde::cuda {

size_t blockSize(size_t bytes) {
  constexpr size_t kLeast = 512;
  if (bytes <= kLeast) return kLeast;
  const size_t unit = std::max(std::bit_floor(bytes - 1) / 8, kLeast);
  return (bytes + unit - 1) / unit * unit;
}

namespace {

/// All pools of the process: each JS environment has its own on a device, and all of them share the device's memory.
struct Pools {
  std::mutex mutex;
  std::unordered_set<Pool*> all;
};
Pools& pools() {
  static auto* const all = new Pools();
  return *all;
}

}  // namespace

Status allocateOn(int device, size_t bytes, void*& out) {
  const Relaxed relaxed;
  TRY_STATUS(relaxed.status());
  cudaError_t error = cudaMalloc(&out, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    Pool::trimAll(device);
    error = cudaMalloc(&out, bytes);
  }
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return Status::error("ERR_MEMORY",
                         "no memory for " + std::to_string(bytes) + " bytes on cuda:" + std::to_string(device));
  }
  return checked(error, "cudaMalloc");
}

class Pool::Block final : public Buffer {
 public:
  Block(std::shared_ptr<Pool> pool, Place&& place, size_t bytes)
      : Buffer(place.mapped(), bytes, pool->streams_->device), pool_(std::move(pool)), place_(std::move(place)) {}
  ~Block() override { pool_->take(std::move(place_)); }

 private:
  const std::shared_ptr<Pool> pool_;
  Place place_;
};

Pool::Pool(std::shared_ptr<const Streams> streams) : streams_(std::move(streams)) {
  const std::lock_guard lock(pools().mutex);
  pools().all.insert(this);
}

Pool::~Pool() {
  {
    const std::lock_guard lock(pools().mutex);
    pools().all.erase(this);
  }
  const OnDevice here(streams_->device);
  const Relaxed relaxed;
  for (cudaEvent_t other : others_) {
    cudaEventSynchronize(other);
    cudaEventDestroy(other);
  }
  for (const auto& [size, data] : free_) cudaFree(data);
}

Status Pool::allocate(size_t bytes, std::shared_ptr<Buffer>& out) {
  const size_t size = blockSize(bytes);
  Place place;
  {
    const std::lock_guard lock(mutex_);
    TRY_STATUS(orderLocked());
    // The last of its size that was given back: the device's cache may still hold it. A captured stream takes no order
    // against what is outside of its capture, and so nothing that others may still use.
    if (const auto next = free_.upper_bound(size);
        others_.empty() && next != free_.begin() && std::prev(next)->first == size) {
      place = free_.extract(std::prev(next));
      usage_.kept -= size;
      usage_.used += size;
    }
  }
  if (place.empty()) {
    Free fresh;
    place = fresh.extract(fresh.emplace(size, nullptr));
    TRY_ON_DEVICE(streams_->device);
    // Without the lock, which trim() takes.
    TRY_STATUS(allocateOn(streams_->device, size, place.mapped()));
    const std::lock_guard lock(mutex_);
    usage_.used += size;
  }
  try {
    out = std::make_shared<Block>(shared_from_this(), std::move(place), bytes);
  } catch (const std::bad_alloc&) {
    take(std::move(place));
    return Status::error("ERR_MEMORY", "not enough memory");
  }
  return {};
}

Status Pool::reuseAfter(cudaStream_t other) {
  TRY_ON_DEVICE(streams_->device);
  const Relaxed relaxed;
  TRY_STATUS(relaxed.status());
  bool captured = false;
  TRY_STATUS(isCapturing(other, captured));
  if (captured) return {};  // its work is done when the graph is launched, which no order here foresees
  std::list<cudaEvent_t> made(1);
  TRY_CUDA(cudaEventCreateWithFlags, &made.front(), cudaEventDisableTiming);
  if (!checked(cudaEventRecord(made.front(), other), "cudaEventRecord").ok()) {
    cudaEventDestroy(made.front());
    // A stream of another device takes no event of this one: the host waits for it.
    TRY_CUDA(cudaStreamSynchronize, other);
    return {};
  }
  const std::lock_guard lock(mutex_);
  others_.splice(others_.end(), made);
  return {};
}

Status Pool::order() {
  const std::lock_guard lock(mutex_);
  return orderLocked();
}

Status Pool::orderLocked() {
  if (others_.empty()) return {};
  TRY_ON_DEVICE(streams_->device);
  bool captured = false;
  TRY_STATUS(isCapturing(streams_->work, captured));
  if (captured) return {};
  for (; !others_.empty(); others_.pop_front()) {
    TRY_CUDA(cudaStreamWaitEvent, streams_->work, others_.front(), 0);
    cudaEventDestroy(others_.front());
  }
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
  const std::lock_guard one(trimming_);
  TRY_ON_DEVICE(streams_->device);
  const Relaxed relaxed;
  TRY_STATUS(relaxed.status());
  bool captured = false;
  TRY_STATUS(isCapturing(streams_->work, captured));
  if (captured) return {};
  Free gone;
  size_t bytes = 0;
  {
    const std::lock_guard lock(mutex_);
    TRY_STATUS(orderLocked());
    gone.swap(free_);
    bytes = std::exchange(usage_.kept, 0);
  }
  if (gone.empty()) return {};
  // Without the lock: others give back meanwhile, and take.
  if (Status waited = checked(cudaStreamSynchronize(streams_->work), "cudaStreamSynchronize"); !waited.ok()) {
    const std::lock_guard lock(mutex_);
    free_.merge(gone);
    usage_.kept += bytes;
    return waited;
  }
  Status freed;
  for (const auto& [size, data] : gone)
    if (Status each = checked(cudaFree(data), "cudaFree"); !each.ok()) freed = std::move(each);
  return freed;
}

void Pool::trimAll(int device) {
  std::vector<std::shared_ptr<Pool>> found;  // whose last share may go with it, after the lock
  {
    const std::lock_guard lock(pools().mutex);
    found.reserve(pools().all.size());
    for (Pool* const pool : pools().all)
      if (pool->streams_->device == device) found.push_back(pool->weak_from_this().lock());
  }
  for (const auto& pool : found)
    if (pool != nullptr) pool->trim();
}

}  // namespace score_sde::cuda
