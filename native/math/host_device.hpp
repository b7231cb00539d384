// What the CPU and the CUDA backend compute stands once, in this folder. A function here is plain inline arithmetic
// that both compilers see; built without contraction (-ffp-contract=off, -fmad=false), so a fused multiply-add is only
// where fma() is written, and every machine gives the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define HD __forceinline
#else
#define HD inline __attribute__((always_inline))
#endif

namespace score_sde {

HD uint32_t bitsOf(float f) {
  uint32_t u;
  std::memcpy(&u, &f, sizeof u);
  return u;
}

HD float floatOf(uint32_t u) {
  float f;
  std::memcpy(&f, &u, sizeof f);
  return f;
}

}  // namespace score_sde
