#pragma once

#include <cstddef>
#include <cstdint>

namespace score_sde {

/// Element types of states; the numbers are those of lib/native.
enum class Dtype : uint8_t { Float32 = 0, Float16 = 1, Bfloat16 = 2 };

inline constexpr size_t sizeOf(Dtype type) { return type == Dtype::Float32 ? 4 : 2; }

}  // namespace score_sde
