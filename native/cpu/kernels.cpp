#include "cpu/kernels.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/multiversion.hpp"
#include "math/half.hpp"
#include "math/ve.hpp"

namespace score_sde::cpu {
namespace {

HD int32_t magnitude(float f) { return static_cast<int32_t>(bitsOf(f) & 0x7fffffffu); }

/// acc[l] += values at l, l + 128, ...; then the halving tree.
template <class Value>
HD double fold(const Value* values, size_t count) {
  alignas(64) double lane[kSumLanes];
  const size_t whole = count / kSumLanes;
  const auto term = [&](size_t i) {
    const double v = static_cast<double>(values[i]);
    if constexpr (sizeof(Value) == sizeof(float)) return v * v;  // exact: a float32 square fits a double
    return v;
  };
  // Lanes beyond the values are zero, and adding them changes nothing.
  const size_t lanes = count < kSumLanes ? std::bit_ceil(count) : kSumLanes;
  for (size_t l = 0; l < lanes; ++l) lane[l] = 0.0;
  for (size_t r = 0; r < whole; ++r)
    for (size_t l = 0; l < kSumLanes; ++l) lane[l] += term(r * kSumLanes + l);
  for (size_t i = whole * kSumLanes; i < count; ++i) lane[i - whole * kSumLanes] += term(i);
  for (size_t half = lanes / 2; half > 0; half /= 2)
    for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

MULTIVERSION double foldSquares(const float* values, size_t count) { return fold(values, count); }
MULTIVERSION double foldSums(const double* values, size_t count) { return fold(values, count); }

MULTIVERSION void widenHalf(float* __restrict out, const uint16_t* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = float16ToFloat(in[i]);
}
MULTIVERSION void widenBfloat(float* __restrict out, const uint16_t* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = bfloat16ToFloat(in[i]);
}
MULTIVERSION void narrowHalf(uint16_t* __restrict out, const float* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = floatToFloat16(in[i]);
}
MULTIVERSION void narrowBfloat(uint16_t* __restrict out, const float* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = floatToBfloat16(in[i]);
}

MULTIVERSION void scaleBlock(float* out, const float* in, size_t count, float factor) {
  IN_PLACE for (size_t i = 0; i < count; ++i) out[i] = in[i] * factor;
}

MULTIVERSION uint32_t predictBlock(float* out, const float* x, const float* m, const float* z, size_t count, float d,
                                   float d2) {
  int32_t worst = 0;
  IN_PLACE for (size_t i = 0; i < count; ++i) {
    out[i] = score_sde::predict(predictMean(x[i], m[i], d2), z[i], d);
    worst = std::max(worst, magnitude(out[i]));
  }
  return static_cast<uint32_t>(worst);
}

MULTIVERSION uint32_t predictBlockMean(float* out, float* mean, const float* x, const float* m, const float* z,
                                       size_t count, float d, float d2) {
  int32_t worst = 0;
  IN_PLACE for (size_t i = 0; i < count; ++i) {
    const float centre = predictMean(x[i], m[i], d2), next = score_sde::predict(centre, z[i], d);
    mean[i] = centre;
    out[i] = next;
    worst = std::max(worst, magnitude(next));
  }
  return static_cast<uint32_t>(worst);
}

MULTIVERSION uint32_t correctBlock(float* out, const float* x, const float* m, const float* z, size_t count, float step,
                                   float scale) {
  int32_t worst = 0;
  IN_PLACE for (size_t i = 0; i < count; ++i) {
    const float next = score_sde::correct(x[i], m[i], z[i], step, scale);
    out[i] = next;
    worst = std::max(worst, magnitude(next));
  }
  return static_cast<uint32_t>(worst);
}

MULTIVERSION void perturbBlock(float* out, const float* x, const float* z, size_t count, float sigma) {
  IN_PLACE for (size_t i = 0; i < count; ++i) out[i] = score_sde::perturb(x[i], z[i], sigma);
}

MULTIVERSION void clampBlock(float* out, const float* in, size_t count) {
  IN_PLACE for (size_t i = 0; i < count; ++i) out[i] = clamp01(in[i]);
}

MULTIVERSION void quantizeBlock(uint8_t* __restrict out, const float* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = score_sde::quantize(in[i]);
}

}  // namespace

double sumSquares(const float* values, size_t count) { return foldSquares(values, count); }
double sumGroup(const double* values, size_t count) { return foldSums(values, count); }

void toFloat(float* out, const uint16_t* in, size_t count, Dtype type) {
  type == Dtype::Float16 ? widenHalf(out, in, count) : widenBfloat(out, in, count);
}

void fromFloat(uint16_t* out, const float* in, size_t count, Dtype type) {
  type == Dtype::Float16 ? narrowHalf(out, in, count) : narrowBfloat(out, in, count);
}

void scale(float* out, const float* in, size_t count, float factor) { scaleBlock(out, in, count, factor); }

uint32_t predict(float* out, const float* sample, const float* score, const float* noise, size_t count,
                 float diffusion) {
  return predictBlock(out, sample, score, noise, count, diffusion, diffusion * diffusion);
}

uint32_t predictWithMean(float* out, float* mean, const float* sample, const float* score, const float* noise,
                         size_t count, float diffusion) {
  return predictBlockMean(out, mean, sample, score, noise, count, diffusion, diffusion * diffusion);
}

uint32_t correct(float* out, const float* sample, const float* score, const float* noise, size_t count, float step,
                 float scale) {
  return correctBlock(out, sample, score, noise, count, step, scale);
}

void perturb(float* out, const float* sample, const float* noise, size_t count, float sigma) {
  perturbBlock(out, sample, noise, count, sigma);
}

void clamp(float* out, const float* in, size_t count) { clampBlock(out, in, count); }
void quantize(uint8_t* out, const float* in, size_t count) { quantizeBlock(out, in, count); }

const char* instructionSet() {
#if MULTIVERSION_X86
  if (__builtin_cpu_supports("x86-64-v4")) return "x86-64-v4";
  if (__builtin_cpu_supports("x86-64-v3")) return "x86-64-v3";
  return "x86-64";
#elif defined(__AVX512F__)
  return "x86-64-v4";
#elif defined(__AVX2__)
  return "x86-64-v3";
#elif defined(__aarch64__) || defined(_M_ARM64)
  return "arm64 neon";
#else
  return "baseline";
#endif
}

}  // namespace score_sde::cpu
