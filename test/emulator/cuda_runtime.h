// Enough of CUDA to run kernels on the host, for tests on machines without a GPU: native/cuda compiles as C++ with this
// folder first on the include path. A block is an OS thread, so __shared__ is thread_local; a CUDA thread is a fiber of
// it, switched only where it waits for others. Streams do their work at once. Launch with cudaLaunchKernelEx; every
// thread of a block must reach the block's barriers.
#pragma once

#include <set>

#include "emulator/faults.h"
#include "emulator/fibers.h"
#include "emulator/memory.h"
#include "emulator/streams.h"
#include "emulator/types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __launch_bounds__(...)
#define __grid_constant__
#define CUDART_VERSION 13000

inline void __syncthreads() { emulator::meetBlock(); }
inline void __syncwarp() {
  emulator::meet(emulator::block.warps[emulator::block.running->rank / 32], [] {});
}
inline void __threadfence() { emulator::fence(); }
inline void cudaGridDependencySynchronize() {}
inline void cudaTriggerProgrammaticLaunchCompletion() {}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stwb(T* p, T value) {
  *p = value;
}
template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulator::exchange(value, emulator::lane() ^ mask);
}
template <class T>
T atomicAdd(T* p, T value) {
  emulator::takeTicket();
  return std::atomic_ref<T>(*p).fetch_add(value);
}

// Two devices of few multiprocessors. EMULATED_COMPUTE, such as 8.0, sets what they are; EMULATED_DRIVER, such as 12040,
// of which CUDA the driver is, 0 being none; EMULATED_ALONE, that no cooperative launches are to be had.
inline cudaError_t cudaDriverGetVersion(int* version) {
  const char* text = std::getenv("EMULATED_DRIVER");
  return *version = text == nullptr ? CUDART_VERSION : std::atoi(text), cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  if (driver < CUDART_VERSION) return cudaErrorInsufficientDriver;
  return *count = emulator::kDevices, cudaSuccess;
}
namespace emulator {
constexpr int kMultiprocessors = 8;
inline bool isCooperative() { return std::getenv("EMULATED_ALONE") == nullptr; }
inline void readCompute(int& major, int& minor) {
  const char* text = std::getenv("EMULATED_COMPUTE");
  if (text != nullptr) std::sscanf(text, "%d.%d", &major, &minor);
}
}  // namespace emulator
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int) {
  EMULATED_CALL;
  *p = {"Emulated device", emulator::memoryLimit(), 9, 0, emulator::kMultiprocessors};
  emulator::readCompute(p->major, p->minor);
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  EMULATED_CALL;
  if (device < 0 || device >= emulator::kDevices) return cudaErrorInvalidDevice;
  return emulator::device = device, cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
  if (emulator::inCallback) return cudaErrorNotPermitted;
  return *device = emulator::device, cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return emulator::inCallback ? cudaErrorNotPermitted : cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  EMULATED_CALL;
  return *value = emulator::isCooperative(), cudaSuccess;
}
template <class F>
cudaError_t cudaFuncSetAttribute(F, cudaFuncAttribute, int) {
  EMULATED_CALL;
  return cudaSuccess;
}
namespace emulator {
/** The kernels that a device has loaded. */
struct Loaded {
  std::mutex mutex;
  std::set<std::pair<int, uintptr_t>> kernels;
};
inline Loaded& loaded() {
  static auto* const all = new Loaded();
  return *all;
}
}  // namespace emulator
template <class F>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, F kernel) {
  EMULATED_CALL;
  {
    const std::lock_guard lock(emulator::loaded().mutex);
    emulator::loaded().kernels.emplace(emulator::device, reinterpret_cast<uintptr_t>(kernel));
  }
  int major = 9, minor = 0;
  emulator::readCompute(major, minor);
  return a->ptxVersion = 10 * major + minor, cudaSuccess;
}
template <class F>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, F, int, size_t) {
  EMULATED_CALL;
  return *blocks = 1, cudaSuccess;
}

template <class F>
cudaError_t cudaOccupancyMaxPotentialClusterSize(int* blocks, F, const cudaLaunchConfig_t*) {
  EMULATED_CALL;
  return *blocks = 16, cudaSuccess;
}

/** Stricter than CUDA, which would load a kernel here that is not loaded, and might wait for the device. */
template <class... P, class... A>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(P...), A&&... args) {
  EMULATED_CALL;
  {
    const std::lock_guard lock(emulator::loaded().mutex);
    if (!emulator::loaded().kernels.contains({emulator::device, reinterpret_cast<uintptr_t>(kernel)}))
      return cudaErrorInvalidDeviceFunction;
  }
  bool together = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& a = config->attrs[i];
    if (a.id == cudaLaunchAttributeCooperative && a.val.cooperative != 0) {
      together = true;
      if (!emulator::isCooperative()) return cudaErrorNotSupported;
      if (config->gridDim.x > emulator::kMultiprocessors) return cudaErrorCooperativeLaunchTooLarge;
    }
    together |= a.id == cudaLaunchAttributeClusterDimension;  // of one cluster, which is all that this knows
    if (a.id == cudaLaunchAttributeClusterDimension && a.val.clusterDim.x != config->gridDim.x)
      return cudaErrorInvalidValue;
  }
  if (config->gridDim.y == 0 || config->gridDim.y > 65535 || config->gridDim.z == 0 || config->gridDim.z > 65535)
    return cudaErrorInvalidValue;
  if (config->gridDim.x == 0 || config->blockDim.x == 0 || config->blockDim.x > 1024) return cudaErrorInvalidValue;
  if (emulator::fault("kernel") != cudaSuccess) return cudaSuccess;
  std::tuple<std::decay_t<P>...> held(std::forward<A>(args)...);
  return emulator::enqueue(config->stream, [grid = config->gridDim, block = config->blockDim.x, together, kernel, held] {
    emulator::launch(grid, block, together, [&] { std::apply(kernel, held); });
  });
}
