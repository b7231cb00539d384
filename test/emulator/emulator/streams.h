// Streams, events and graphs: work is done where it is enqueued, or recorded where the stream is captured.
#pragma once

#include <chrono>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

#include "emulator/memory.h"

struct CUstream_st {
  CUgraph_st* capturing = nullptr;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
};
using cudaGraph_t = CUgraph_st*;
using cudaGraphExec_t = CUgraph_st*;
using cudaStream_t = CUstream_st*;
using cudaEvent_t = CUevent_st*;
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

template <class F>
cudaError_t enqueue(cudaStream_t stream, F work) {
  if (stream != nullptr && stream->capturing != nullptr)
    stream->capturing->nodes.push_back(work);
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
  if (s == nullptr || s->capturing == nullptr) return cudaSuccess;
  return s->capturing->isInvalid = true, cudaErrorStreamCaptureUnsupported;
}
inline cudaError_t cudaDeviceSynchronize() {
  EMULATED_UNSAFE;
  return cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) {
  EMULATED_CALL;
  return cudaSuccess;
}
inline cudaError_t cudaStreamAddCallback(cudaStream_t s, cudaStreamCallback_t callback, void* data, unsigned) {
  EMULATED_CALL;
  const cudaError_t told = emulator::fault("callback");
  emulator::inCallback = true;
  callback(s, told, data);
  emulator::inCallback = false;
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
inline cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t) {
  EMULATED_CALL;
  return e->time = std::chrono::steady_clock::now(), cudaSuccess;
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  EMULATED_UNSAFE;
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
  s->capturing = new CUgraph_st{{}, mode};
  emulator::captures.push_back(s->capturing);
  emulator::globalCaptures += mode == cudaStreamCaptureModeGlobal;
  return cudaSuccess;
}
inline cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus* status) {
  EMULATED_CALL;
  return *status = s->capturing != nullptr ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone, cudaSuccess;
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
