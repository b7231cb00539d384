#include "cpu/machine_rates.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <new>
#include <string>

#include "cpu/kernels.hpp"
#include "cpu/multiversion.hpp"
#include "cpu/torch_stream.hpp"
#include "threads/thread_pool.hpp"

namespace score_sde::cpu {
namespace {

using Clock = std::chrono::steady_clock;

MULTIVERSION void copy(float* __restrict c, const float* __restrict a, size_t count) {
  for (size_t i = 0; i < count; ++i) c[i] = a[i];
}

MULTIVERSION void triad(float* __restrict a, const float* __restrict b, const float* __restrict c, size_t count) {
  for (size_t i = 0; i < count; ++i) a[i] = b[i] + 3.0f * c[i];
}

/// The seconds of the fastest pass, among passes of a tenth of a second in all, at least ten.
template <class Pass>
double fastest(const Pass& pass) {
  double best = 1e9, total = 0.0;
  for (int i = 0; i < 10 || total < 0.1; ++i) {
    const auto start = Clock::now();
    pass();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

}  // namespace

Status streamRate(size_t elements, StreamRate& rate) {
  const std::unique_ptr<float[]> memory(elements > SIZE_MAX / 3 ? nullptr : new (std::nothrow) float[3 * elements]);
  if (memory == nullptr)
    return Status::error("ERR_MEMORY", "no memory for 3 arrays of " + std::to_string(elements) + " elements");
  float* const a = memory.get();
  float* const b = a + elements;
  float* const c = b + elements;
  std::fill_n(a, elements, 1.0f);
  std::fill_n(b, elements, 2.0f);
  std::fill_n(c, elements, 3.0f);
  auto& pool = ThreadPool::instance();
  // Measured with one piece a thread, and with one piece in all: for small arrays one thread is faster.
  const size_t share = (elements + static_cast<size_t>(pool.threads()) - 1) / static_cast<size_t>(pool.threads());
  for (const size_t grain : {share, elements}) {
    const double copied = fastest([&] {
      pool.forRange(elements, grain, [&](size_t begin, size_t end) { copy(c + begin, a + begin, end - begin); });
    });
    const double added = fastest([&] {
      pool.forRange(elements, grain,
                    [&](size_t begin, size_t end) { triad(a + begin, b + begin, c + begin, end - begin); });
    });
    rate.copy = std::max(rate.copy, 8.0 * static_cast<double>(elements) / copied);
    rate.triad = std::max(rate.triad, 12.0 * static_cast<double>(elements) / added);
  }
  return {};
}

double normalRate(Noise::Kind kind) {
  constexpr size_t kPasses = 8192;  // some milliseconds, long compared with waking the threads
  auto& pool = ThreadPool::instance();
  if (kind == Noise::Kind::Torch) {
    TorchState state;
    torchSeed(state, 1);
    alignas(64) float values[kBlock];
    return kPasses * kBlock / fastest([&] {
             TorchDraw draw(state, kPasses * kBlock, Dtype::Float32);
             for (size_t i = 0; i < kPasses; ++i) {
               TorchDraw::Piece piece = draw.begin(values, kBlock, false);
               draw.finish(piece);
             }
           });
  }
  const size_t threads = static_cast<size_t>(pool.threads());
  return static_cast<double>(threads * kPasses * kBlock) / fastest([&] {
           pool.forRange(threads * kPasses, kPasses, [](size_t begin, size_t end) {
             alignas(64) float values[kBlock];
             for (size_t i = begin; i < end; ++i) store(values, {.stream = {1, i * (kBlock / 4)}}, kBlock);
           });
         });
}

}  // namespace score_sde::cpu
