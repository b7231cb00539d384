// The conversions of float16 as a GPU makes them: every NaN becomes the one whose bits are all set but the sign.
#pragma once

#include <cstdint>

#include "math/half.hpp"

struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x, y;
};

inline __half __ushort_as_half(uint16_t bits) { return {bits}; }
inline float __half2float(__half h) {
  const float value = score_sde::float16ToFloat(h.bits);
  return value != value ? score_sde::floatOf(0x7fffffffu) : value;
}
inline __half2 __floats2half2_rn(float x, float y) {
  const auto one = [](float f) -> __half { return {f != f ? uint16_t{0x7fff} : score_sde::floatToFloat16(f)}; };
  return {one(x), one(y)};
}
