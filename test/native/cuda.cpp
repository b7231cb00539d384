// Every operation of the CUDA backend against the CPU backend, bit for bit: all types, rows of any length and
// alignment, one stream or one a row, few rows or many, every launch that a corrector has. Prints what was compared, or
// the first difference. See kernels.test.ts.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <cuda_runtime.h>

#include "cpu/backend.hpp"
#include "cpu/thread_pool.hpp"
#include "cuda/device.hpp"
#include "cuda/launch.hpp"
#include "math/half.hpp"

using namespace score_sde;

namespace {

constexpr Dtype kTypes[] = {Dtype::Float32, Dtype::Float16, Dtype::Bfloat16};
const char* const kNames[] = {"float32", "float16", "bfloat16"};

std::shared_ptr<cuda::Context> context;
size_t compared = 0;
std::string label;

void check(const Status& status) {
  if (status.ok()) return;
  std::printf("%s: %s %s\n", label.c_str(), status.code, status.message.c_str());
  std::exit(1);
}

/// Of what is enqueued: a download waits for its copy alone.
void fetch(void* to, const void* from, size_t bytes) {
  context->settle();
  check(context->download(to, from, bytes));
}

uint32_t nextWord() {
  static uint32_t word = 1;
  word ^= word << 13;
  word ^= word >> 17;
  return word ^= word << 5;
}

/// Elements on the host and on the device; on the device in memory of just that size, `shift` elements from where it
/// would be aligned.
class Memory {
 public:
  Memory(Dtype type, size_t count, size_t shift, bool wild = false) : type_(type), count_(count), shift_(shift) {
    words_.resize(count);
    for (uint32_t& word : words_) {
      const uint32_t any = nextWord();
      const float value = floatOf((any & 0x807fffffu) | ((117u + (nextWord() & 15u)) << 23));
      const uint32_t bits = wild ? any : bitsOf(value);
      word = type == Dtype::Float32   ? bits
             : type == Dtype::Float16 ? floatToFloat16(floatOf(bits))
                                      : floatToBfloat16(floatOf(bits));
    }
    // Not from the pool, whose blocks are larger: an access beyond is to be seen.
    if (cudaMalloc(&base_, (count + shift) * sizeOf(type)) != cudaSuccess) std::exit(2);
    if (type == Dtype::Float32) {
      host_.assign(reinterpret_cast<uint8_t*>(words_.data()), reinterpret_cast<uint8_t*>(words_.data() + count));
    } else {
      std::vector<uint16_t> halves(words_.begin(), words_.end());
      host_.assign(reinterpret_cast<uint8_t*>(halves.data()), reinterpret_cast<uint8_t*>(halves.data() + count));
    }
    check(context->upload(device().data, host_.data(), host_.size()));
  }
  ~Memory() { cudaFree(base_); }
  Memory(const Memory&) = delete;

  View host() { return {host_.data(), type_}; }
  View device() { return {static_cast<char*>(base_) + shift_ * sizeOf(type_), type_}; }

  /// NaN equals NaN: which one an operation passes on is the processor's choice.
  void compare() {
    std::vector<uint8_t> found(host_.size());
    fetch(found.data(), device().data, found.size());
    for (size_t i = 0; i < count_; ++i) {
      const uint32_t a = at(host_, i), b = at(found, i);
      if (a == b || (isNan(a) && isNan(b))) continue;
      std::printf("%s: element %zu is %08x on the CPU and %08x on the device\n", label.c_str(), i, a, b);
      std::exit(1);
    }
    compared += count_;
  }

 private:
  uint32_t at(const std::vector<uint8_t>& bytes, size_t i) const {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data() + i * sizeOf(type_), sizeOf(type_));
    return value;
  }
  bool isNan(uint32_t bits) const {
    const float value = type_ == Dtype::Float32   ? floatOf(bits)
                        : type_ == Dtype::Float16 ? float16ToFloat(static_cast<uint16_t>(bits))
                                                  : bfloat16ToFloat(static_cast<uint16_t>(bits));
    return value != value;
  }

  const Dtype type_;
  const size_t count_, shift_;
  std::vector<uint32_t> words_;
  std::vector<uint8_t> host_;
  void* base_ = nullptr;
};

