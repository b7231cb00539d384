// What only the driver's own interface tells, which is reached through the runtime's: nothing links against it.
#pragma once

#include <cuda_runtime.h>

namespace score_sde::cuda {

/// A function of the driver's, of CUDA 12.0 or older; nullptr where it does not give it.
template <class Function>
Function* driverFunction(const char* name) {
  Function* found = nullptr;
  const auto symbol = reinterpret_cast<void**>(&found);
  cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
  const cudaError_t error = cudaGetDriverEntryPointByVersion(name, symbol, 12000, 0, &result);
#else
  const cudaError_t error = cudaGetDriverEntryPoint(name, symbol, 0, &result);
#endif
  if (error == cudaSuccess) return found;
  cudaGetLastError();
  return nullptr;
}

/// Whether this process uses a device already. To make it a thread's, even again, would begin to: that takes memory
/// there.
inline bool isInUse(int device) {
  static auto* const state =
      driverFunction<int(int device, unsigned* flags, int* active)>("cuDevicePrimaryCtxGetState");
  unsigned flags = 0;
  int active = 0;
  return state == nullptr || state(device, &flags, &active) != 0 || active != 0;
}

}  // namespace score_sde::cuda
