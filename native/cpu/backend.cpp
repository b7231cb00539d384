#include "cpu/backend.hpp"

#include <cstring>

#include "core/joined.hpp"
#include "cpu/blocks.hpp"
#include "cpu/step.hpp"

namespace score_sde::cpu {
namespace {

class CpuBackend final : public Backend {
 public:
  Status randn(const RandnParams& p) override {
    const Shape shape = joined(p.shape, p.noise);
    const bool plain = p.out.type == Dtype::Float32 && p.scale == 1.0f;
    forNoise(
        shape, p.noise, nullptr,
        [&](size_t row, size_t col, size_t n, Normals z, Scratch& scratch) {
          const size_t at = row * shape.cols + col;
          float* const out = blockTarget(p.out, at, scratch.out);
          // Normals of the output's own type need no rounding before they are narrowed.
          if (z.type == p.out.type && p.scale == 1.0f) z.type = Dtype::Float32;
          if (z.values != out) store(out, z, n, p.scale);
          writeBlock(p.out, at, n, out);
        },
        plain ? static_cast<float*>(p.out.data) : nullptr);
    return {};
  }

  Status step(const StepParams& p, std::vector<uint32_t>* bad) override { return cpu::step(p, bad); }

  Status convert(ConstView in, View out, size_t count) override {
    forBlocks({1, count}, [&](size_t, size_t at, size_t n, Scratch& scratch) {
      float* const block = blockTarget(out, at, scratch.out);
      const float* const values = readBlock(in, at, n, block);
      if (values != block) std::memcpy(block, values, n * sizeof(float));
      writeBlock(out, at, n, block);
    });
    return {};
  }

  Status clamp(const ClampParams& p) override {
    forBlocks({1, p.count}, [&](size_t, size_t at, size_t n, Scratch& scratch) {
      float* const block = blockTarget(p.out, at, scratch.out);
      cpu::clamp(block, readBlock(p.in, at, n, scratch.sample), n, p.scale, p.shift);
      writeBlock(p.out, at, n, block);
    });
    return {};
  }

  Status imageGrid(const ImageGridParams& p) override {
    const size_t plane = p.height * p.width, pitch = p.columns * p.width * p.channels;
    forBlocks({p.count * p.channels, plane}, [&](size_t row, size_t at, size_t n, Scratch& scratch) {
      const size_t image = row / p.channels, channel = row % p.channels;
      uint8_t* const corner = p.out + image / p.columns * p.height * pitch + image % p.columns * p.width * p.channels;
      uint8_t bytes[kBlock];
      quantize(bytes, readBlock(p.images, row * plane + at, n, scratch.sample), n);
      for (size_t i = 0; i < n; ++i) {
        const size_t y = (at + i) / p.width, x = (at + i) % p.width;
        corner[y * pitch + x * p.channels + channel] = bytes[i];
      }
    });
    return {};
  }
};

}  // namespace

Backend& backend() {
  static auto* const instance = new CpuBackend;  // for good: threads may be at work while the process exits
  return *instance;
}

}  // namespace score_sde::cpu
