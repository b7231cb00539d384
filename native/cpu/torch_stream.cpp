#include "cpu/torch_stream.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/multiversion.hpp"
#include "math/half.hpp"

namespace score_sde {
namespace {

constexpr size_t kWords = 624, kMiddle = 397;
constexpr double kTwoPi = 6.283185307179586;

}  // namespace

void torchSeed(TorchState& state, uint64_t seed) {
  state = {};
  state.seed = seed;
  state.left = 1;  // the first draw twists
  state.seeded = 1;
  uint32_t word = static_cast<uint32_t>(seed);
  state.state[0] = word;
  for (uint32_t j = 1; j < kWords; ++j) state.state[j] = word = 1812433253u * (word ^ (word >> 30)) + j;
}

bool torchStateIsSound(const TorchState& state) {
  // A seeded state has position 0 and left 1. Later, position + left is constant; with left 1 the next draw twists.
  const bool fresh = state.left == 1 && state.next == 0;
  const bool begun =
      state.next >= 1 && state.next <= kWords && static_cast<uint64_t>(state.left) == kWords + 1 - state.next;
  return state.seeded == 1 && state.left >= 1 && (fresh || begun);
}

namespace cpu {
namespace {

HD uint32_t twist(uint32_t a, uint32_t b, uint32_t far) {
  const uint32_t y = (a & 0x80000000u) | (b & 0x7fffffffu);
  return far ^ (y >> 1) ^ ((0u - (b & 1u)) & 0x9908b0dfu);
}

HD uint32_t temper(uint32_t y) {
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

/// Makes the next 624 words (MT19937's twist). Each loop reads at a fixed distance, so both vectorise.
MULTIVERSION void regenerate(uint32_t* mt) {
  IN_PLACE for (size_t k = 0; k < kWords - kMiddle; ++k) mt[k] = twist(mt[k], mt[k + 1], mt[k + kMiddle]);
  for (size_t start = kWords - kMiddle; start < kWords - 1; start += kWords - kMiddle) {
    const size_t end = std::min(start + (kWords - kMiddle), kWords - 1);
    IN_PLACE for (size_t k = start; k < end; ++k) mt[k] = twist(mt[k], mt[k + 1], mt[k - (kWords - kMiddle)]);
  }
  mt[kWords - 1] = twist(mt[kWords - 1], mt[0], mt[kMiddle - 1]);
}

/// Uniforms in [0, 1) from the low bits of the words, as many as torch uses.
MULTIVERSION void temperUniforms(float* __restrict out, const uint32_t* __restrict words, size_t count, uint32_t mask,
                                 float unit) {
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(static_cast<int32_t>(temper(words[i]) & mask)) * unit;
}

/// Box-Muller as torch's AVX2 kernel computes it, on 8 pairs of 16 elements: the polynomials of avx_mathfun (after
/// Cephes).
HD void torchPair(float u, float v, float& first, float& second) {
  const uint32_t b = bitsOf(1.0f - u);  // (0, 1]: always normal
  float e = static_cast<float>(static_cast<int32_t>(b >> 23) - 126);
  float m = floatOf((b & 0x007fffffu) | 0x3f000000u);  // [0.5, 1)
  const bool low = m < 0.707106781186547524f;
  const float carried = low ? m : 0.0f;
  e = low ? e - 1.0f : e;
  m = (m - 1.0f) + carried;
  const float mm = m * m;
  float y = 7.0376836292e-2f;
  y = std::fma(y, m, -1.1514610310e-1f);
  y = std::fma(y, m, 1.1676998740e-1f);
  y = std::fma(y, m, -1.2420140846e-1f);
  y = std::fma(y, m, 1.4249322787e-1f);
  y = std::fma(y, m, -1.6668057665e-1f);
  y = std::fma(y, m, 2.0000714765e-1f);
  y = std::fma(y, m, -2.4999993993e-1f);
  y = std::fma(y, m, 3.3333331174e-1f);
  y = y * m;
  y = std::fma(y, mm, e * -2.12194440e-4f);
  y = y - mm * 0.5f;
  const float log = std::fma(e, 0.693359375f, m + y);
  const float r = std::sqrt(-2.0f * log);

  float x = 6.283185307179586f * v;
  const int32_t octant = (static_cast<int32_t>(x * 1.27323954473516f) + 1) & ~1;
  const float turn = static_cast<float>(octant);
  x = std::fma(turn, -0.78515625f, x);
  x = std::fma(turn, -2.4187564849853515625e-4f, x);
  x = std::fma(turn, -3.77489497744594108e-8f, x);
  const float z = x * x;
  float c = 2.443315711809948e-5f;
  c = std::fma(c, z, -1.388731625493765e-3f);
  c = std::fma(c, z, 4.166664568298827e-2f);
  c = c * z;
  c = std::fma(c, z, -(z * 0.5f));
  c = c + 1.0f;
  float s = -1.9515295891e-4f;
  s = std::fma(s, z, 8.3321608736e-3f);
  s = std::fma(s, z, -1.6666654611e-1f);
  s = s * z;
  s = std::fma(s, x, x);
  const bool exchange = (octant & 2) != 0;
  const uint32_t sinSign = static_cast<uint32_t>(octant & 4) << 29;
  const uint32_t cosSign = static_cast<uint32_t>(~(octant - 2) & 4) << 29;
  const float sine = floatOf(bitsOf(exchange ? c : s) ^ sinSign);
  const float cosine = floatOf(bitsOf(exchange ? s : c) ^ cosSign);
  first = r * cosine + 0.0f;  // torch adds the mean, 0: -0 becomes +0
  second = r * sine + 0.0f;
}

constexpr size_t kPairs = 512;  // pairs a pass: three arrays fit the first-level cache

MULTIVERSION void transformFloat(float* values, size_t blocks) {
  alignas(64) float u[kPairs], v[kPairs];
  for (size_t done = 0; done < blocks; done += kPairs / 8) {
    const size_t count = std::min(blocks - done, kPairs / 8);
    float* const d = values + 16 * done;
    for (size_t b = 0; b < count; ++b) {
      std::memcpy(u + 8 * b, d + 16 * b, 8 * sizeof(float));
      std::memcpy(v + 8 * b, d + 16 * b + 8, 8 * sizeof(float));
    }
    IN_PLACE for (size_t i = 0; i < 8 * count; ++i) {
      float first, second;
      torchPair(u[i], v[i], first, second);
      u[i] = first;
      v[i] = second;
    }
    for (size_t b = 0; b < count; ++b) {
      std::memcpy(d + 16 * b, u + 8 * b, 8 * sizeof(float));
      std::memcpy(d + 16 * b + 8, v + 8 * b, 8 * sizeof(float));
    }
  }
}

float toHalf(float f) { return float16ToFloat(floatToFloat16(f)); }
float toBfloat(float f) { return bfloat16ToFloat(floatToBfloat16(f)); }

/// As torch, float16 rounds uniform, radius, angle and product; bfloat16 rounds every operation.
void transform16(float* d, Dtype type) {
  for (int j = 0; j < 8; ++j) {
    const float u = d[j], v = d[j + 8];
    if (type == Dtype::Float16) {
      const float r = toHalf(std::sqrt(-2.0f * std::log(toHalf(1.0f - u))));
      const float angle = toHalf(static_cast<float>(kTwoPi * static_cast<double>(v)));
      d[j] = toHalf(r * std::cos(angle) + 0.0f);
      d[j + 8] = toHalf(r * std::sin(angle) + 0.0f);
    } else {
      const float r = toBfloat(std::sqrt(toBfloat(-2.0f * toBfloat(std::log(toBfloat(1.0f - u))))));
      const float angle = toBfloat(static_cast<float>(kTwoPi * static_cast<double>(v)));
      d[j] = toBfloat(r * toBfloat(std::cos(angle)) + 0.0f);
      d[j + 8] = toBfloat(r * toBfloat(std::sin(angle)) + 0.0f);
    }
  }
}

}  // namespace

TorchDraw::TorchDraw(TorchState& state, size_t count, Dtype type)
    : state_(state), left_(count), empty_(count == 0), small_(count < kTransform), type_(type) {
  position_ = kWords + 1 - static_cast<size_t>(state.left);
  for (size_t i = 0; i < kWords; ++i) words_[i] = static_cast<uint32_t>(state.state[i]);
}

TorchDraw::~TorchDraw() {
  if (empty_) return;
  state_.next = position_;
  state_.left = static_cast<int32_t>(kWords + 1 - position_);
  for (size_t i = 0; i < kWords; ++i) state_.state[i] = words_[i];
}

uint32_t TorchDraw::word() {
  if (position_ == kWords) {
    regenerate(words_);
    position_ = 0;
  }
  return temper(words_[position_++]);
}

double TorchDraw::uniformDouble() {
  const uint64_t high = word();
  return static_cast<double>((high << 32 | word()) & ((uint64_t{1} << 53) - 1)) * 0x1p-53;
}

float TorchDraw::smallNormal() {
  double value = state_.normalY;
  if (state_.normalIsValid) {
    state_.normalIsValid = 0;
  } else {
    const double u1 = uniformDouble(), u2 = uniformDouble();
    const double r = std::sqrt(-2.0 * std::log(1.0 - u2)), angle = kTwoPi * u1;
    state_.normalY = r * std::sin(angle);
    state_.normalIsValid = 1;
    value = r * std::cos(angle);
  }
  const float rounded = static_cast<float>(value);
  return type_ == Dtype::Float32 ? rounded : type_ == Dtype::Float16 ? toHalf(rounded) : toBfloat(rounded);
}

void TorchDraw::uniforms(float* out, size_t count) {
  const int bits = type_ == Dtype::Float32 ? 24 : type_ == Dtype::Float16 ? 11 : 8;
  const uint32_t mask = (1u << bits) - 1;
  const float unit = 1.0f / static_cast<float>(1u << bits);
  while (count > 0) {
    if (position_ == kWords) {
      regenerate(words_);
      position_ = 0;
    }
    const size_t available = std::min(count, kWords - position_);
    temperUniforms(out, words_ + position_, available, mask, unit);
    position_ += available;
    out += available;
    count -= available;
  }
}

void TorchDraw::transform(float* values, size_t count) {
  if (type_ == Dtype::Float32) {
    transformFloat(values, count / kTransform);
  } else {
    for (size_t i = 0; i + kTransform <= count; i += kTransform) transform16(values + i, type_);
  }
}

size_t TorchDraw::pieceOf(size_t wanted) const { return left_ < wanted + kTransform ? left_ : wanted; }

void TorchDraw::next(float* out, size_t count) {
  left_ -= count;
  if (small_) {
    for (size_t i = 0; i < count; ++i) out[i] = smallNormal();
    return;
  }
  uniforms(out, count);
  transform(out, count);
  if (count % kTransform != 0) {  // as torch, draws the last 16 again; the loop has drawn some of them
    float* const last = out + count - kTransform;
    uniforms(last, kTransform);
    transform(last, kTransform);
  }
}

}  // namespace cpu
}  // namespace score_sde
