#include "cuda/streams.hpp"

#include "cuda/check.hpp"

namespace score_sde::cuda {

Streams::~Streams() {
  const OnDevice here(device);
  for (cudaStream_t stream : {work, out, told})
    if (stream != nullptr) cudaStreamDestroy(stream);
  for (cudaEvent_t event : {before, after})
    if (event != nullptr) cudaEventDestroy(event);
  for (const Word& word : words_) {
    if (word.free != nullptr) cudaEventDestroy(word.free);
    if (word.data != nullptr) cudaFreeHost(word.data);
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

Status Streams::word(std::shared_ptr<const uint32_t>& given) {
  Word found;
  TRY_STATUS(next(found));
  *found.data = UINT32_MAX;
  given = {found.data, [streams = shared_from_this(), found](const uint32_t*) { streams->take(found); }};
  return {};
}

Status Streams::next(Word& found) {
  const std::lock_guard lock(mutex_);
  TRY_ON_DEVICE(device);
  if (!free_.empty()) {
    const cudaError_t state = cudaEventQuery(free_.front().free);
    if (state != cudaErrorNotReady) {
      found = free_.front();
      free_.pop_front();  // whose event fails is not asked again
      return checked(state, "cudaEventQuery");
    }
    cudaGetLastError();
  }
  Word& made = words_.emplace_back();
  TRY_CUDA(cudaEventCreateWithFlags, &made.free, cudaEventDisableTiming);
  TRY_CUDA(cudaMallocHost, &made.data, sizeof *made.data);
  found = made;
  return {};
}

void Streams::take(Word given) {
  const std::lock_guard lock(mutex_);
  const OnDevice here(device);
  // Without the event nothing tells when it is free: then it stays unused to the end.
  if (checked(cudaEventRecord(given.free, work), "cudaEventRecord").ok()) free_.push_back(given);
}

}  // namespace score_sde::cuda
