// Prints the instruction set in use, then one line for each family of kernels: its name and a hash of the bits it computed.
// instruction-sets.test.ts compares the lines of one machine with another's.
#include <cinttypes>
#include <cstdio>
#include <initializer_list>
#include <vector>

#include "core/tables.hpp"
#include "cpu/backend.hpp"
#include "cpu/kernels.hpp"
#include "cpu/multiversion.hpp"
#include "cpu/thread_pool.hpp"
#include "cpu/torch_stream.hpp"
#include "math/host_device.hpp"

using namespace score_sde;

namespace {

constexpr Shape kShape{3, 3 * 61 * 67};  // rows that start in the middle of a counter, blocks cut short, work for several threads
constexpr size_t kSize = 3 * 3 * 61 * 67;
constexpr Dtype kTypes[] = {Dtype::Float32, Dtype::Float16, Dtype::Bfloat16};

/// FNV-1a over the bits of results, printed at the end of its life.
class Line {
 public:
  explicit Line(const char* name) : name_(name) {}
  ~Line() { std::printf("%s %016" PRIx64 "\n", name_, hash_); }
  template <class Value>
  void add(const Value* values, size_t count) {
    const auto* bytes = reinterpret_cast<const unsigned char*>(values);
    for (size_t i = 0; i < count * sizeof(Value); ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3u;
  }
  template <class Value>
  void add(const std::vector<Value>& values) {
    add(values.data(), values.size());
  }
  void add(double value) { add(&value, 1); }

 private:
  const char* name_;
  uint64_t hash_ = 0xcbf29ce484222325u;
};

uint32_t nextWord() {
  static uint32_t word = 1;
  word ^= word << 13;
  word ^= word >> 17;
  return word ^= word << 5;
}

/// A value whose mantissa has all its bits, 2^-20 <= |value| < 2^12.
float nextFloat() {
  const uint32_t word = nextWord();
  return floatOf((word & 0x807fffffu) | ((107u + (nextWord() & 31u)) << 23));
}

/// A batch's memory in any of the types.
struct Memory {
  std::vector<float> words = std::vector<float>(kSize);
  Dtype type = Dtype::Float32;