/// What both backends are given; the functions differ only in which memory they name.
struct Case {
  Shape shape;
  Dtype sample, score, out;
  size_t shift;    // elements by which memory is off
  int noise;       // 0: given, 1: one stream, 2: a stream a row
  bool each;       // a coefficient for each row
  bool wild;       // any bits
};

PerRow perRow(float first, float step, size_t rows, bool each) {
  PerRow values;
  for (size_t r = 0; r < (each ? rows : 1); ++r) values.values.push_back(first + step * static_cast<float>(r % 100));
  return values;
}

Noise noiseOf(const Case& c, View given, Dtype drawn) {
  Noise noise;
  noise.type = drawn;
  if (c.noise == 0) {
    noise.given = given;
  } else {
    noise.kind = Noise::Kind::Philox;
    const size_t streams = c.noise == 1 ? 1 : c.shape.rows;
    for (size_t s = 0; s < streams; ++s) noise.philox.push_back({0x0123456789abcdefu + s, 0xfffffff0u + s});
  }
  return noise;
}

enum class Place { Host, Device };

struct Operands {
  explicit Operands(const Case& c)
      : sample(c.sample, c.shape.size(), c.shift, c.wild),
        score(c.score, c.shape.size(), c.shift, c.wild),
        noise(c.sample, c.shape.size(), c.shift),
        out(c.out, c.shape.size(), c.shift / 2),
        mean(c.out, c.shape.size(), c.shift) {}
  Memory sample, score, noise, out, mean;
};

View in(Memory& memory, Place place) { return place == Place::Host ? memory.host() : memory.device(); }
Backend& on(Place place) { return place == Place::Host ? cpu::backend() : context->backend(); }

void mark(const char* name, const Case& c) {
  label = std::string(name) + " " + std::to_string(c.shape.rows) + "x" + std::to_string(c.shape.cols) + " " +
          kNames[int(c.sample)] + " " + kNames[int(c.score)] + " -> " + kNames[int(c.out)] + ", shift " +
          std::to_string(c.shift) + ", noise " + std::to_string(c.noise) + (c.each ? ", each" : "") +
          (c.wild ? ", wild" : "");
}

/// Where the device notes what is not finite, beside what the CPU says.
class Marked {
 public:
  Marked() {
    cudaMalloc(&word_, sizeof *word_);
    const uint32_t none = UINT32_MAX;
    check(context->upload(word_, &none, sizeof none));
  }
  ~Marked() { cudaFree(word_); }
  FiniteMark mark() const { return {word_, 7}; }
  void compare(bool finite) {
    uint32_t seen = 0;
    fetch(&seen, word_, sizeof seen);
    if ((seen == UINT32_MAX) == finite && (finite || seen == 7)) return;
    std::printf("%s: finite is %d on the CPU, and the device's mark %u\n", label.c_str(), finite, seen);
    std::exit(1);
  }

 private:
  uint32_t* word_ = nullptr;
};

StepPredParams predictorOf(const Case& c, Operands& o, Place place) {
  StepPredParams p;
  p.shape = c.shape;
  p.sample = in(o.sample, place);
  p.modelOutput = in(o.score, place);
  p.noise = noiseOf(c, in(o.noise, place), c.sample);
  p.sigma = perRow(1.7f, 0.3f, c.shape.rows, c.each);
  p.adjacentSigma = perRow(1.6f, 0.2f, c.shape.rows, c.each);
  p.out = in(o.out, place);
  return p;
}

StepCorrectParams correctorOf(const Case& c, Operands& o, Place place) {
  StepCorrectParams p;
  p.shape = c.shape;
  p.sample = in(o.sample, place);
  p.modelOutput = in(o.score, place);
  p.noise = noiseOf(c, in(o.noise, place), Dtype::Float32);
  p.snr = perRow(0.15f, 0.01f, c.shape.rows, c.each);
  p.sigma = perRow(1.7f, 0.3f, c.shape.rows, c.each);
  p.out = in(o.out, place);
  return p;
}

Status run(Backend& backend, const StepPredParams& p, bool* finite) { return backend.stepPred(p, finite); }
Status run(Backend& backend, const StepCorrectParams& p, bool* finite) { return backend.stepCorrect(p, finite); }

