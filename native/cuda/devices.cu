#include <cuda_runtime.h>

#include "cuda/devices.hpp"

namespace score_sde::cuda {

Devices devices() {
  Devices found;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    // Without any driver the runtime reports one that is too old.
    found.unavailable = error == cudaErrorInsufficientDriver
                            ? "no NVIDIA driver, or one older than CUDA " + std::to_string(CUDART_VERSION / 1000)
                            : std::string(cudaGetErrorName(error)) + ": " + cudaGetErrorString(error);
    return found;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess) continue;
    found.list.push_back({properties.name, properties.totalGlobalMem, properties.major, properties.minor});
  }
  if (found.list.empty()) found.unavailable = "the driver reports no device";
  return found;
}

}  // namespace score_sde::cuda
