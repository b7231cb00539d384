#include "cpu/backend.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>

#include "core/joined.hpp"
#include "cpu/noise_source.hpp"
#include "math/half.hpp"
#include "math/mean.hpp"
#include "math/ve.hpp"

namespace score_sde::cpu {
namespace {

constexpr size_t kGrain = 16;  // blocks to a piece of work: about 10 us
constexpr size_t kAlone = 64;  // blocks that are done before a second thread is awake

size_t blocksOf(Shape shape) { return shape.rows * sumGroups(shape.cols); }

/// visit(row, col, count, scratch) for every block of every row, on the pool.
template <class Visit>
void forBlocks(Shape shape, const Visit& visit) {
  const size_t perRow = sumGroups(shape.cols);
  const size_t blocks = blocksOf(shape);
  ThreadPool::instance().forRange(blocks, blocks <= kAlone ? kAlone : kGrain, [&](size_t begin, size_t end) {
    Scratch scratch;
    for (size_t b = begin; b < end; ++b) {
      const size_t col = b % perRow * kBlock;
      visit(b / perRow, col, std::min(kBlock, shape.cols - col), scratch);
    }
  });
}

/// visit(row, col, count, values) for the parts of rows in the flat range [at, at + count).
template <class Visit>
void forSegments(Shape shape, size_t at, size_t count, const float* values, const Visit& visit) {
  while (count > 0) {
    const size_t col = at % shape.cols, take = std::min({count, shape.cols - col, kBlock});
    visit(at / shape.cols, col, take, values);
    at += take;
    values += take;
    count -= take;
  }
}

/// visit(row, col, count, noise, scratch) with the normals of each part, wherever they come from. A serial stream is
/// drawn into `into`, the batch's memory, where it is not null.
template <class Visit>
void forNoise(Shape shape, const Noise& noise, const Visit& visit, float* into = nullptr) {
  if (noise.kind == Noise::Kind::Torch) {
    drawTorch(noise, shape, into, [&](size_t at, size_t count, const float* values) {
      Scratch scratch;
      forSegments(shape, at, count, values, [&](size_t row, size_t col, size_t n, const float* z) {
        visit(row, col, n, Normals{z, {}}, scratch);
      });
    });
    return;
  }
  const NoiseSource source(noise, shape);
  forBlocks(shape, [&](size_t row, size_t col, size_t n, Scratch& scratch) {
    visit(row, col, n, source.normals(row, col, n, scratch), scratch);
  });
}

/// Whether what all threads wrote is finite.
class Finite {
 public:
  void see(bool finite) {
    if (!finite) all_.store(false, std::memory_order_relaxed);
  }
  void report(bool* finite) const {
    if (finite != nullptr) *finite = all_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<bool> all_{true};
};

/// The upper levels of the sum tree, in place over a row's block sums.
double foldLevels(double* sums, size_t count) {
  while (count > 1) {
    const size_t groups = sumGroups(count);
    for (size_t g = 0; g < groups; ++g)
      sums[g] = sumGroup(sums + g * kSumGroup, std::min(kSumGroup, count - g * kSumGroup));
    count = groups;
  }
  return count == 0 ? 0.0 : sums[0];
}

class CpuBackend final : public Backend {
 public:
  Status randn(const RandnParams& p) override {
    const Shape shape = joined(p.shape, p.noise, {});
    const bool plain = p.out.type == Dtype::Float32 && p.scale == 1.0f;
    forNoise(
        shape, p.noise,
        [&](size_t row, size_t col, size_t n, const Normals& z, Scratch& scratch) {
          const size_t at = row * shape.cols + col;
          float* const out = blockTarget(p.out, at, scratch.out);
          if (z.values != out) store(out, z, n, p.scale);
          writeBlock(p.out, at, n, out);
        },
        plain ? static_cast<float*>(p.out.data) : nullptr);
    return {};
  }

