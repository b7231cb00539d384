// Access to a batch's elements, four or eight at a time, and the normals that are drawn for them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "core/params.hpp"
#include "math/half.hpp"
#include "math/normal.hpp"

namespace score_sde::cuda {

/// The element types of all operands of a kernel: one that the compiler knows, or any, found in the views at run time.
enum class Types : uint8_t { Float32 = 0, Float16 = 1, Bfloat16 = 2, Mixed = 3 };

/// A view whose type the compiler knows where kTypes says it.
template <Types kTypes, class SomeView>
__device__ inline SomeView typed(SomeView view) {
  if (kTypes != Types::Mixed) view.type = static_cast<Dtype>(kTypes);
  return view;
}

/// Four elements of a row from column `col` on, `count` of them there.
struct Quad {
  uint64_t at = 0;   // of the first in the batch
  uint64_t col = 0;  // in its row
  uint32_t count = 0;
};

__device__ inline Quad quadAt(uint64_t row, uint64_t cols, uint64_t col) {
  const uint64_t left = col < cols ? cols - col : 0;
  return {row * cols + col, col, static_cast<uint32_t>(left < 4 ? left : 4)};
}

/// The least magnitude that is infinite once it has a type.
__device__ inline float limitOf(Dtype type) {
  return floatOf(type == Dtype::Float32 ? 0x7f800000u : type == Dtype::Float16 ? kFloat16Limit : kBfloat16Limit);
}

/// Two values as a word of a 16-bit type, by the device's conversion: a NaN is not the one that math/half.hpp gives.
__device__ inline uint32_t halves(Dtype type, float low, float high) {
  uint32_t word;
  if (type == Dtype::Float16) {
    const __half2 pair = __floats2half2_rn(low, high);
    std::memcpy(&word, &pair, sizeof word);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    std::memcpy(&word, &pair, sizeof word);
  }
  return word;
}

/// Adjacent quads as they lie in memory: float32 words, or pairs of 16 bits. Loaded first and widened later, so that
/// the loads of all operands are under way together.
template <int kQuads>
struct Bits {
  uint32_t word[4 * kQuads];

  /// An element for arithmetic: a NaN of float16 is one of the device's.
  __device__ float value(Dtype type, int i) const {
    return type == Dtype::Float16 ? __half2float(__ushort_as_half(half(i))) : exact(type, i);
  }

  /// An element with a NaN's bits.
  __device__ float exact(Dtype type, int i) const {
    if (type == Dtype::Float32) return floatOf(word[i]);
    if (type == Dtype::Float16) return float16ToFloat(half(i));
    return floatOf(i % 2 == 0 ? word[i / 2] << 16 : word[i / 2] & 0xffff0000u);
  }

  __device__ void set(Dtype type, int i, float value) {
    if (type == Dtype::Float32) {
      word[i] = bitsOf(value);
      return;
    }
    const uint32_t half = type == Dtype::Float16 ? floatToFloat16(value) : floatToBfloat16(value);
    word[i / 2] = i % 2 == 0 ? half : word[i / 2] | half << 16;
  }

  /// All elements at once; `nan` says whether one may be NaN.
  __device__ void setAll(Dtype type, const float* values, bool nan) {
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i)
      if (type == Dtype::Float32)
        word[i] = bitsOf(values[i]);
      else if (i % 2 == 0)
        word[i / 2] = halves(type, values[i], values[i + 1]);
    if (type == Dtype::Float32 || !nan) return;
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) set(type, i, values[i]);
  }

  /// Whether element i is NaN or infinite.
  __device__ bool isBad(Dtype type, int i) const {
    const float value = exact(type, i);
    return !(std::fabs(value) < floatOf(0x7f800000u));
  }

 private:
  __device__ uint16_t half(int i) const { return static_cast<uint16_t>(word[i / 2] >> (i % 2 * 16)); }
};

/// Whether one of `count` values is not finite once it has a type.
template <int kCount>
__device__ inline bool anyBad(Dtype type, const float (&values)[kCount], uint32_t count) {
  bool bad = false;
#pragma unroll
  for (uint32_t i = 0; i < kCount; ++i) bad |= i < count && !(std::fabs(values[i]) < limitOf(type));
  return bad;
}

