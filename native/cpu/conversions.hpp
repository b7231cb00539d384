// Passes between float32 and the 16-bit types, with the bits of math/half.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"

namespace score_sde::cpu {

void toFloat(float* out, const uint16_t* in, size_t count, Dtype type);

/// Returns whether everything written is finite.
bool fromFloat(uint16_t* out, const float* in, size_t count, Dtype type);

/// Rounds values to a 16-bit type, in place: any value but NaN, of which the processor makes other bits than
/// math/half.hpp.
void roundTo(float* values, size_t count, Dtype type);

}  // namespace score_sde::cpu
