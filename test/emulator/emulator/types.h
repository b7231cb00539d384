// The runtime's types and codes, as far as they are used.
#pragma once

#include <cstddef>
#include <cstdint>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorInvalidDevice = 101,
  cudaErrorDeviceUninitialized = 201,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorNotReady = 600,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorCooperativeLaunchTooLarge = 720,
  cudaErrorNotPermitted = 800,
  cudaErrorNotSupported = 801,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
  cudaErrorStreamCaptureIsolation = 905,
  cudaErrorCapturedEvent = 907,
};
namespace emulator {
/** Whether the thread runs a callback of a stream, which may call nothing of CUDA. */
inline thread_local bool inCallback = false;

inline bool endsContext(cudaError_t e) { return e == cudaErrorIllegalAddress || e == cudaErrorLaunchFailure; }
}  // namespace emulator
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
enum cudaFuncAttribute { cudaFuncAttributeNonPortableClusterSizeAllowed };
enum cudaDeviceAttr { cudaDevAttrCooperativeLaunch };
enum cudaStreamCaptureMode {
  cudaStreamCaptureModeGlobal,
  cudaStreamCaptureModeThreadLocal,
  cudaStreamCaptureModeRelaxed,
};
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive };
enum { cudaStreamNonBlocking = 1, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2, cudaIpcMemLazyEnablePeerAccess = 1 };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
struct cudaFuncAttributes {
  int ptxVersion;
};
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
  void *devicePointer, *hostPointer;
};
struct cudaIpcMemHandle_t {
  char reserved[64];
};

inline const char* cudaGetErrorName(cudaError_t e) {
  if (emulator::inCallback) return "called by a callback";
  switch (e) {
#define EMULATED_NAME(name) \
  case name:                \
    return #name;
    EMULATED_NAME(cudaSuccess)
    EMULATED_NAME(cudaErrorInvalidValue)
    EMULATED_NAME(cudaErrorMemoryAllocation)
    EMULATED_NAME(cudaErrorInvalidConfiguration)
    EMULATED_NAME(cudaErrorInsufficientDriver)
    EMULATED_NAME(cudaErrorInvalidDeviceFunction)
    EMULATED_NAME(cudaErrorInvalidDevice)
    EMULATED_NAME(cudaErrorDeviceUninitialized)
    EMULATED_NAME(cudaErrorInvalidResourceHandle)
    EMULATED_NAME(cudaErrorNotReady)
    EMULATED_NAME(cudaErrorIllegalAddress)
    EMULATED_NAME(cudaErrorLaunchFailure)
    EMULATED_NAME(cudaErrorCooperativeLaunchTooLarge)
    EMULATED_NAME(cudaErrorNotPermitted)
    EMULATED_NAME(cudaErrorNotSupported)
    EMULATED_NAME(cudaErrorStreamCaptureUnsupported)
    EMULATED_NAME(cudaErrorStreamCaptureInvalidated)
    EMULATED_NAME(cudaErrorStreamCaptureIsolation)
    EMULATED_NAME(cudaErrorCapturedEvent)
#undef EMULATED_NAME
  }
  return "cudaErrorUnknown";
}
inline const char* cudaGetErrorString(cudaError_t) {
  return emulator::inCallback ? "called by a callback" : "emulated";
}
