#pragma once

#include "core/backend.hpp"

namespace score_sde::cpu {

/// The CPU's backend; stateless, so one serves every caller at once.
Backend& backend();

}  // namespace score_sde::cpu
