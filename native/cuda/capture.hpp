// Calls while a stream is captured into a graph.
#pragma once

#include <cuda_runtime.h>

#include "cuda/check.hpp"

namespace score_sde::cuda {

inline Status isCapturing(cudaStream_t stream, bool& captured) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  TRY_CUDA(cudaStreamIsCapturing, stream, &status);
  captured = status != cudaStreamCaptureStatusNone;
  return {};
}

/// While it lives, the thread may allocate: CUDA refuses that else, and ends the capture, where this thread captures a
/// stream, or another one captures in the global mode.
class Relaxed {
 public:
  Relaxed() : error_(cudaThreadExchangeStreamCaptureMode(&mode_)) {}
  ~Relaxed() {
    if (error_ == cudaSuccess) cudaThreadExchangeStreamCaptureMode(&mode_);
  }
  Relaxed(const Relaxed&) = delete;
  Relaxed& operator=(const Relaxed&) = delete;
  Status status() const { return checked(error_, "cudaThreadExchangeStreamCaptureMode"); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // the thread's own, once it is exchanged
  const cudaError_t error_;
};

}  // namespace score_sde::cuda