/// `count` elements of the quads from flat element `at` on; with kWhole all of them, from a multiple of 16 bytes on for
/// two quads or float32, of 8 for one of 16 bits, at once.
template <int kQuads, bool kWhole>
__device__ inline Bits<kQuads> load(ConstView view, uint64_t at, uint32_t count) {
  Bits<kQuads> bits = {};
  const auto take = [&](auto vector, int first) {  // words
    std::memcpy(bits.word + first, &vector, sizeof vector);
  };
  if (view.type == Dtype::Float32) {
    const float* const p = static_cast<const float*>(view.data) + at;
    if constexpr (kWhole) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q) take(reinterpret_cast<const uint4*>(p)[q], 4 * q);
    } else {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
        if (static_cast<uint32_t>(i) < count) bits.word[i] = bitsOf(p[i]);
    }
  } else {
    const uint16_t* const p = static_cast<const uint16_t*>(view.data) + at;
    if constexpr (kWhole) {
      using Vector = typename std::conditional<kQuads == 2, uint4, uint2>::type;
      take(*reinterpret_cast<const Vector*>(p), 0);
    } else {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
        if (static_cast<uint32_t>(i) < count) bits.word[i / 2] |= static_cast<uint32_t>(p[i]) << (i % 2 * 16);
    }
  }
  return bits;
}

/// __stwb is a plain store that the compiler does not take apart into the single ones that may stand beside it.
template <int kQuads, bool kWhole>
__device__ inline void store(View view, uint64_t at, uint32_t count, const Bits<kQuads>& bits) {
  const uint32_t(&w)[4 * kQuads] = bits.word;
  if (view.type == Dtype::Float32) {
    float* const p = static_cast<float*>(view.data) + at;
    if constexpr (kWhole) {
#pragma unroll
      for (int q = 0; q < kQuads; ++q)
        __stwb(reinterpret_cast<uint4*>(p) + q, uint4{w[4 * q], w[4 * q + 1], w[4 * q + 2], w[4 * q + 3]});
    } else {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
        if (static_cast<uint32_t>(i) < count) p[i] = floatOf(w[i]);
    }
  } else {
    uint16_t* const p = static_cast<uint16_t*>(view.data) + at;
    if constexpr (kWhole && kQuads == 2) {
      __stwb(reinterpret_cast<uint4*>(p), uint4{w[0], w[1], w[2], w[3]});
    } else if constexpr (kWhole) {
      __stwb(reinterpret_cast<uint2*>(p), uint2{w[0], w[1]});
    } else {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
        if (static_cast<uint32_t>(i) < count) p[i] = static_cast<uint16_t>(w[i / 2] >> (i % 2 * 16));
    }
  }
}

/// The same, whole or not.
template <int kQuads>
__device__ inline Bits<kQuads> load(ConstView view, uint64_t at, uint32_t count, bool whole) {
  return whole ? load<kQuads, true>(view, at, count) : load<kQuads, false>(view, at, count);
}
template <int kQuads>
__device__ inline void store(View view, uint64_t at, uint32_t count, const Bits<kQuads>& bits, bool whole) {
  if (whole)
    store<kQuads, true>(view, at, count, bits);
  else
    store<kQuads, false>(view, at, count, bits);
}

/// Four normals of a stream from its element `element` on. kWhole says that it is a counter's first; else it may stand
/// within one.
template <bool kWhole = false>
__device__ inline void draw(float* z, PhiloxStream stream, uint64_t element) {
  const uint64_t counter = stream.counter + element / 4;
  const Normals4 first = normalsOf(counter, stream.key);
#pragma unroll
  for (int i = 0; i < 4; ++i) z[i] = first.values[i];
  if constexpr (!kWhole) {
    const uint32_t phase = element % 4;
    if (phase == 0) return;
    Normals4 next = normalsOf(counter + 1, stream.key);
    for (uint32_t k = 0; k < phase; ++k) {
      z[0] = z[1];
      z[1] = z[2];
      z[2] = z[3];
      z[3] = next.values[0];
      next.values[0] = next.values[1];
      next.values[1] = next.values[2];
      next.values[2] = next.values[3];
    }
  }
}

/// Rounds values to a type that is not float32's; none of them is NaN.
template <int kCount>
__device__ inline void roundAll(Dtype type, float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; i += 2) {
    Bits<1> pair = {{halves(type, values[i], values[i + 1])}};
    values[i] = pair.value(type, 0);
    values[i + 1] = pair.value(type, 1);
  }
}

}  // namespace score_sde::cuda
