#pragma once

#include "core/params.hpp"
#include "core/status.hpp"

namespace score_sde::cpu {

/// Backend::step on the CPU.
Status step(const StepParams& p, std::vector<uint32_t>* bad);

}  // namespace score_sde::cpu
