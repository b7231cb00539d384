#include "cpu/kernels.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "cpu/conversions.hpp"
#include "cpu/multiversion.hpp"
#include "cpu/philox_tile.hpp"
#include "math/half.hpp"
#include "math/normal.hpp"
#include "math/ve.hpp"

namespace score_sde::cpu {
namespace {

/// 0 for a finite number, else something else.
HD uint32_t defect(float f) { return bitsOf(f - f); }

/// Halves the lanes until one is left.
HD double foldLanes(double* lane, size_t lanes) {
  for (size_t half = lanes / 2; half > 0; half /= 2)
    for (size_t l = 0; l < half; ++l) lane[l] += lane[l + half];
  return lane[0];
}

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
  return foldLanes(lane, lanes);
}

/// The fold of the squares of a whole group, of so many lanes at a time that their sums stay in registers. As a square
/// is exact, a fused multiply-add gives the same sum, where the processor has one.
template <bool kFuses>
HD double foldGroup(const float* values) {
  constexpr size_t kAtOnce = 32;
  alignas(64) double lane[kSumLanes];
  for (size_t first = 0; first < kSumLanes; first += kAtOnce) {
    double sum[kAtOnce] = {};
    for (size_t r = first; r < kSumGroup; r += kSumLanes)
      for (size_t l = 0; l < kAtOnce; ++l) {
        const double v = static_cast<double>(values[r + l]);
        sum[l] = kFuses ? std::fma(v, v, sum[l]) : sum[l] + v * v;
      }
    for (size_t l = 0; l < kAtOnce; ++l) lane[first + l] = sum[l];
  }
  return foldLanes(lane, kSumLanes);
}

#if MULTIVERSION_X86
__attribute__((target("arch=x86-64-v4"))) double foldWhole(const float* values) { return foldGroup<true>(values); }
__attribute__((target("arch=x86-64-v3"))) double foldWhole(const float* values) { return foldGroup<true>(values); }
__attribute__((target("default"))) double foldWhole(const float* values) { return foldGroup<false>(values); }
#else
double foldWhole(const float* values) { return foldGroup<true>(values); }
#endif
MULTIVERSION double foldSquares(const float* values, size_t count) { return fold(values, count); }
MULTIVERSION double foldSums(const double* values, size_t count) { return fold(values, count); }

MULTIVERSION uint32_t defects(const float* values, size_t count) {
  uint32_t bad = 0;
  for (size_t i = 0; i < count; ++i) bad |= defect(values[i]);
  return bad;
}

// What is done to each normal: a functor takes element i and its normal, writes, and returns what may not be finite.

struct Store {
  float* out;
  float factor;
  HD float operator()(size_t i, float z) const {
    out[i] = z * factor;
    return 0.0f;
  }
};

struct Predict {
  float* out;
  const float *sample, *score;
  float diffusion, squared;
  HD float operator()(size_t i, float z) const {
    return out[i] = score_sde::predict(predictMean(sample[i], score[i], squared), z, diffusion);
  }
};

struct PredictWithMean {
  float *out, *mean;
  const float *sample, *score;
  float diffusion, squared;
  HD float operator()(size_t i, float z) const {
    const float centre = predictMean(sample[i], score[i], squared);
    mean[i] = centre;
    return out[i] = score_sde::predict(centre, z, diffusion);
  }
};

struct Correct {
  float* out;
  const float *sample, *score;
  float step, scale;
  HD float operator()(size_t i, float z) const {
    return out[i] = score_sde::correct(sample[i], score[i], z, step, scale);
  }
};

struct Settle {
  float* out;
  const float* mean;
  float scale;
  HD float operator()(size_t i, float z) const { return out[i] = score_sde::linearTerm(mean[i], scale, z); }
};

// What is done without normals.

struct PredictMean {
  float* out;
  const float *sample, *score;
  float squared;
  HD float operator()(size_t i) const { return out[i] = score_sde::predictMean(sample[i], score[i], squared); }
};

struct CorrectMean {
  float* out;
  const float *sample, *score;
  float step;
  HD float operator()(size_t i) const { return out[i] = score_sde::correctMean(sample[i], score[i], step); }
};

struct Copy {
  float* out;
  const float* from;
  HD float operator()(size_t i) const { return out[i] = from[i]; }
};

/// Over normals in memory, for the elements from `first` on. Returns 0 where everything is finite.
template <bool kRounds = false, class Update>
HD uint32_t overValues(const Update& update, const float* z, size_t count, size_t first = 0) {
  uint32_t bad = 0;
  IN_PLACE for (size_t i = 0; i < count; ++i) bad |=
      defect(update(first + i, kRounds ? roundedToBfloat16(z[i]) : z[i]));
  return bad;
}

template <class Update>
HD uint32_t overNothing(const Update& update, size_t count) {
  uint32_t bad = 0;
  IN_PLACE for (size_t i = 0; i < count; ++i) bad |= defect(update(i));
  return bad;
}

/// The normals of a tile's counters.
template <int Tile, class Engine>
HD void draw(float* __restrict z, uint64_t counter, const RoundKeys& keys) {
  TileWords w;
  Engine::template words<Tile>(w, counter, keys);
  for (size_t p = 0; p < 2 * Tile; ++p) {
    const Pair pair = boxMuller(w.radius[p], w.angle[p]);
    z[2 * p] = pair.first;
    z[2 * p + 1] = pair.second;
  }
}

// Both sizes of tiles, once for each instruction set.
#if MULTIVERSION_X86
#define DRAW(name, tile)                                                                                   \
  __attribute__((target("arch=x86-64-v4"))) void name(float* z, uint64_t counter, const RoundKeys& keys) { \
    draw<tile, Lanes8>(z, counter, keys);                                                                  \
  }                                                                                                        \
  __attribute__((target("arch=x86-64-v3"))) void name(float* z, uint64_t counter, const RoundKeys& keys) { \
    draw<tile, Lanes4>(z, counter, keys);                                                                  \
  }                                                                                                        \
  __attribute__((target("default"))) void name(float* z, uint64_t counter, const RoundKeys& keys) {        \
    draw<tile, Portable>(z, counter, keys);                                                                \
  }
#else
#define DRAW(name, tile) \
  void name(float* z, uint64_t counter, const RoundKeys& keys) { draw<tile, Portable>(z, counter, keys); }
#endif
DRAW(drawTile, kTile)
DRAW(drawSmallTile, kSmallTile)

/// Over normals drawn on the spot: an update of a tile is short enough for the processor to fetch its memory while it
/// still computes normals. kRounds: to bfloat16, on the way.
template <bool kRounds, class Update>
HD uint32_t overStream(const Update& update, PhiloxStream stream, bool halves, size_t count) {
  const RoundKeys keys(stream.key);
  alignas(64) float z[4 * kTile];
  uint32_t bad = 0;
  size_t at = 0;
  for (; at + 4 * kTile <= count; at += 4 * kTile) {
    drawTile(z, stream.counter + at / 4, keys);
    if (halves) roundTo(z, 4 * kTile, Dtype::Float16);
    bad |= overValues<kRounds>(update, z, 4 * kTile, at);
  }
  for (; at < count; at += 4 * kSmallTile) {
    const size_t left = std::min<size_t>(count - at, 4 * kSmallTile);
    drawSmallTile(z, stream.counter + at / 4, keys);
    if (halves) roundTo(z, left, Dtype::Float16);
    bad |= overValues<kRounds>(update, z, left, at);
  }
  return bad;
}

template <class Update>
HD uint32_t overStream(const Update& update, PhiloxStream stream, Dtype type, size_t count) {
  return type == Dtype::Bfloat16 ? overStream<true>(update, stream, false, count)
                                 : overStream<false>(update, stream, type == Dtype::Float16, count);
}

#define OVER_NORMALS(Update)                                                                       \
  MULTIVERSION uint32_t values(Update u, const float* z, size_t n) { return overValues(u, z, n); } \
  MULTIVERSION uint32_t drawn(Update u, PhiloxStream z, Dtype type, size_t n) { return overStream(u, z, type, n); }

OVER_NORMALS(Store)
OVER_NORMALS(Predict)
OVER_NORMALS(PredictWithMean)
OVER_NORMALS(Correct)
OVER_NORMALS(Settle)
MULTIVERSION uint32_t alone(PredictMean u, size_t n) { return overNothing(u, n); }
MULTIVERSION uint32_t alone(CorrectMean u, size_t n) { return overNothing(u, n); }
MULTIVERSION uint32_t alone(Copy u, size_t n) { return overNothing(u, n); }

template <class Update>
bool over(const Normals& z, const Update& update, size_t count) {
  return (z.values == nullptr ? drawn(update, z.stream, z.type, count) : values(update, z.values, count)) == 0;
}

MULTIVERSION void convertBlock(float* out, const float* sample, const float* output, size_t count, float px, float pm) {
  IN_PLACE for (size_t i = 0; i < count; ++i) out[i] = score_sde::converted(sample[i], output[i], px, pm);
}

template <int kTerms>
HD void sumOver(float* sum, float* value, const Terms& t, size_t count) {
  IN_PLACE for (size_t i = 0; i < count; ++i) {
    const float m = t.output[i], p = t.converts ? score_sde::converted(t.sample[i], m, t.px, t.pm) : m;
    float s = score_sde::linearTerm(score_sde::linearStart(t.a, t.sample[i]), t.b0, p);
    if (kTerms > 1) s = score_sde::linearTerm(s, t.b1, t.first[i]);
    if (kTerms > 2) s = score_sde::linearTerm(s, t.b2, t.second[i]);
    value[i] = p;
    sum[i] = s;
  }
}

MULTIVERSION void sumOne(float* sum, float* value, Terms t, size_t count) { sumOver<1>(sum, value, t, count); }
MULTIVERSION void sumTwo(float* sum, float* value, Terms t, size_t count) { sumOver<2>(sum, value, t, count); }
MULTIVERSION void sumThree(float* sum, float* value, Terms t, size_t count) { sumOver<3>(sum, value, t, count); }

MULTIVERSION void startBlock(float* sum, const float* sample, size_t count, float a) {
  IN_PLACE for (size_t i = 0; i < count; ++i) sum[i] = score_sde::linearStart(a, sample[i]);
}

MULTIVERSION void addTerm(float* sum, const float* value, size_t count, float b) {
  IN_PLACE for (size_t i = 0; i < count; ++i) sum[i] = score_sde::linearTerm(sum[i], b, value[i]);
}

MULTIVERSION void clampBlock(float* out, const float* in, size_t count, float scale, float shift) {
  IN_PLACE for (size_t i = 0; i < count; ++i) out[i] = clamp01(scaled(in[i], scale, shift));
}

MULTIVERSION void quantizeBlock(uint8_t* __restrict out, const float* __restrict in, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = score_sde::quantize(in[i]);
}

}  // namespace

