#include "cpu/torch_stream.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/conversions.hpp"
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

/// A word's low bits, as many as torch makes a uniform in [0, 1) of.
constexpr int bitsOfUniform(Dtype type) { return type == Dtype::Float32 ? 24 : type == Dtype::Float16 ? 11 : 8; }

constexpr size_t kPairs = 512;  // pairs a pass: three arrays fit the first-level cache

/// A float32 uniform in [0, 1) of a word.
HD float uniformOf(uint32_t word) {
  constexpr uint32_t mask = (1u << bitsOfUniform(Dtype::Float32)) - 1;
  return static_cast<float>(static_cast<int32_t>(temper(word) & mask)) * 0x1p-24f;
}

MULTIVERSION void uniforms(float* __restrict out, const uint32_t* __restrict words, size_t count) {
  for (size_t i = 0; i < count; ++i) out[i] = uniformOf(words[i]);
}

MULTIVERSION void transformFloat(float* values, size_t blocks, bool raw) {
  alignas(64) float u[kPairs], v[kPairs];
  for (size_t done = 0; done < blocks; done += kPairs / 8) {
    const size_t count = std::min(blocks - done, kPairs / 8);
    float* const d = values + 16 * done;
    if (raw)
      for (size_t i = 0; i < 16 * count; ++i) d[i] = uniformOf(bitsOf(d[i]));
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

/// What Box-Muller makes of the uniforms of a 16-bit type, k / kSize: the radius of the first of a pair, the direction
/// of the second. As torch, float16 rounds uniform, radius and angle; bfloat16 rounds every operation.
template <Dtype kType>
struct Table {
  static constexpr size_t kSize = size_t{1} << bitsOfUniform(kType);
  struct Direction {
    float cosine, sine;
  };
  float radius[kSize];
  Direction direction[kSize];

  Table() {
    const auto round = [](float value) { return rounded(value, kType); };
    const auto inner = [](float value) { return kType == Dtype::Bfloat16 ? rounded(value, kType) : value; };
    for (size_t k = 0; k < kSize; ++k) {
      const float uniform = static_cast<float>(k) / kSize;
      radius[k] = round(std::sqrt(inner(-2.0f * inner(std::log(round(1.0f - uniform))))));
      const float angle = round(static_cast<float>(kTwoPi * static_cast<double>(uniform)));
      direction[k] = {inner(std::cos(angle)), inner(std::sin(angle))};
    }
  }

  /// Made at the first use.
  static const Table& instance() {
    static const Table table;
    return table;
  }
};

MULTIVERSION void temperWords(float* values, size_t count, uint32_t mask) {
  for (size_t i = 0; i < count; ++i) values[i] = floatOf(temper(bitsOf(values[i])) & mask);
}

template <Dtype kType>
void transformByTable(float* values, size_t count) {
  const Table<kType>& table = Table<kType>::instance();
  for (size_t done = 0; done < count; done += 2 * kPairs) {
    const size_t n = std::min(count - done, 2 * kPairs);
    float* const d = values + done;
    temperWords(d, n, Table<kType>::kSize - 1);
    for (size_t i = 0; i < n; i += 16) {
      for (size_t j = i; j < i + 8; ++j) {
        const float radius = table.radius[bitsOf(d[j])];
        const auto [cosine, sine] = table.direction[bitsOf(d[j + 8])];
        d[j] = radius * cosine + 0.0f;
        d[j + 8] = radius * sine + 0.0f;
      }
    }
    roundTo(d, n, kType);
  }
}

/// Normals of the words, or uniforms, of whole blocks of 16.
void transform(float* values, size_t count, Dtype type, bool raw) {
  if (type == Dtype::Float32) return transformFloat(values, count / TorchDraw::kTransform, raw);
  type == Dtype::Float16 ? transformByTable<Dtype::Float16>(values, count)
                         : transformByTable<Dtype::Bfloat16>(values, count);
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
  return rounded(static_cast<float>(value), type_);
}

void TorchDraw::words(void* out, size_t count, bool raw) {
  char* to = static_cast<char*>(out);
  while (count > 0) {
    if (position_ == kWords) {
      regenerate(words_);
      position_ = 0;
    }
    const size_t available = std::min(count, kWords - position_);
    if (raw) {
      std::memcpy(to, words_ + position_, available * sizeof(uint32_t));
    } else {
      uniforms(reinterpret_cast<float*>(to), words_ + position_, available);
    }
    position_ += available;
    to += available * sizeof(uint32_t);
    count -= available;
  }
}

size_t TorchDraw::pieceOf(size_t wanted) const { return left_ < wanted + kTransform ? left_ : wanted; }

TorchDraw::Piece TorchDraw::begin(float* values, size_t count, bool raw) {
  left_ -= count;
  Piece piece{values, count, raw || type_ != Dtype::Float32, {}};
  if (small_) {
    for (size_t i = 0; i < count; ++i) values[i] = smallNormal();
  } else {
    words(values, count, piece.isRaw);
    if (count % kTransform != 0) words(piece.last, kTransform, piece.isRaw);
  }
  return piece;
}

void TorchDraw::finish(Piece& piece) const {
  if (small_) return;
  const size_t rest = piece.count % kTransform;
  transform(piece.values, piece.count - rest, type_, piece.isRaw);
  if (rest == 0) return;
  // As torch, the last 16 elements are drawn again, some of which the whole blocks hold.
  float* const last = piece.values + piece.count - kTransform;
  std::memcpy(last, piece.last, sizeof piece.last);
  transform(last, kTransform, type_, piece.isRaw);
}

}  // namespace cpu
}  // namespace score_sde
