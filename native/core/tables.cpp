#include "core/tables.hpp"

#include <cmath>

namespace score_sde {
namespace {

/// Sleef's expf (accuracy class u10), which torch's vectorised exp calls.
float expSleef(float x) {
  const float q = std::rint(x * 1.44269504f);
  float s = std::fma(q, -0.693145751953125f, x);
  s = std::fma(q, -1.428606765330187e-06f, s);
  float u = 0.000198527617612853646f;
  u = std::fma(u, s, 0.00139304355252534151f);
  u = std::fma(u, s, 0.00833336077630519867f);
  u = std::fma(u, s, 0.0416664853692054749f);
  u = std::fma(u, s, 0.166666671633720398f);
  u = std::fma(u, s, 0.5f);
  const float p = 1.0f + std::fma(s * s, u, s);
  return std::ldexp(p, static_cast<int>(q));
}

float power(float base, float exponent) {
#if defined(__GLIBC__)
  return std::pow(base, exponent);  // the reference's own powf
#else
  return static_cast<float>(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
#endif
}

}  // namespace

void linspace(float* out, size_t count, double start, double end) {
  const float first = static_cast<float>(start), last = static_cast<float>(end);
  if (count == 0) return;
  if (count == 1) {
    out[0] = first;
    return;
  }
  const float step = (last - first) / static_cast<float>(count - 1);
  const size_t half = count / 2;
  const auto at = [&](size_t i) {
    return i < half ? std::fma(step, static_cast<float>(i), first)
                    : std::fma(-step, static_cast<float>(count - 1 - i), last);
  };
  // torch walks the body in vectors of eight from a scalar base, without fma, and what is left over one by one.
  const size_t body = count / 16 * 16;
  for (size_t block = 0; block < body; block += 8) {
    const float base = at(block);
    for (size_t lane = 0; lane < 8; ++lane) out[block + lane] = base + static_cast<float>(lane) * step;
  }
  for (size_t i = body; i < count; ++i) out[i] = at(i);
}

void discreteSigmas(float* out, size_t count, double sigmaMin, double sigmaMax) {
  linspace(out, count, std::log(sigmaMin), std::log(sigmaMax));
  for (size_t i = 0; i < count; ++i) out[i] = expSleef(out[i]);
}

void sigmas(float* out, const float* timesteps, size_t count, double sigmaMin, double sigmaMax) {
  const float low = static_cast<float>(sigmaMin), ratio = static_cast<float>(sigmaMax / sigmaMin);
  for (size_t i = 0; i < count; ++i) out[i] = low * power(ratio, timesteps[i]);
}

}  // namespace score_sde
