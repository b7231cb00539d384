// Two 32-bit words to two standard normals (Box & Muller 1958), branch-free, so that it vectorises.
#pragma once

#include "math/philox.hpp"

namespace score_sde {

struct Pair {
  float first, second;
};

/// log of u in (0, 1]; the single precision polynomial of Cephes (S. Moshier).
HD float log01(float u) {
  const uint32_t b = bitsOf(u);
  const int32_t exponent =
      static_cast<int32_t>(b - 0x3f3504f3u) >> 23;  // u = (1 + f) 2^exponent, 1 + f in [sqrt(1/2), sqrt(2))
  const float f = floatOf(b - (static_cast<uint32_t>(exponent) << 23)) - 1.0f;
  const float e = static_cast<float>(exponent);
  const float z = f * f;
  float p = 7.0376836292e-2f;
  p = std::fma(p, f, -1.1514610310e-1f);
  p = std::fma(p, f, 1.1676998740e-1f);
  p = std::fma(p, f, -1.2420140846e-1f);
  p = std::fma(p, f, 1.4249322787e-1f);
  p = std::fma(p, f, -1.6668057665e-1f);
  p = std::fma(p, f, 2.0000714765e-1f);
  p = std::fma(p, f, -2.4999993993e-1f);
  p = std::fma(p, f, 3.3333331174e-1f);
  p = (p * f) * z;
  p = std::fma(e, -2.12194440e-4f, p);  // log 2 in two parts, the small one first
  p = std::fma(z, -0.5f, p);
  return std::fma(e, 0.693359375f, f + p);
}

/// (cos, sin) of 2 pi x / 2^32. The quadrant is x's top bits, so no digit is lost to range reduction.
HD Pair cosSinTurn(uint32_t x) {
  const uint32_t quadrant = (x + 0x20000000u) >> 30;
  const float t =
      static_cast<float>(static_cast<int32_t>(x - (quadrant << 30))) * 1.46291807926715968e-9f;  // 2 pi / 2^32
  const float z = t * t;
  float s = -1.9515295891e-4f;
  s = std::fma(s, z, 8.3321608736e-3f);
  s = std::fma(s, z, -1.6666654611e-1f);
  s = std::fma(s * z, t, t);
  float c = 2.443315711809948e-5f;
  c = std::fma(c, z, -1.388731625493765e-3f);
  c = std::fma(c, z, 4.166664568298827e-2f);
  c = std::fma(c * z, z, std::fma(z, -0.5f, 1.0f));
  // Odd quadrants exchange the two; the second and third negate the cosine, the third and fourth the sine.
  const uint32_t exchange = (bitsOf(s) ^ bitsOf(c)) & (0u - (quadrant & 1u));
  return {floatOf(bitsOf(c) ^ exchange ^ (((quadrant + 1u) & 2u) << 30)),
          floatOf(bitsOf(s) ^ exchange ^ ((quadrant & 2u) << 30))};
}

/// The square root of -2 log01(u): of -0, or of a number from 2^-23 to 46. A GPU's correctly rounded root is this, one
/// step of Newton's from an approximation, behind a test for numbers outside of 2^-101 to 2^128 that need more.
HD float radiusOf(float square) {
#if defined(__CUDA_ARCH__)
  float inverse;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(square));
  inverse = std::fmax(inverse, 0.0f);  // that of -0 is -infinity
  const float root = square * inverse;
  return std::fma(std::fma(-root, root, square), inverse * 0.5f, root);
#else
  return std::sqrt(square);
#endif
}

/// Two normals: radius sqrt(-2 ln u) from a, angle from b. u = (a + 1/2) / 2^32 uses all 32 bits, so |normal| <= 6.77.
HD Pair boxMuller(uint32_t a, uint32_t b) {
  const float u = std::fma(static_cast<float>(a), 2.3283064365386963e-10f, 1.1641532182693481e-10f);
  const float r = radiusOf(-2.0f * log01(u));
  const Pair v = cosSinTurn(b);
  return {r * v.first, r * v.second};
}

struct Normals4 {
  float values[4];
};

/// The four normals of a counter.
HD Normals4 normalsOf(uint64_t counter, uint64_t key) {
  const Words w = philox({static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0},
                         static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32));
  const Pair a = boxMuller(w.x, w.y), b = boxMuller(w.z, w.w);
  return {{a.first, a.second, b.first, b.second}};
}

}  // namespace score_sde
