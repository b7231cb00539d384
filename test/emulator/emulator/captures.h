// Captures of streams, and what a thread may not call while they last: cudaStreamBeginCapture tells of it in CUDA's
// manual, among "potentially unsafe API calls".
#pragma once

#include <atomic>
#include <functional>
#include <vector>

#include "emulator/faults.h"

struct CUgraph_st {
  std::vector<std::function<void()>> nodes;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;  // of its capture
  uint64_t number = 0;                                        // of its capture, from 1 on
  bool isInvalid = false;
};

namespace emulator {

inline thread_local cudaStreamCaptureMode captureMode = cudaStreamCaptureModeGlobal;
/** Those that this thread began. The list outlives the thread's locals, since statics end after these. */
inline thread_local std::vector<CUgraph_st*>& captures = *new std::vector<CUgraph_st*>();
inline std::atomic<int> globalCaptures{0};

/** Whether an unsafe call is refused; it ends the thread's captures, too. */
inline bool refusesUnsafe() {
  if (captureMode == cudaStreamCaptureModeRelaxed) return false;
  bool refused = captureMode == cudaStreamCaptureModeGlobal && globalCaptures > 0;
  for (const CUgraph_st* capture : captures) refused |= capture->mode != cudaStreamCaptureModeRelaxed;
  for (CUgraph_st* capture : captures) capture->isInvalid |= refused;
  return refused;
}

}  // namespace emulator

/** First in every function that can fail, and that no thread may call while it captures. */
#define EMULATED_UNSAFE \
  EMULATED_CALL;        \
  if (emulator::refusesUnsafe()) return cudaErrorStreamCaptureUnsupported

inline cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  EMULATED_CALL;
  std::swap(*mode, emulator::captureMode);
  return cudaSuccess;
}
