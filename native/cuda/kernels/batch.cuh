// Access to a batch's elements, four or eight at a time, and the normals that are drawn for them.
#pragma once

#include <cuda_runtime.h>

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

template <class Vector>
__device__ inline bool aligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(Vector) == 0;
}

/// Adjacent quads as they lie in memory: float32 words, or pairs of 16 bits. Loaded first and widened later, so that
/// the loads of all operands are under way together.
template <int kQuads>
struct Bits {
  uint32_t word[4 * kQuads];

  __device__ float value(Dtype type, int i) const {
    if (type == Dtype::Float32) return floatOf(word[i]);
    const uint16_t half = static_cast<uint16_t>(word[i / 2] >> (i % 2 * 16));
    return type == Dtype::Float16 ? float16ToFloat(half) : bfloat16ToFloat(half);
  }

  __device__ void set(Dtype type, int i, float value) {
    if (type == Dtype::Float32) {
      word[i] = bitsOf(value);
      return;
    }
    const uint32_t half = type == Dtype::Float16 ? floatToFloat16(value) : floatToBfloat16(value);
    word[i / 2] = i % 2 == 0 ? half : word[i / 2] | half << 16;
  }

  /// Whether element i is NaN or infinite.
  __device__ bool isBad(Dtype type, int i) const {
    if (type == Dtype::Float32) return (word[i] & 0x7f800000u) == 0x7f800000u;
    const uint32_t exponent = (type == Dtype::Float16 ? 0x7c00u : 0x7f80u) << (i % 2 * 16);
    return (word[i / 2] & exponent) == exponent;
  }
};

/// `count` elements of the quads from flat element `at` on; 128 bits at once where they are whole and aligned.
template <int kQuads>
__device__ inline Bits<kQuads> load(ConstView view, uint64_t at, uint32_t count) {
  using Half = typename std::conditional<kQuads == 2, uint4, uint2>::type;
  Bits<kQuads> bits = {};
  if (view.type == Dtype::Float32) {
    const float* const p = static_cast<const float*>(view.data) + at;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      if (count >= 4u * (q + 1) && aligned<uint4>(p)) {
        const uint4 v = reinterpret_cast<const uint4*>(p)[q];
        bits.word[4 * q] = v.x;
        bits.word[4 * q + 1] = v.y;
        bits.word[4 * q + 2] = v.z;
        bits.word[4 * q + 3] = v.w;
      } else {
#pragma unroll
        for (int i = 4 * q; i < 4 * q + 4; ++i)
          if (static_cast<uint32_t>(i) < count) bits.word[i] = bitsOf(p[i]);
      }
    }
  } else {
    const uint16_t* const p = static_cast<const uint16_t*>(view.data) + at;
    if (count == 4 * kQuads && aligned<Half>(p)) {
      const Half v = *reinterpret_cast<const Half*>(p);
      bits.word[0] = v.x;
      bits.word[1] = v.y;
      if constexpr (kQuads == 2) {
        bits.word[2] = v.z;
        bits.word[3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
        if (static_cast<uint32_t>(i) < count) bits.word[i / 2] |= static_cast<uint32_t>(p[i]) << (i % 2 * 16);
    }
  }
  return bits;
}

template <int kQuads>
__device__ inline void store(View view, uint64_t at, uint32_t count, const Bits<kQuads>& bits) {
  using Half = typename std::conditional<kQuads == 2, uint4, uint2>::type;
  if (view.type == Dtype::Float32) {
    float* const p = static_cast<float*>(view.data) + at;
#pragma unroll
    for (int q = 0; q < kQuads; ++q) {
      if (count >= 4u * (q + 1) && aligned<uint4>(p)) {
        reinterpret_cast<uint4*>(p)[q] = {bits.word[4 * q], bits.word[4 * q + 1], bits.word[4 * q + 2],
                                          bits.word[4 * q + 3]};
      } else {
#pragma unroll
        for (int i = 4 * q; i < 4 * q + 4; ++i)
          if (static_cast<uint32_t>(i) < count) p[i] = floatOf(bits.word[i]);
      }
    }
  } else {
    uint16_t* const p = static_cast<uint16_t*>(view.data) + at;
    if (count == 4 * kQuads && aligned<Half>(p)) {
      if constexpr (kQuads == 2)
        *reinterpret_cast<Half*>(p) = {bits.word[0], bits.word[1], bits.word[2], bits.word[3]};
      else
        *reinterpret_cast<Half*>(p) = {bits.word[0], bits.word[1]};
    } else {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i)
        if (static_cast<uint32_t>(i) < count) p[i] = static_cast<uint16_t>(bits.word[i / 2] >> (i % 2 * 16));
    }
  }
}

/// Four normals of a stream from its element `element` on, which may stand within a counter.
__device__ inline void draw(float* z, PhiloxStream stream, uint64_t element) {
  const uint64_t counter = stream.counter + element / 4;
  const Normals4 first = normalsOf(counter, stream.key);
#pragma unroll
  for (int i = 0; i < 4; ++i) z[i] = first.values[i];
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

}  // namespace score_sde::cuda
