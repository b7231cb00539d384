// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#pragma once

#include "math/host_device.hpp"

namespace score_sde {

struct Words {
  uint32_t x, y, z, w;
};

inline constexpr int kPhiloxRounds = 10;
inline constexpr uint32_t kPhiloxM0 = 0xD2511F53u, kPhiloxM1 = 0xCD9E8D57u;        // multipliers
inline constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u, kPhiloxWeyl1 = 0xBB67AE85u;  // key increments of a round

struct Product {
  uint32_t low, high;
};

HD Product product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
  // Of a shifted product of 64 bits nvcc would make the whole round one of 64 bits.
  return {a * b, __umulhi(a, b)};
#else
  const uint64_t p = static_cast<uint64_t>(a) * b;
  return {static_cast<uint32_t>(p), static_cast<uint32_t>(p >> 32)};
#endif
}

HD Words philoxRound(Words c, uint32_t k0, uint32_t k1) {
  const Product p0 = product(kPhiloxM0, c.x), p1 = product(kPhiloxM1, c.z);
  return {p1.high ^ c.y ^ k0, p1.low, p0.high ^ c.w ^ k1, p0.low};
}

HD Words philox(Words counter, uint32_t k0, uint32_t k1) {
#if defined(__CUDA_ARCH__)
#pragma unroll
#endif
  for (int r = 0; r < kPhiloxRounds; ++r) {
    counter = philoxRound(counter, k0, k1);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return counter;
}

}  // namespace score_sde