double sumSquares(const float* values, size_t count) {
  return count == kSumGroup ? foldWhole(values) : foldSquares(values, count);
}
double sumGroup(const double* values, size_t count) { return foldSums(values, count); }

bool isFinite(const float* values, size_t count) { return defects(values, count) == 0; }

void store(float* out, const Normals& noise, size_t count, float factor) {
  size_t drawn = 0;  // in tiles, where they shall lie
  if (noise.values == nullptr && noise.type == Dtype::Float32 && factor == 1.0f && count >= 4 * kTile) {
    const RoundKeys keys(noise.stream.key);
    for (; drawn + 4 * kTile <= count; drawn += 4 * kTile)
      drawTile(out + drawn, noise.stream.counter + drawn / 4, keys);
  }
  if (drawn == count) return;
  Normals rest = noise;
  if (noise.values == nullptr) rest.stream.counter += drawn / 4;
  over(rest, Store{out + drawn, factor}, count - drawn);
}

bool predict(float* out, float* mean, const float* sample, const float* score, const Normals& noise, size_t count,
             float diffusion) {
  const float squared = diffusion * diffusion;
  if (noise.none) {
    const bool finite = alone(PredictMean{out, sample, score, squared}, count) == 0;
    if (mean != nullptr) std::memcpy(mean, out, count * sizeof(float));
    return finite;
  }
  if (mean == nullptr) return over(noise, Predict{out, sample, score, diffusion, squared}, count);
  return over(noise, PredictWithMean{out, mean, sample, score, diffusion, squared}, count);
}

