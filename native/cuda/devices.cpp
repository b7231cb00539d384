#include "cuda/devices.hpp"

#include <cuda_runtime.h>

#include "cuda/check.hpp"

namespace score_sde::cuda {
namespace {

/// As "12.4" of 12040.
std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

Devices devices() {
  Devices found;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    int driver = 0;  // stays so where there is none, which the runtime reports as one that is too old
    if (error == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    found.unavailable = error != cudaErrorInsufficientDriver ? failure(error, "cudaGetDeviceCount").message
                        : driver == 0                        ? "there is no NVIDIA driver: install one to use a GPU"
                                      : "the NVIDIA driver is one of CUDA " + version(driver) + ", older than the " +
                                            version(CUDART_VERSION) + " that this build needs: update it";
    return found;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (const cudaError_t error = cudaGetDeviceProperties(&properties, i); error != cudaSuccess) {
      const Status failed = checked(error, "cudaGetDeviceProperties");
      found.list.push_back({"CUDA device", 0, 0, 0, failed.message});  // in its place: the others keep their numbers
      continue;
    }
    found.list.push_back({properties.name, properties.totalGlobalMem, properties.major, properties.minor, ""});
  }
  if (found.list.empty()) found.unavailable = "the driver reports no device: see nvidia-smi, and CUDA_VISIBLE_DEVICES";
  return found;
}

}  // namespace score_sde::cuda
