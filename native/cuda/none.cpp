#include "cuda/device.hpp"
#include "cuda/devices.hpp"

namespace score_sde::cuda {

Devices devices() {
  return {{}, "this build of score-sde has no CUDA in it: npx score-sde build compiles one where nvcc is found"};
}

Status open(int, std::shared_ptr<Context>&) { return Status::error("ERR_CUDA_UNAVAILABLE", devices().unavailable); }

}  // namespace score_sde::cuda