  Status stepPred(const StepPredParams& p, bool* finite) override {
    const Shape shape = joined(p.shape, p.noise, {&p.sigma, &p.adjacentSigma});
    Finite written;
    forNoise(shape, p.noise, [&](size_t row, size_t col, size_t n, const Normals& z, Scratch& scratch) {
      const size_t at = row * shape.cols + col;
      const float d = diffusion(p.sigma[row], p.adjacentSigma[row]);
      const float* const x = readBlock(p.sample, at, n, scratch.sample);
      const float* const m = readBlock(p.modelOutput, at, n, scratch.score);
      float* const out = blockTarget(p.out, at, scratch.out);
      float* const mean = p.mean.data == nullptr ? nullptr : blockTarget(p.mean, at, scratch.mean);
      written.see(predict(out, mean, x, m, z, n, d));
      if (mean != nullptr) writeBlock(p.mean, at, n, mean);
      writeBlock(p.out, at, n, out);
    });
    written.report(finite);
    return {};
  }

  Status stepCorrect(const StepCorrectParams& p, bool* finite) override {
    PerRow steps{std::vector<float>(p.shape.rows)};
    std::vector<double> noiseSums;
    const bool measuresNoise = p.stepSize == StepSize::Batch || p.stepSize == StepSize::Sample;
    // Noise whose norm is measured is needed twice. It waits in `out` where that is free to hold it, in memory of its
    // own where it cannot be drawn again, and is drawn again otherwise.
    Noise stored;
    std::unique_ptr<float[]> own;
    const Noise* second = &p.noise;
    if (p.stepSize == StepSize::Ald) {
      for (size_t r = 0; r < p.shape.rows; ++r) steps.values[r] = annealedStep(p.snr[r], p.sigma[r]);
    } else if (!measuresNoise || p.noise.kind == Noise::Kind::Given) {
      measure(p, NoiseSource(p.noise, p.shape), nullptr, noiseSums, steps.values);
    } else {
      // One serial stream, and one stream over short rows, are best drawn in one go, ahead of the norms.
      const bool serial = p.noise.kind == Noise::Kind::Torch;
      const bool ahead = serial || (p.noise.streams() == 1 && p.shape.cols < kBlock && p.shape.rows > 1);
      const bool free = p.out.type == Dtype::Float32 && p.out.data != p.sample.data && p.out.data != p.modelOutput.data;
      float* kept = free ? static_cast<float*>(p.out.data) : nullptr;
      if (kept == nullptr && ahead) {
        own.reset(new (std::nothrow) float[p.shape.size()]);
        if (own == nullptr) return Status::error("ERR_MEMORY", "stepCorrect: no memory for the noise");
        kept = own.get();
      }
      if (kept != nullptr) {
        stored.given = {kept, Dtype::Float32};
        second = &stored;
      }
      if (ahead) {
        const Shape shape = joined(p.shape, p.noise, {});
        // Blocks of the draw that are the rows' own are summed while they are in the cache.
        const bool whole = p.shape.cols % kBlock == 0;
        if (whole) noiseSums.resize(blocksOf(p.shape));
        const auto keep = [&](size_t row, size_t col, size_t n, const Normals& z, Scratch&) {
          const size_t at = row * shape.cols + col;
          if (z.values != kept + at) store(kept + at, z, n);
          if (whole) noiseSums[at / kBlock] = sumSquares(kept + at, n);
        };
        forNoise(shape, p.noise, keep, kept);
      }
      measure(p, NoiseSource(ahead ? stored : p.noise, p.shape), ahead ? nullptr : kept, noiseSums, steps.values);
    }

    const Shape shape = joined(p.shape, *second, {&steps});
    Finite written;
    forNoise(shape, *second, [&](size_t row, size_t col, size_t n, const Normals& z, Scratch& scratch) {
      const size_t at = row * shape.cols + col;
      const float* const x = readBlock(p.sample, at, n, scratch.sample);
      const float* const m = readBlock(p.modelOutput, at, n, scratch.score);
      float* const out = blockTarget(p.out, at, scratch.out);
      written.see(correct(out, x, m, z, n, steps[row], noiseScale(steps[row])));
      writeBlock(p.out, at, n, out);
    });
    written.report(finite);
    return {};
  }