  View view() { return {words.data(), type}; }
  size_t bytes() const { return kSize * sizeOf(type); }
};

Memory filled(Dtype type) {
  Memory memory;
  memory.type = type;
  auto* const halves = reinterpret_cast<uint16_t*>(memory.words.data());
  for (size_t i = 0; i < kSize; ++i) {
    if (type == Dtype::Float32) memory.words[i] = nextFloat();
    if (type == Dtype::Float16) halves[i] = static_cast<uint16_t>(nextWord() & 0xbfffu);  // below 2, denormals among them
    if (type == Dtype::Bfloat16) halves[i] = static_cast<uint16_t>(bitsOf(nextFloat()) >> 16);
  }
  return memory;
}

Memory empty(Dtype type) {
  Memory memory;
  memory.type = type;
  return memory;
}

/// One stream for the batch, or one a row; the counter carries into its high word on the way.
Noise philoxNoise(size_t streams, Dtype type) {
  Noise noise;
  noise.kind = Noise::Kind::Philox;
  noise.type = type;
  for (size_t s = 0; s < streams; ++s) noise.philox.push_back({0x0123456789abcdefu + s, 0xfffffe00u});
  return noise;
}

Noise torchNoise(TorchState& state, Dtype type) {
  torchSeed(state, 42);
  Noise noise;
  noise.kind = Noise::Kind::Torch;
  noise.type = type;
  noise.torch.push_back(&state);
  return noise;
}

Noise givenNoise(Memory& memory) {
  Noise noise;
  noise.given = memory.view();
  return noise;
}

void randn(Line& line, Noise noise, Shape shape, Dtype type) {
  Memory out = empty(type);
  RandnParams p;
  p.shape = shape;
  p.noise = std::move(noise);
  p.scale = 50.0f;
  p.out = out.view();
  cpu::backend().randn(p);
  line.add(static_cast<const char*>(p.out.data), shape.size() * sizeOf(type));
}

void philox() {
  Line line("philox");
  for (const Dtype type : kTypes)
    for (const size_t streams : {size_t{1}, kShape.rows}) randn(line, philoxNoise(streams, type), kShape, type);
}

/// A draw of 16 and more, then those that are too small for it: they have an algorithm of their own.
void torch(const char* large, const char* small, Dtype type) {
  TorchState state;
  {
    Line line(large);
    randn(line, torchNoise(state, type), kShape, type);
    line.add(&state, 1);
  }
  Line line(small);
  for (size_t count = 1; count < 16; ++count) randn(line, torchNoise(state, type), {1, count}, type);
}

const float kSigma[] = {0.01f, 1.7f, 1348.0f}, kAdjacent[] = {0.0f, 1.6f, 1300.0f}, kSnr[] = {0.15f, 0.16f, 0.17f};

void predict() {
  Line line("predict");
  for (const Dtype type : kTypes) {
    Memory sample = filled(type), score = filled(type), given = filled(type);
    for (const Noise& noise : {givenNoise(given), philoxNoise(1, type)}) {
      for (const bool wanted : {true, false}) {
        Memory out = empty(type), mean = empty(type);
        StepPredParams p;
        p.shape = kShape;
        p.sample = sample.view();
        p.modelOutput = score.view();
        p.noise = noise;
        p.sigma = kSigma;
        p.adjacentSigma = kAdjacent;
        p.out = out.view();
        if (wanted) p.mean = mean.view();
        bool finite = false;
        cpu::backend().stepPred(p, &finite);
        line.add(&finite, 1);
        line.add(out.words);
        line.add(mean.words);
      }
    }
  }
}

void correct() {
  Line line("correct");
  for (const Dtype type : kTypes) {
    Memory sample = filled(type), score = filled(type), given = filled(type);
    for (const Noise& noise : {givenNoise(given), philoxNoise(kShape.rows, Dtype::Float32)}) {
      for (const StepSize stepSize : {StepSize::Batch, StepSize::Sample, StepSize::Dim, StepSize::Ald}) {
        Memory out = empty(type);
        StepCorrectParams p;
        p.shape = kShape;
        p.sample = sample.view();
        p.modelOutput = score.view();
        p.noise = noise;
        p.stepSize = stepSize;
        p.snr = kSnr;
        p.sigma = kSigma;
        p.out = out.view();
        bool finite = false;
        cpu::backend().stepCorrect(p, &finite);
        line.add(&finite, 1);
        line.add(out.words);
      }
    }
  }
}

void perturb() {
  Line line("perturb");
  for (const Dtype type : kTypes) {
    Memory sample = filled(type), given = filled(type), out = empty(type);
    AddNoiseParams p;
    p.shape = kShape;
    p.sample = sample.view();
    p.noise = givenNoise(given);
    p.sigma = kSigma;
    p.out = out.view();
    cpu::backend().addNoise(p);
    line.add(out.words);
  }
}

void sums() {
  Line line("sums");
  std::vector<float> values(cpu::kBlock);
  std::vector<double> upper(cpu::kBlock);
  for (size_t i = 0; i < cpu::kBlock; ++i) {
    values[i] = nextFloat();
    upper[i] = static_cast<double>(values[i]) * static_cast<double>(nextFloat());
  }
  for (const size_t count : {1, 127, 128, 129, 1000, 1024}) {
    line.add(cpu::sumSquares(values.data(), count));
    line.add(cpu::sumGroup(upper.data(), count));
  }
}

/// Every 16-bit pattern widened; narrowed what that gives, what lies between, and any 32 bits.
void conversions() {
  Line line("conversions");
  constexpr size_t patterns = 65536;
  std::vector<uint16_t> halves(patterns);
  std::vector<float> values(patterns);
  for (const Dtype type : {Dtype::Float16, Dtype::Bfloat16}) {
    for (size_t i = 0; i < patterns; ++i) halves[i] = static_cast<uint16_t>(i);
    cpu::toFloat(values.data(), halves.data(), patterns, type);
    line.add(values);
    for (const uint32_t between : {0u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffffffu}) {
      for (float& value : values) value = floatOf(between == 0xffffffffu ? nextWord() : bitsOf(value) ^ between);
      cpu::fromFloat(halves.data(), values.data(), patterns, type);
      line.add(halves);
    }
  }
}

/// Values around [0, 1] and the edges between bytes, and what is no number of it.
std::vector<float> pixels() {
  std::vector<float> values = {-0.0f, 0.0f, 1.0f, -1e30f, 1e30f, floatOf(0x7f800000u), floatOf(0xff800000u), floatOf(0x7fc00001u)};
  for (int i = -4; i < 520; ++i) values.push_back(static_cast<float>(i) / 510.0f);
  while (values.size() < cpu::kBlock) values.push_back(nextFloat());
  return values;
}

void images() {
  const std::vector<float> values = pixels();
  std::vector<float> clamped(values.size());
  std::vector<uint8_t> bytes(values.size());
  cpu::clamp(clamped.data(), values.data(), values.size());
  cpu::quantize(bytes.data(), values.data(), values.size());
  Line("clamp").add(clamped);
  Line("quantize").add(bytes);
}

void tables() {
  Line lines("linspace"), discrete("discreteSigmas"), continuous("sigmas");
  for (const size_t count : {1, 2, 3, 10, 16, 50, 1000, 2000}) {
    for (const double sigmaMax : {50.0, 378.0, 1348.0}) {
      std::vector<float> timesteps(count), levels(count);
      linspace(timesteps.data(), count, 1.0, 1e-5);
      lines.add(timesteps);
      discreteSigmas(levels.data(), count, 0.01, sigmaMax);
      discrete.add(levels);
      sigmas(levels.data(), timesteps.data(), count, 0.01, sigmaMax);
      continuous.add(levels);
    }
  }
}

}  // namespace

int main() {
  std::printf("%s\n", cpu::instructionSet());
  cpu::ThreadPool::instance().setThreads(2);
  philox();
  torch("torch.float32", "torch.float32.small", Dtype::Float32);
  torch("torch.float16", "torch.float16.small", Dtype::Float16);
  torch("torch.bfloat16", "torch.bfloat16.small", Dtype::Bfloat16);
  predict();
  correct();
  perturb();
  sums();
  conversions();
  images();
  tables();
  return 0;
}