/// A step in both places, with what params(operands, place) gives: its results, and whether they are finite.
template <class Params>
void step(const Case& c, const Params& params) {
  Operands o(c);
  Marked marked;
  bool finite = true;
  for (const Place place : {Place::Host, Place::Device}) {
    auto p = params(o, place);
    p.mark = marked.mark();
    check(run(on(place), p, place == Place::Host ? &finite : nullptr));
  }
  o.out.compare();
  o.mean.compare();
  marked.compare(finite);
}

void randn(const Case& c) {
  mark("randn", c);
  if (c.noise == 0) return;
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

void predict(const Case& c) {
  for (const bool mean : {false, true}) {
    mark(mean ? "stepPred with its mean" : "stepPred", c);
    step(c, [&](Operands& o, Place place) {
      StepPredParams p = predictorOf(c, o, place);
      if (mean) p.mean = in(o.mean, place);
      return p;
    });
  }
}

void correct(const Case& c) {
  for (const StepSize size : {StepSize::Batch, StepSize::Sample, StepSize::Dim, StepSize::Ald}) {
    mark((std::string("stepCorrect ") + std::to_string(int(size))).c_str(), c);
    step(c, [&](Operands& o, Place place) {
      StepCorrectParams p = correctorOf(c, o, place);
      p.stepSize = size;
      return p;
    });
  }
}

void perturb(const Case& c) {
  mark("addNoise", c);
  Operands o(c);
  for (const Place place : {Place::Host, Place::Device}) {
    AddNoiseParams p;
    p.shape = c.shape;
    p.sample = in(o.sample, place);
    p.noise = noiseOf(c, in(o.noise, place), c.sample);
    p.sigma = perRow(1.7f, 0.3f, c.shape.rows, c.each);
    p.out = in(o.out, place);
    check(on(place).addNoise(p));
  }
  o.out.compare();
}

void inPlace(const Case& c) {
  mark("in place", c);
  if (c.sample != c.out || c.score != c.out) return;
  for (const bool overScore : {false, true}) {
    Operands o(c);
    Memory& over = overScore ? o.score : o.sample;
    for (const Place place : {Place::Host, Place::Device}) {
      StepCorrectParams p = correctorOf(c, o, place);
      p.out = in(over, place);
      check(on(place).stepCorrect(p, nullptr));
    }
    over.compare();
  }
}

void images(const Case& c) {
  mark("clamp, convert", c);
  Operands o(c);
  for (const Place place : {Place::Host, Place::Device}) {
    check(on(place).clamp(in(o.sample, place), in(o.out, place), c.shape.size()));
    check(on(place).convert(in(o.sample, place), in(o.mean, place), c.shape.size()));
  }
  o.out.compare();
  o.mean.compare();
}

void grid() {
  label = "imageGrid";
  for (const Dtype type : kTypes) {
    Memory pictures(type, 5 * 3 * 7 * 9, 1, true);
    const size_t bytes = 2 * 7 * 3 * 9 * 3;
    std::vector<uint8_t> expected(bytes, 9), found(bytes, 9);
    uint8_t* device = nullptr;
    cudaMalloc(&device, bytes);
    check(context->upload(device, found.data(), bytes));
    for (const Place place : {Place::Host, Place::Device})
      check(on(place).imageGrid(
          {5, 3, 7, 9, 3, in(pictures, place), place == Place::Host ? expected.data() : device}));
    fetch(found.data(), device, bytes);
    cudaFree(device);
    if (expected != found) {
      std::printf("imageGrid: differs\n");
      std::exit(1);
    }
    compared += bytes;
  }
}

void all(const Case& c) {
  randn(c);
  predict(c);
  correct(c);
  perturb(c);
  inPlace(c);
  images(c);
}

/// The same launch with its scalars in device memory, as a graph replays it with others.
void replayed() {
  label = "graph";
  const Case c{{3, 5000}, Dtype::Float32, Dtype::Float32, Dtype::Float32, 0, 1, false, false};
  Operands predicted(c), corrected(c);
  struct Scalars {
    PhiloxStream stream;
    float sigma, adjacent, snr;
  };
  Scalars* scalars = nullptr;
  cudaMalloc(&scalars, sizeof *scalars);
  StepPredParams p = predictorOf(c, predicted, Place::Device);
  StepCorrectParams q = correctorOf(c, corrected, Place::Device);
  p.noise.device = q.noise.device = &scalars->stream;
  p.noise.deviceStreams = q.noise.deviceStreams = 1;
  p.sigma.device = &scalars->sigma;
  p.adjacentSigma.device = &scalars->adjacent;
  q.snr.device = &scalars->snr;
  const auto stream = reinterpret_cast<cudaStream_t>(context->stream());
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  check(context->backend().stepPred(p, nullptr));
  check(context->backend().stepCorrect(q, nullptr));
  cudaStreamEndCapture(stream, &graph);
  cudaGraphInstantiate(&replay, graph, 0);
  for (int step = 0; step < 3; ++step) {
    const float sigma = 3.0f - static_cast<float>(step);
    const Scalars now{{42, uint64_t(step) * 4000}, sigma, sigma - 0.5f, 0.1f * sigma};
    check(context->upload(scalars, &now, sizeof now));
    cudaGraphLaunch(replay, stream);
    cudaStreamSynchronize(stream);
    StepPredParams host = predictorOf(c, predicted, Place::Host);
    host.noise.philox = {now.stream};
    host.sigma = {{now.sigma}};
    host.adjacentSigma = {{now.adjacent}};
    check(cpu::backend().stepPred(host, nullptr));
    StepCorrectParams hostToo = correctorOf(c, corrected, Place::Host);
    hostToo.noise = host.noise;
    hostToo.snr = {{now.snr}};
    check(cpu::backend().stepCorrect(hostToo, nullptr));
    predicted.out.compare();
    corrected.out.compare();
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaFree(scalars);
}

void plans() {
  label = "plans";
  using Kind = cuda::CorrectPlan::Kind;
  const auto expect = [](Shape shape, cuda::Traits device, Kind kind, uint32_t blocks) {
    const cuda::CorrectPlan plan = cuda::correctPlan(shape, device);
    if (plan.kind == kind && plan.blocks == blocks) return;
    std::printf("plan of %zux%zu: kind %d, %u blocks\n", shape.rows, shape.cols, int(plan.kind), plan.blocks);
    std::exit(1);
  };
  const cuda::Traits h100{9, 132, 16}, consumer{12, 170, 8}, ampere{8, 108, 0};
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
  const auto same = [](cuda::RowBlocks blocks, size_t perRow, size_t all) {
    if (blocks.perRow == perRow && blocks.blocks == all) return;
    std::printf("blocks: %zu a row, %zu in all\n", blocks.perRow, blocks.blocks);
    std::exit(1);
  };
  same(cuda::updateBlocks({4, 1024}), 1, 4);
  same(cuda::updateBlocks({4, 1025}), 2, 8);
  same(cuda::normBlocks({4, 4 * 1024}), 1, 4);
  same(cuda::normBlocks({4, 4 * 1024 + 1}), 2, 8);
}

}  // namespace

int main(int argc, char** argv) {
  const bool brief = argc > 1 && std::strcmp(argv[1], "brief") == 0;
  cpu::ThreadPool::instance().setThreads(1);
  plans();
  check(cuda::open(0, context));
  // A row of each kind of end and launch; rows that start within a counter, more of them than travel with a launch.
  const Shape shapes[] = {{1, 1}, {5, 7}, {3, 1023}, {3, 4100}, {70, 37}, {600, 5}, {1, 40000}};
  for (const Shape shape : shapes)
    for (int noise = 0; noise < 3; ++noise)
      for (const bool each : {false, true}) {
        const size_t shift = (shape.cols + size_t(noise)) % 4;
        for (const Dtype type : kTypes)
          if (!brief || type == kTypes[size_t(noise + int(each)) % 3])
            all({shape, type, type, type, shift, noise, each, false});
        if (shape.size() < 20000) all({shape, Dtype::Float32, Dtype::Bfloat16, Dtype::Float16, 1, noise, each, false});
      }
  for (const Dtype type : kTypes) {
    all({{4, 3000}, type, type, type, 0, 1, false, true});
    if (!brief) all({{3, 20000}, type, type, type, 0, 2, false, true});
    if (!brief) all({{2, 3 * 61 * 67}, type, Dtype::Float32, Dtype::Float32, 0, 1, true, false});
  }
  if (!brief) all({{1, (1 << 20) + 5000}, Dtype::Float32, Dtype::Float32, Dtype::Float32, 0, 1, false, false});
  grid();
  replayed();
  context.reset();
  std::printf("%zu values are equal\n", compared);
  return 0;
}
