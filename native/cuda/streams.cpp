#include "cuda/streams.hpp"

#include <algorithm>
#include <bit>
#include <new>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"

namespace score_sde::cuda {

Streams::~Streams() {
  const OnDevice here(device);
  const Relaxed relaxed;
  for (cudaStream_t stream : {work, out, told})
    if (stream != nullptr) cudaStreamDestroy(stream);
  for (cudaEvent_t event : {before, after})
    if (event != nullptr) cudaEventDestroy(event);
  for (const Words& words : words_) {
    if (words.free != nullptr) cudaEventDestroy(words.free);
    if (words.data != nullptr) cudaFreeHost(words.data);
  }
}

Status Streams::create() {
  TRY_ON_DEVICE(device);
  TRY_CUDA(cudaStreamCreateWithFlags, &work, cudaStreamNonBlocking);
  TRY_CUDA(cudaStreamCreateWithFlags, &out, cudaStreamNonBlocking);
  TRY_CUDA(cudaStreamCreateWithFlags, &told, cudaStreamNonBlocking);
  TRY_CUDA(cudaEventCreateWithFlags, &before, cudaEventDisableTiming);
  TRY_CUDA(cudaEventCreateWithFlags, &after, cudaEventDisableTiming);
  return {};
}

Status Streams::words(size_t count, std::shared_ptr<uint32_t>& given) {
  Words found;
  TRY_STATUS(next(count, found));
  std::fill_n(found.data, found.count, UINT32_MAX);
  given = {found.data, [streams = shared_from_this(), found](uint32_t*) { streams->take(found); }};
  return {};
}

Status Streams::next(size_t count, Words& found) {
  const size_t size = std::bit_ceil(std::max(count, size_t{16}));
  const std::lock_guard lock(mutex_);
  TRY_ON_DEVICE(device);
  const Relaxed relaxed;
  TRY_STATUS(relaxed.status());
  if (std::deque<Words>& free = free_[size]; !free.empty()) {
    const cudaError_t state = cudaEventQuery(free.front().free);
    if (state != cudaErrorNotReady) {
      found = free.front();
      free.pop_front();  // whose event fails is not asked again
      return checked(state, "cudaEventQuery");
    }
    cudaGetLastError();
  }
  Words& made = words_.emplace_back();
  made.count = size;
  TRY_CUDA(cudaEventCreateWithFlags, &made.free, cudaEventDisableTiming);
  TRY_CUDA(cudaMallocHost, &made.data, size * sizeof *made.data);
  found = made;
  return {};
}

void Streams::take(Words given) {
  const std::lock_guard lock(mutex_);
  const OnDevice here(device);
  // Without the event, or memory to note them, nothing tells when they are free: then they stay unused to the end, as
  // do those that a graph may write.
  bool captured = false;
  if (!isCapturing(work, captured).ok() || captured) return;
  try {
    if (checked(cudaEventRecord(given.free, work), "cudaEventRecord").ok()) free_[given.count].push_back(given);
  } catch (const std::bad_alloc&) {
    // From a deleter nothing may be thrown.
  }
}

}  // namespace score_sde::cuda
