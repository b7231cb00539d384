// float16 and bfloat16 as bits, by integer arithmetic: round to nearest even, infinities, NaN and denormals included.
// Branch-free, so that loops over it vectorise; both devices give the same bits.
#pragma once

#include "core/dtype.hpp"
#include "math/host_device.hpp"

namespace score_sde {

/// The bits of the least magnitudes that round to infinity.
inline constexpr uint32_t kFloat16Limit = 0x477ff000u, kBfloat16Limit = 0x7f7f8000u;

HD float bfloat16ToFloat(uint16_t h) { return floatOf(static_cast<uint32_t>(h) << 16); }

/// The bits of floatToBfloat16 in the high half of a word, whose low half is rubbish; of anything but NaN.
HD uint32_t bfloat16WordOfNumber(uint32_t bits) { return bits + 0x7fffu + ((bits >> 16) & 1u); }

/// The nearest bfloat16 of anything but NaN.
HD float roundedToBfloat16(float number) { return floatOf(bfloat16WordOfNumber(bitsOf(number)) & 0xffff0000u); }

/// The bits of floatToBfloat16 as the high half of a word.
HD uint32_t bfloat16Word(float f) {
  const uint32_t u = bitsOf(f);
  return ((u & 0x7fffffffu) > 0x7f800000u ? u | 0x400000u : bfloat16WordOfNumber(u)) & 0xffff0000u;
}

HD uint16_t floatToBfloat16(float f) { return static_cast<uint16_t>(bfloat16Word(f) >> 16); }

HD float float16ToFloat(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(h & 0x7fffu) << 13;
  // Rebias the exponent; infinity and NaN need the rest of the way, denormals are renormalised by a subtraction.
  const uint32_t normal = magnitude + 0x38000000u + (magnitude >= 0x0f800000u ? 0x38000000u : 0u);
  const uint32_t denormal = bitsOf(floatOf(magnitude + 0x38800000u) - 6.103515625e-05f);
  return floatOf(sign | (magnitude < 0x00800000u ? denormal : normal));
}

HD uint16_t floatToFloat16(float f) {
  const uint32_t u = bitsOf(f);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t a = u & 0x7fffffffu;
  const uint32_t normal =
      (a - 0x38000000u + 0x0fffu + ((a >> 13) & 1u)) >> 13;  // a carry into the exponent is right, up to inf
  const uint32_t denormal = bitsOf(floatOf(a < 0x38800000u ? a : 0u) + 0.5f) - 0x3f000000u;  // the sum rounds at 2^-24
  const uint32_t special = a > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t finite = a < 0x38800000u ? denormal : normal;
  return static_cast<uint16_t>(sign | (a >= kFloat16Limit ? special : finite));
}

/// The nearest value of a type, as a float32.
HD float rounded(float value, Dtype type) {
  if (type == Dtype::Float16) return float16ToFloat(floatToFloat16(value));
  if (type == Dtype::Bfloat16) return floatOf(bfloat16Word(value));
  return value;
}

}  // namespace score_sde
