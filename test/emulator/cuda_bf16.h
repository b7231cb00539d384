// The conversion to bfloat16 as a GPU makes it: every NaN becomes the one whose bits are all set but the sign.
#pragma once

#include <cstdint>

#include "math/half.hpp"

struct __nv_bfloat162 {
  uint16_t x, y;
};

inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  const auto one = [](float f) { return f != f ? uint16_t{0x7fff} : score_sde::floatToBfloat16(f); };
  return {one(x), one(y)};
}
