// Streams, events and graphs: work is done where it is enqueued, or recorded where the stream is captured. EMULATED_WAITS
// names a file, to which each wait for an event adds a line: the stream that waits, or "host", and the event's stream.
// EMULATED_LATE has callbacks come so many milliseconds later, on threads of their own. A stream that is asked has work to do, and none
// while EMULATED_IDLE is there. While EMULATED_CAPTURE is there, every stream says that it is captured.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "emulator/memory.h"

struct CUstream_st {
  CUgraph_st* capturing = nullptr;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
  CUstream_st* stream = nullptr;  // on which it was recorded last
  uint64_t capture = 0;           // the number of the capture that it was recorded in, or 0
};
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraph_st*;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
#define cudaStreamLegacy reinterpret_cast<cudaStream_t>(1)
using cudaStreamCallback_t = void (*)(cudaStream_t, cudaError_t, void*);

enum cudaLaunchAttributeID {
  cudaLaunchAttributeCooperative,
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeProgrammaticStreamSerialization,
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int cooperative, programmaticStreamSerializationAllowed;
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

namespace emulator {

/** The capture of a stream; null for the default streams, the small numbers, which none captures. */
inline CUgraph_st* captureOf(cudaStream_t stream) {
  return reinterpret_cast<uintptr_t>(stream) > 2 ? stream->capturing : nullptr;
}

inline void noteWait(const std::string& waiter, cudaEvent_t event) {
  const char* file = std::getenv("EMULATED_WAITS");
  std::FILE* const lines = file == nullptr ? nullptr : std::fopen(file, "a");
  if (lines == nullptr) return;
  std::fprintf(lines, "%s %zu\n", waiter.c_str(), reinterpret_cast<uintptr_t>(event->stream));
  std::fclose(lines);
}

template <class F>
cudaError_t enqueue(cudaStream_t stream, F work) {
  if (CUgraph_st* const capture = captureOf(stream); capture != nullptr)
    capture->nodes.push_back(work);
  else
    work();
  return cudaSuccess;
}

}  // namespace emulator

inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) {
  EMULATED_CALL;
  return *s = new CUstream_st, cudaSuccess;
}
inline cudaError_t cudaStreamDestroy(cudaStream_t s) {
  EMULATED_CALL;
  return delete s, cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  EMULATED_UNSAFE;
  CUgraph_st* const capture = emulator::captureOf(s);
  if (capture == nullptr) return cudaSuccess;
  return capture->isInvalid = true, cudaErrorStreamCaptureUnsupported;
}
inline cudaError_t cudaStreamQuery(cudaStream_t s) {
  EMULATED_UNSAFE;
  if (CUgraph_st* const capture = emulator::captureOf(s); capture != nullptr)
    return capture->isInvalid = true, cudaErrorStreamCaptureUnsupported;
  return std::getenv("EMULATED_IDLE") == nullptr ? cudaErrorNotReady : cudaSuccess;
}
inline cudaError_t cudaDeviceSynchronize() {
  EMULATED_UNSAFE;
  return cudaSuccess;
}
/**
 * A stream that is captured waits for what is of its capture alone. Stricter than CUDA for one that is not: it would join the
 * capture of the event.
 */
inline cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned = 0) {
  EMULATED_CALL;
  CUgraph_st* const capture = emulator::captureOf(s);
  if (capture != nullptr && capture->number != e->capture)
    return capture->isInvalid = true, cudaErrorStreamCaptureIsolation;
  if (capture == nullptr && e->capture != 0) return cudaErrorCapturedEvent;
  emulator::noteWait(std::to_string(reinterpret_cast<uintptr_t>(s)), e);
  return cudaSuccess;
}
inline cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t callback, void* data, unsigned) {
  EMULATED_CALL;
  const cudaError_t told = emulator::fault("callback");
  const auto call = [=] {
    emulator::inCallback = true;
    callback(s, told, data);
    emulator::inCallback = false;
  };
  const char* late = std::getenv("EMULATED_LATE");
  if (late == nullptr) return call(), cudaSuccess;
  std::thread([call, wait = std::chrono::milliseconds(std::atoi(late))] {
    std::this_thread::sleep_for(wait);
    call();
  }).detach();
  return cudaSuccess;
}
/** On a thread of its own, out of the stream's order: it may wait for the host, which here is the device, too. */
inline cudaError_t cudaLaunchHostFunc(cudaStream_t, void (*function)(void*), void* data) {
  EMULATED_CALL;
  std::thread([=] {
    emulator::inCallback = true;
    function(data);
  }).detach();
  return cudaSuccess;
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned) {
  EMULATED_CALL;
  return *e = new CUevent_st, cudaSuccess;
}
inline cudaError_t cudaEventCreate(cudaEvent_t* e) { return cudaEventCreateWithFlags(e, 0); }
inline cudaError_t cudaEventDestroy(cudaEvent_t e) {
  EMULATED_CALL;
  return delete e, cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  EMULATED_CALL;
  const CUgraph_st* const capture = emulator::captureOf(s);
  *e = {std::chrono::steady_clock::now(), s, capture == nullptr ? 0 : capture->number};
  return cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  EMULATED_UNSAFE;
  if (e->capture != 0) return cudaErrorCapturedEvent;
  emulator::noteWait("host", e);
  return cudaSuccess;
}
inline cudaError_t cudaEventQuery(cudaEvent_t) {
  EMULATED_UNSAFE;
  return cudaSuccess;
}
inline cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
  EMULATED_CALL;
  return *ms = std::chrono::duration<float, std::milli>(b->time - a->time).count(), cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t s) {
  EMULATED_CALL;
  return emulator::enqueue(s, [=] { std::memcpy(to, from, bytes); });
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t s) {
  EMULATED_CALL;
  return emulator::enqueue(s, [=] { std::memset(to, value, bytes); });
}

inline cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode) {
  EMULATED_CALL;
  static std::atomic<uint64_t> last{0};
  s->capturing = new CUgraph_st{{}, mode, ++last};
  emulator::captures.push_back(s->capturing);
  emulator::globalCaptures += mode == cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  EMULATED_CALL;
  const bool captured = emulator::captureOf(s) != nullptr || std::getenv("EMULATED_CAPTURE") != nullptr;
  return *status = captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone, cudaSuccess;
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t* g) {
  EMULATED_CALL;
  *g = std::exchange(s->capturing, nullptr);
  std::erase(emulator::captures, *g);
  emulator::globalCaptures -= (*g)->mode == cudaStreamCaptureModeGlobal;
  if (!(*g)->isInvalid) return cudaSuccess;
  delete std::exchange(*g, nullptr);
  return cudaErrorStreamCaptureInvalidated;
}
inline cudaError_t cudaGraphGetNodes(cudaGraph_t g, void*, size_t* count) { return *count = g->nodes.size(), cudaSuccess; }
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* e, cudaGraph_t g, unsigned long long = 0) {
  EMULATED_CALL;
  return *e = new CUgraph_st(*g), cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t) {
  EMULATED_CALL;
  for (const auto& node : e->nodes) node();
  return cudaSuccess;
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g) { return delete g, cudaSuccess; }