  Status addNoise(const AddNoiseParams& p) override {
    const Shape shape = joined(p.shape, p.noise, {&p.sigma});
    forNoise(shape, p.noise, [&](size_t row, size_t col, size_t n, const Normals& z, Scratch& scratch) {
      const size_t at = row * shape.cols + col;
      float* const out = blockTarget(p.out, at, scratch.out);
      perturb(out, readBlock(p.sample, at, n, scratch.sample), z, n, p.sigma[row]);
      writeBlock(p.out, at, n, out);
    });
    return {};
  }

  Status convert(ConstView in, View out, size_t count) override {
    forBlocks({1, count}, [&](size_t, size_t at, size_t n, Scratch& scratch) {
      float* const block = blockTarget(out, at, scratch.out);
      const float* const values = readBlock(in, at, n, block);
      if (values != block) std::memcpy(block, values, n * sizeof(float));
      writeBlock(out, at, n, block);
    });
    return {};
  }

  Status clamp(ConstView in, View out, size_t count) override {
    forBlocks({1, count}, [&](size_t, size_t at, size_t n, Scratch& scratch) {
      float* const block = blockTarget(out, at, scratch.out);
      cpu::clamp(block, readBlock(in, at, n, scratch.sample), n);
      writeBlock(out, at, n, block);
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

 private:
  /// The corrector's step of each row from the norms of the gradient and, where it is measured, of the noise: of its
  /// blocks' sums, or of itself where there are none. Noise that is drawn for it is kept where `kept` is not null.
  static void measure(const StepCorrectParams& p, const NoiseSource& noise, float* kept, std::vector<double>& noiseSums,
                      std::vector<float>& steps) {
    const size_t rows = p.shape.rows, cols = p.shape.cols, perRow = sumGroups(cols);
    const bool batch = p.stepSize == StepSize::Batch, measuresNoise = batch || p.stepSize == StepSize::Sample;
    const bool sumsNoise = measuresNoise && noiseSums.empty();
    std::vector<double> gradSums(rows * perRow);
    if (sumsNoise) noiseSums.resize(rows * perRow);
    forBlocks(p.shape, [&](size_t row, size_t col, size_t n, Scratch& scratch) {
      const size_t at = row * cols + col, group = row * perRow + col / kBlock;
      gradSums[group] = sumSquares(readBlock(p.modelOutput, at, n, scratch.score), n);
      if (!sumsNoise) return;
      float* const buffer = kept == nullptr ? scratch.noise : kept + at;
      const float* const z = noise.values(row, col, n, buffer, scratch);
      noiseSums[group] = sumSquares(z, n);
      if (kept != nullptr && z != buffer) std::memcpy(buffer, z, n * sizeof(float));
    });
    std::vector<float> gradNorms(rows), noiseNorms(rows, std::sqrt(static_cast<float>(cols)));
    for (size_t r = 0; r < rows; ++r) {
      gradNorms[r] = normOf(foldLevels(gradSums.data() + r * perRow, perRow));
      if (measuresNoise) noiseNorms[r] = normOf(foldLevels(noiseSums.data() + r * perRow, perRow));
      if (batch) gradNorms[r] = rounded(gradNorms[r], p.modelOutput.type);  // torch.norm returns its argument's type
    }
    if (batch) {
      const float grad = rounded(batchMean(gradNorms.data(), rows), p.modelOutput.type);
      const float drawn = batchMean(noiseNorms.data(), rows);
      for (size_t r = 0; r < rows; ++r) steps[r] = langevinStep(p.snr[r], drawn, grad);
    } else {
      for (size_t r = 0; r < rows; ++r) steps[r] = langevinStep(p.snr[r], noiseNorms[r], gradNorms[r]);
    }
  }
};

}  // namespace

Backend& backend() {
  static auto* const instance = new CpuBackend;  // for good: threads may be at work while the process exits
  return *instance;
}

}  // namespace score_sde::cpu
