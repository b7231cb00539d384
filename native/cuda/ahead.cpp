#include "cuda/ahead.hpp"

#include <algorithm>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"
#include "cuda/pool.hpp"

namespace score_sde::cuda {

NoiseAhead::~NoiseAhead() {
  const OnDevice here(device_);
  const Relaxed relaxed;
  if (stream_ != nullptr) {
    cudaStreamSynchronize(stream_);
    cudaStreamDestroy(stream_);
  }
  for (const Half& half : halves_) {
    for (cudaEvent_t event : {half.taken, half.used})
      if (event != nullptr) cudaEventDestroy(event);
    if (half.sums != nullptr) cudaFree(half.sums);
  }
  for (double* const sums : outgrown_) cudaFree(sums);
}

Status NoiseAhead::create() {
  TRY_CUDA(cudaStreamCreateWithFlags, &stream_, cudaStreamNonBlocking);
  for (Half& half : halves_)
    for (cudaEvent_t* const event : {&half.taken, &half.used})
      TRY_CUDA(cudaEventCreateWithFlags, event, cudaEventDisableTiming);
  return {};
}

Status NoiseAhead::isWorthwhile(bool& out) const {
  out = false;
  bool captured = false;
  TRY_STATUS(isCapturing(work_, captured));
  if (captured) return {};
  const Relaxed relaxed;  // others' captures
  TRY_STATUS(relaxed.status());
  const cudaError_t state = cudaStreamQuery(work_);
  if (state != cudaErrorNotReady) return checked(state, "cudaStreamQuery");
  cudaGetLastError();
  out = true;
  return {};
}

Status NoiseAhead::begin(size_t count, double*& sums, cudaStream_t& stream) {
  Half& half = halves_[++turn_ % halves_.size()];
  if (half.isOpen) TRY_STATUS(end());
  if (count > half.count) {
    const size_t grown = std::max(count, 2 * half.count);
    void* memory = nullptr;
    TRY_STATUS(allocateOn(device_, grown * sizeof(double), memory));
    if (half.sums != nullptr) outgrown_.push_back(half.sums);
    half.sums = static_cast<double*>(memory);
    half.count = grown;
  }
  TRY_CUDA(cudaStreamWaitEvent, stream_, half.used, 0);
  half.isOpen = true;
  sums = half.sums;
  stream = stream_;
  return {};
}

Status NoiseAhead::join() {
  const Half& half = halves_[turn_ % halves_.size()];
  TRY_CUDA(cudaEventRecord, half.taken, stream_);
  TRY_CUDA(cudaStreamWaitEvent, work_, half.taken, 0);
  return {};
}

Status NoiseAhead::end() {
  Half& half = halves_[turn_ % halves_.size()];
  TRY_CUDA(cudaEventRecord, half.used, work_);
  half.isOpen = false;
  return {};
}

}  // namespace score_sde::cuda
