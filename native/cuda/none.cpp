#include "cuda/devices.hpp"

namespace score_sde::cuda {

Devices devices() { return {{}, "this build of score-sde has no CUDA in it"}; }

}  // namespace score_sde::cuda
