// What happens to a batch when its sampling is over.
#pragma once

#include "cuda/kernels/batch.cuh"
#include "cuda/launch.hpp"
#include "math/ve.hpp"

namespace score_sde::cuda {

/// out = in, rounded to its type; scaled, shifted and clamped to [0, 1] where that is wanted.
template <bool kClamped>
__global__ void __launch_bounds__(kThreads) convertValues(const __grid_constant__ ClampParams p) {
  const uint64_t at = blockIdx.x * kConverted + 8 * threadIdx.x;
  const uint64_t left = at < p.count ? p.count - at : 0;
  const uint32_t count = static_cast<uint32_t>(left < 8 ? left : 8);
  const auto aligned = [](const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; };
  const bool whole = count == 8 && aligned(p.in.data) && aligned(p.out.data);
  const Bits<2> in = load<2>(p.in, at, count, whole);
  Bits<2> out = {};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float value = in.exact(p.in.type, i);
    out.set(p.out.type, i, kClamped ? clamp01(scaled(value, p.scale, p.shift)) : value);
  }
  store<2>(p.out, at, count, out, whole);
}

/// A thread to a pixel, whose channels lie side by side in the picture.
__global__ void __launch_bounds__(kThreads) imageGrid(const __grid_constant__ ImageGridParams p) {
  const uint64_t plane = static_cast<uint64_t>(p.height) * p.width;
  const uint64_t pixel = blockIdx.x * static_cast<uint64_t>(kThreads) + threadIdx.x;
  if (pixel >= p.count * plane) return;
  const uint64_t image = pixel / plane, at = pixel % plane, y = at / p.width, x = at % p.width;
  const uint64_t top = image / p.columns * p.height + y, side = image % p.columns * p.width + x;
  uint8_t* const out = p.out + (top * p.columns * p.width + side) * p.channels;
  for (uint64_t c = 0; c < p.channels; ++c) {
    const Bits<1> bits = load<1, false>(p.images, (image * p.channels + c) * plane + at, 1);
    out[c] = quantize(bits.value(p.images.type, 0));
  }
}

}  // namespace score_sde::cuda
