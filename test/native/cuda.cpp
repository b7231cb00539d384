// Every operation of the CUDA backend against the CPU backend, bit for bit: all types, rows of any kind, length and
// alignment, one stream or one a row, few rows or many, every launch that a corrector has. Prints what was compared, or
// the first difference. See kernels.test.ts.
#include "threads/thread_pool.hpp"
#include "cuda/launch.hpp"
#include "graphs.hpp"
#include "steps.hpp"

namespace score_sde::parity {
namespace {

void randn(const Case& c) {
  if (c.source == Source::Given || c.source == Source::Mixed) return;
  label = "randn " + show(c);
  Operands o(c);
  for (const Place place : {Place::Host, Place::Device}) {
    RandnParams p;
    p.shape = c.shape;
    p.noise = noiseOf(c, {}, c.sample);
    p.scale = 50.0f;
    p.out = in(o.out, place);
    check(on(place).randn(p));
  }
  o.out.compare();
}

void images(const Case& c) {
  label = "clamp, convert " + show(c);
  Operands o(c);
  for (const Place place : {Place::Host, Place::Device}) {
    check(on(place).clamp({c.shape.size(), in(o.sample, place), in(o.out, place), 0.5f, 0.25f}));
    check(on(place).convert(in(o.sample, place), in(o.mean, place), c.shape.size()));
    check(on(place).clamp({c.shape.size(), in(o.output, place), in(o.pushed, place)}));
  }
  compareAll(o);
}

void grid() {
  label = "imageGrid";
  for (const Dtype type : kTypes) {
    Memory pictures(type, 5 * 3 * 7 * 9, 1, true);
    std::vector<uint8_t> expected(2 * 7 * 3 * 9 * 3, 9);
    const Uploaded<uint8_t> found(expected);
    for (const Place place : {Place::Host, Place::Device})
      check(on(place).imageGrid(
          {5, 3, 7, 9, 3, in(pictures, place), place == Place::Host ? expected.data() : found.data()}));
    if (expected != found.values()) fail("differs");
    compared += expected.size();
  }
}

void all(const Case& c) {
  randn(c);
  steps(c);
  images(c);
}

/// A device that has no cooperative launches, or does not tell of its clusters, does without.
void withoutClusters() {
  for (const char* fault : {"cudaOccupancyMaxPotentialClusterSize 1 999", "cudaFuncSetAttribute 1 1"}) {
    setenv("EMULATED_FAULT", fault, 1);
    context.reset();
    check(cuda::open(0, context));
    unsetenv("EMULATED_FAULT");
    for (const size_t cols : {1000, 9000}) {
      const Case c{{2, cols}, Dtype::Float32, Dtype::Float32, Dtype::Float32, 0, Source::Stream};
      step("correct without clusters", c, rowsOf(c, [&] { return anyRow(c, 1); }));
    }
    setenv("EMULATED_ALONE", "1", 1);
  }
  unsetenv("EMULATED_ALONE");
  context.reset();
  check(cuda::open(0, context));
}

void plans() {
  label = "plans";
  using Kind = cuda::CorrectPlan::Kind;
  const auto expect = [](Shape shape, cuda::Traits device, Kind kind, uint32_t blocks) {
    const cuda::CorrectPlan plan = cuda::correctPlan(shape, device);
    if (plan.kind == kind && plan.blocks == blocks) return;
    fail(std::to_string(shape.rows) + "x" + std::to_string(shape.cols) + ": kind " + std::to_string(int(plan.kind)) +
         ", " + std::to_string(plan.blocks) + " blocks");
  };
  const cuda::Traits h100{9, 132, 16}, consumer{12, 170, 8}, ampere{8, 108, 0}, alone{9, 0, 16}, large{10, 300, 16};
  expect({16, 3 * 32 * 32}, h100, Kind::Cluster, 16);
  expect({1, 1}, h100, Kind::Cluster, 1);
  expect({8, 3 * 32 * 32}, h100, Kind::Cluster, 8);
  expect({64, 3 * 32 * 32}, h100, Kind::Cooperative, 48);
  expect({16, 3 * 32 * 32}, consumer, Kind::Cooperative, 12);
  expect({16, 3 * 32 * 32}, ampere, Kind::Cooperative, 12);
  expect({1, 3 * 32 * 32}, ampere, Kind::Cooperative, 1);
  expect({1, 132 * 4096}, h100, Kind::Cooperative, 132);
  expect({1, 132 * 4096 + 1}, h100, Kind::Split, 0);
  expect({513, 4}, h100, Kind::Split, 0);
  expect({8, 3 * 256 * 256}, h100, Kind::Split, 0);
  expect({4, 3 * 1024 * 1024}, h100, Kind::Split, 0);
  expect({16, 3 * 32 * 32}, alone, Kind::Cluster, 16);
  expect({64, 3 * 32 * 32}, alone, Kind::Split, 0);
  // A row of more than 1024 groups has sums of two levels.
  expect({1, 1024 * 1024}, large, Kind::Cooperative, 256);
  expect({1, 1024 * 1024 + 1}, large, Kind::Split, 0);
  const auto same = [](cuda::Grid grid, size_t x, size_t y, size_t z) {
    if (grid.x != x || grid.y != y || grid.z != z)
      fail("a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) + " x " + std::to_string(grid.z));
  };
  same(cuda::updateGrid({4, 1024}), 1, 4, 1);
  same(cuda::updateGrid({4, 1025}), 2, 4, 1);
  same(cuda::normGrid({4, 4 * 1024}), 1, 4, 1);
  same(cuda::normGrid({4, 4 * 1024 + 1}), 2, 4, 1);
  same(cuda::updateGrid({65535, 1}), 1, 65535, 1);
  same(cuda::updateGrid({65537, 1}), 1, 32769, 2);
}

void run(bool brief) {
  if (brief) stride = 8;
  plans();
  check(cuda::open(0, context));
  // A row of each kind of end and launch; rows that start within a counter, more of them than travel with a launch.
  const Shape shapes[] = {{1, 1}, {5, 7}, {3, 1023}, {3, 4100}, {70, 37}, {600, 5}, {1, 40000}};
  for (const Shape shape : shapes)
    for (const Source source : {Source::Given, Source::Stream, Source::Streams, Source::Mixed}) {
      const size_t shift = (shape.cols + size_t(source)) % 4;
      for (const Dtype type : kTypes)
        if (!brief || type == kTypes[(size_t(source) + shape.rows) % 3]) all({shape, type, type, type, shift, source});
      if (shape.size() < 20000) all({shape, Dtype::Float32, Dtype::Bfloat16, Dtype::Float16, 1, source});
    }
  for (const Dtype type : kTypes) {
    all({{4, 3000}, type, type, type, 0, Source::Stream, true});
    if (!brief) all({{3, 20000}, type, type, type, 0, Source::Streams, true});
    if (!brief) all({{2, 3 * 61 * 67}, type, Dtype::Float32, Dtype::Float32, 0, Source::Stream});
  }
  if (!brief) all({{1, (1 << 20) + 5000}, Dtype::Float32, Dtype::Float32, Dtype::Float32, 0, Source::Stream});
  stride = 1;
  grid();
  graphs();
  aroundCaptures();
  withoutClusters();
  context.reset();
}

}  // namespace
}  // namespace score_sde::parity

int main(int argc, char** argv) {
  score_sde::ThreadPool::instance().setThreads(1);
  score_sde::parity::run(argc > 1 && std::strcmp(argv[1], "brief") == 0);
  std::printf("%zu values are equal\n", score_sde::parity::compared);
  return 0;
}
