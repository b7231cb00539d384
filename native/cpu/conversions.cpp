#include "cpu/conversions.hpp"

#include <algorithm>

#include "cpu/multiversion.hpp"
#include "math/half.hpp"

// Which versions of the float16 passes there are: by integer arithmetic, by the processor's own conversions, or both.
#if MULTIVERSION_X86
#define BY_INTEGERS __attribute__((target("default")))
#define BY_F16C __attribute__((target("arch=x86-64-v3")))
#define BY_AVX512 __attribute__((target("arch=x86-64-v4")))
#elif defined(__F16C__) && defined(__AVX2__)
#define BY_F16C
#else
#define BY_INTEGERS
#endif

#ifdef BY_F16C
#include <immintrin.h>
#endif

namespace score_sde::cpu {
namespace {

// Narrowing returns the bits of the greatest magnitude before it.

constexpr uint32_t kInfinity = 0x7f800000u;

HD uint32_t magnitude(float f) { return bitsOf(f) & 0x7fffffffu; }

HD void widenByIntegers(float* __restrict out, const uint16_t* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = float16ToFloat(in[i]);
}

HD uint32_t narrowByIntegers(uint16_t* __restrict out, const float* __restrict in, size_t count) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; ++i) {
    out[i] = floatToFloat16(in[i]);
    most = std::max(most, magnitude(in[i]));
  }
  return most;
}

HD void roundByIntegers(float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = rounded(values[i], Dtype::Float16);
}

#ifdef BY_INTEGERS
BY_INTEGERS void widenHalf(float* out, const uint16_t* in, size_t count) { widenByIntegers(out, in, count); }
BY_INTEGERS uint32_t narrowHalf(uint16_t* out, const float* in, size_t count) {
  return narrowByIntegers(out, in, count);
}
BY_INTEGERS void roundHalf(float* values, size_t count) { roundByIntegers(values, count); }
#endif

#ifdef BY_F16C
// The processor makes another NaN of a NaN than math/half.hpp does, so a block that has one is converted again.

constexpr size_t kLanes = 8;

BY_F16C void widenHalf(float* __restrict out, const uint16_t* __restrict in, size_t count) {
  const size_t whole = count / kLanes * kLanes;
  __m256 unordered = _mm256_setzero_ps();
  for (size_t i = 0; i < whole; i += kLanes) {
    const __m256 f = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in + i)));
    unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(f, f, _CMP_UNORD_Q));
    _mm256_storeu_ps(out + i, f);
  }
  const size_t right = _mm256_movemask_ps(unordered) == 0 ? whole : 0;
  widenByIntegers(out + right, in + right, count - right);
}

BY_F16C uint32_t narrowHalf(uint16_t* __restrict out, const float* __restrict in, size_t count) {
  const size_t whole = count / kLanes * kLanes;
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  __m256i most = _mm256_setzero_si256();
  for (size_t i = 0; i < whole; i += kLanes) {
    const __m256 f = _mm256_loadu_ps(in + i);
    most = _mm256_max_epi32(most, _mm256_and_si256(_mm256_castps_si256(f), mask));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT));
  }
  alignas(32) uint32_t lanes[kLanes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), most);
  const uint32_t greatest = *std::max_element(lanes, lanes + kLanes);
  if (greatest > kInfinity) return narrowByIntegers(out, in, count);
  return std::max(greatest, narrowByIntegers(out + whole, in + whole, count - whole));
}

BY_F16C void roundHalf(float* values, size_t count) {
  const size_t whole = count / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    const __m128i half = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_ps(values + i, _mm256_cvtph_ps(half));
  }
  roundByIntegers(values + whole, count - whole);
}
#endif

#ifdef BY_AVX512
// The same in lanes twice as wide.

constexpr size_t kWide = 16;

BY_AVX512 void widenHalf(float* __restrict out, const uint16_t* __restrict in, size_t count) {
  const size_t whole = count / kWide * kWide;
  __mmask16 unordered = 0;
  for (size_t i = 0; i < whole; i += kWide) {
    const __m512 f = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + i)));
    unordered |= _mm512_cmp_ps_mask(f, f, _CMP_UNORD_Q);
    _mm512_storeu_ps(out + i, f);
  }
  const size_t right = unordered == 0 ? whole : 0;
  widenByIntegers(out + right, in + right, count - right);
}

BY_AVX512 uint32_t narrowHalf(uint16_t* __restrict out, const float* __restrict in, size_t count) {
  const size_t whole = count / kWide * kWide;
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512();
  for (size_t i = 0; i < whole; i += kWide) {
    const __m512 f = _mm512_loadu_ps(in + i);
    most = _mm512_max_epi32(most, _mm512_and_si512(_mm512_castps_si512(f), mask));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i), _mm512_cvtps_ph(f, _MM_FROUND_TO_NEAREST_INT));
  }
  const uint32_t greatest = static_cast<uint32_t>(_mm512_reduce_max_epi32(most));
  if (greatest > kInfinity) return narrowByIntegers(out, in, count);
  return std::max(greatest, narrowByIntegers(out + whole, in + whole, count - whole));
}

BY_AVX512 void roundHalf(float* values, size_t count) {
  const size_t whole = count / kWide * kWide;
  for (size_t i = 0; i < whole; i += kWide) {
    const __m256i half = _mm512_cvtps_ph(_mm512_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
    _mm512_storeu_ps(values + i, _mm512_cvtph_ps(half));
  }
  roundByIntegers(values + whole, count - whole);
}
#endif

MULTIVERSION void widenBfloat(float* __restrict out, const uint16_t* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = bfloat16ToFloat(in[i]);
}

// NaN takes as many instructions as all other values: a block that has one is converted again.
MULTIVERSION uint32_t narrowBfloat(uint16_t* __restrict out, const float* __restrict in, size_t count) {
  uint32_t most = 0;
  for (size_t i = 0; i < count; ++i) {
    out[i] = static_cast<uint16_t>(bfloat16WordOfNumber(bitsOf(in[i])) >> 16);
    most = std::max(most, magnitude(in[i]));
  }
  if (most > kInfinity)
    for (size_t i = 0; i < count; ++i) out[i] = floatToBfloat16(in[i]);
  return most;
}

MULTIVERSION void roundBfloat(float* values, size_t count) {
  for (size_t i = 0; i < count; ++i) values[i] = roundedToBfloat16(values[i]);
}

}  // namespace

void toFloat(float* out, const uint16_t* in, size_t count, Dtype type) {
  type == Dtype::Float16 ? widenHalf(out, in, count) : widenBfloat(out, in, count);
}

bool fromFloat(uint16_t* out, const float* in, size_t count, Dtype type) {
  if (type == Dtype::Float16) return narrowHalf(out, in, count) < kFloat16Limit;
  return narrowBfloat(out, in, count) < kBfloat16Limit;
}

void roundTo(float* values, size_t count, Dtype type) {
  type == Dtype::Float16 ? roundHalf(values, count) : roundBfloat(values, count);
}

}  // namespace score_sde::cpu