bool correct(float* out, float* mean, const float* sample, const float* score, const Normals& noise, size_t count,
             float step) {
  const float scale = noiseScale(step);
  if (mean == nullptr && !noise.none) return over(noise, Correct{out, sample, score, step, scale}, count);
  // A corrector's mean is rarely wanted, so that it has passes of its own instead of a kernel.
  alignas(64) float centre[kBlock];
  alone(CorrectMean{centre, sample, score, step}, count);
  const bool finite = addNormals(out, centre, noise, count, scale);
  if (mean != nullptr) std::memcpy(mean, centre, count * sizeof(float));
  return finite;
}

bool addNormals(float* out, const float* mean, const Normals& noise, size_t count, float scale) {
  if (noise.none) return alone(Copy{out, mean}, count) == 0;
  return over(noise, Settle{out, mean, scale}, count);
}

void convertOutput(float* out, const float* sample, const float* output, size_t count, float px, float pm) {
  convertBlock(out, sample, output, count, px, pm);
}

void linearSum(float* sum, float* value, const Terms& terms, size_t count) {
  if (terms.size == 1) return sumOne(sum, value, terms, count);
  if (terms.size == 2) return sumTwo(sum, value, terms, count);
  sumThree(sum, value, terms, count);
}

void linearStart(float* sum, const float* sample, size_t count, float a) { startBlock(sum, sample, count, a); }
void linearTerm(float* sum, const float* value, size_t count, float factor) { addTerm(sum, value, count, factor); }

void clamp(float* out, const float* in, size_t count, float scale, float shift) {
  clampBlock(out, in, count, scale, shift);
}
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

bool processorFits() {
#if defined(__x86_64__) && defined(__AVX2__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return true;
#endif
}

}  // namespace score_sde::cpu
