// Prints the instruction set in use, then one line for each family of kernels: its name and a hash of the bits it
// computed. A name that begins with "libm" says that the C library had a part in it. See instruction-sets.test.ts.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "core/tables.hpp"
#include "cpu/backend.hpp"
#include "cpu/conversions.hpp"
#include "cpu/kernels.hpp"
#include "cpu/multiversion.hpp"
#include "threads/thread_pool.hpp"
#include "cpu/torch_stream.hpp"
#include "math/host_device.hpp"

using namespace score_sde;

namespace {

// Rows that start in the middle of a counter, blocks cut short, work for several threads.
constexpr Shape kShape{3, 3 * 61 * 67};
const size_t kSize = kShape.size();
constexpr Dtype kTypes[] = {Dtype::Float32, Dtype::Float16, Dtype::Bfloat16};

/// A batch's memory in any of the types.
struct Memory {
  Dtype type;
  std::vector<float> words = std::vector<float>(kSize);

  View view() { return {words.data(), type}; }
  uint16_t* halves() { return reinterpret_cast<uint16_t*>(words.data()); }
};

/// FNV-1a over the bits of results, printed at the end of its life.
class Line {
 public:
  explicit Line(const char* name) : name_(name) {}
  ~Line() { std::printf("%s %016" PRIx64 "\n", name_, hash_); }
  template <class Value>
  void add(const std::vector<Value>& values) {
    for (const Value value : values) add(value);
  }
  void add(Memory& memory) {
    if (memory.type == Dtype::Float32) return add(memory.words);
    std::vector<float> wide(memory.words.size());
    cpu::toFloat(wide.data(), memory.halves(), wide.size(), memory.type);
    add(wide);
  }
  template <class Value>
  void add(Value value) {
    if (value != value) value = Value{};  // which NaN an operation passes on is the processor's choice
    unsigned char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    for (const unsigned char byte : bytes) hash_ = (hash_ ^ byte) * 0x100000001b3u;
  }

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

/// `wild`: any bits, infinities and NaN among them.
Memory filled(Dtype type, bool wild) {
  Memory memory{type};
  for (size_t i = 0; i < kSize; ++i) {
    const float value = wild ? floatOf(nextWord()) : nextFloat();
    if (type == Dtype::Float32) memory.words[i] = value;
    if (type == Dtype::Bfloat16) memory.halves()[i] = static_cast<uint16_t>(bitsOf(value) >> 16);
    if (type == Dtype::Float16) memory.halves()[i] = static_cast<uint16_t>(nextWord() & (wild ? 0xffffu : 0xbfffu));
  }
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

/// Where the rows of a batch with that noise have their normals from.
RowStep::Normals normalsOf(const Noise& noise) {
  if (noise.kind != Noise::Kind::Given) return RowStep::Normals::Drawn;
  return noise.given.data == nullptr ? RowStep::Normals::None : RowStep::Normals::Given;
}

void randn(Line& line, Noise noise, Shape shape, Dtype type, float scale = 50.0f) {
  Memory out{type, std::vector<float>(shape.size())};
  RandnParams p;
  p.shape = shape;
  p.noise = std::move(noise);
  p.scale = scale;
  p.out = out.view();
  cpu::backend().randn(p);
  line.add(out);
}

void philox() {
  Line line("philox");
  for (const Dtype type : kTypes)
    for (const size_t streams : {size_t{1}, kShape.rows}) randn(line, philoxNoise(streams, type), kShape, type);
}

/// Normals as they are drawn.
void normals() {
  Line line("normals");
  for (const Dtype type : kTypes)
    for (const size_t streams : {size_t{1}, kShape.rows}) randn(line, philoxNoise(streams, type), kShape, type, 1.0f);
}

void torch(const char* name, Dtype type) {
  Line line(name);
  TorchState state;
  torchSeed(state, 42);
  randn(line, torchNoise(state, type), kShape, type);
}

/// Fewer than 16 values have an algorithm of their own.
void torchSmall() {
  Line line("libm.torch.small");
  TorchState state;
  torchSeed(state, 42);
  for (const Dtype type : kTypes)
    for (size_t count = 1; count < 16; ++count) randn(line, torchNoise(state, type), {1, count}, type);
}

constexpr float kSigma[] = {0.01f, 1.7f, 1348.0f}, kNext[] = {0.0f, 1.6f, 1300.0f}, kSnr[] = {0.15f, 0.16f, 0.17f};

/// The records of a batch: a copy of `row` each, changed by change(row, index).
template <class Change>
std::vector<RowStep> rowsOf(RowStep row, const Change& change) {
  std::vector<RowStep> rows(kShape.rows, row);
  for (size_t r = 0; r < rows.size(); ++r) change(rows[r], r);
  return rows;
}

std::vector<uint32_t> run(const StepParams& p) {
  std::vector<uint32_t> bad;
  cpu::backend().step(p, &bad);
  return bad;
}

/// Whether the results are finite before they are rounded to their type.
bool isFinite(StepParams p) {
  Memory wide{Dtype::Float32}, mean{Dtype::Float32};
  p.out = wide.view();
  if (p.mean.data != nullptr) p.mean = mean.view();
  return run(p).empty();
}

void predict(Line& line, Dtype type, bool wild) {
  Memory sample = filled(type, wild), score = filled(type, wild), given = filled(type, wild);
  for (const Noise& noise : {givenNoise(given), philoxNoise(1, type)}) {
    for (const bool wantsMean : {true, false}) {
      Memory out{type}, mean{type};
      StepParams p;
      p.shape = kShape;
      p.rows = rowsOf({}, [&](RowStep& row, size_t r) {
        row.kind = RowStep::Kind::Predict;
        row.normals = normalsOf(noise);
        row.sigma = kSigma[r];
        row.next = kNext[r];
      });
      p.sample = sample.view();
      p.output = score.view();
      p.noise = noise;
      p.out = out.view();
      if (wantsMean) p.mean = mean.view();
      line.add(isFinite(p));
      run(p);
      line.add(out);
      line.add(mean);
    }
  }
}

void correct(Line& line, Dtype type, bool wild) {
  Memory sample = filled(type, wild), score = filled(type, wild), given = filled(type, wild);
  for (const Noise& noise : {givenNoise(given), philoxNoise(kShape.rows, Dtype::Float32)}) {
    for (const StepSize stepSize : {StepSize::Batch, StepSize::Sample, StepSize::Dim, StepSize::Ald}) {
      Memory out{type};
      StepParams p;
      p.shape = kShape;
      p.rows = rowsOf({}, [&](RowStep& row, size_t r) {
        row.kind = RowStep::Kind::Correct;
        row.normals = normalsOf(noise);
        row.stepSize = stepSize;
        row.snr = kSnr[r];
        row.sigma = kSigma[r];
      });
      p.sample = sample.view();
      p.output = score.view();
      p.noise = noise;
      p.out = out.view();
      line.add(isFinite(p));
      run(p);
      line.add(out);
    }
  }
}

void perturb(Line& line, Dtype type, bool wild) {
  Memory sample = filled(type, wild), given = filled(type, wild), out{type};
  StepParams p;
  p.shape = kShape;
  p.rows = rowsOf({}, [&](RowStep& row, size_t r) {
    row.normals = RowStep::Normals::Given;
    row.e = kSigma[r];
  });
  p.sample = sample.view();
  p.noise = givenNoise(given);
  p.out = out.view();
  run(p);
  line.add(out);
}

/// A linear update of all it can combine, and some of it.
RowStep linearRow(uint8_t terms) {
  RowStep row;
  row.terms = terms;
  row.converts = terms % 2 == 1;
  row.px = 0.9f;
  row.pm = -1.3f;
  row.a = 1.1f;
  for (size_t k = 0; k < terms; ++k) row.b[k] = k == 4 ? 0.0f : 0.3f - 0.25f * static_cast<float>(k);
  row.base = terms > 3 ? 0.4f : 0.0f;
  row.e = 0.7f;
  return row;
}

/// The operands of a step, and what it gives.
struct Operands {
  Memory sample, output, base, given, out, mean, pushed;
  std::vector<Memory> history;
  Operands(Dtype type, bool wild)
      : sample(filled(type, wild)),
        output(filled(type, wild)),
        base(filled(type, wild)),
        given(filled(type, wild)),
        out{type},
        mean{type},
        pushed{type} {
    for (size_t k = 1; k < kTerms; ++k) history.push_back(filled(type, wild));
  }

  StepParams params(const Noise& noise) {
    StepParams p;
    p.shape = kShape;
    p.sample = sample.view();
    p.output = output.view();
    p.base = base.view();
    for (size_t k = 0; k < history.size(); ++k) p.history[k] = history[k].view();
    p.noise = noise;
    p.out = out.view();
    p.mean = mean.view();
    p.pushed = pushed.view();
    return p;
  }

  void add(Line& line, const std::vector<uint32_t>& bad) {
    line.add(bad);
    line.add(out);
    line.add(mean);
    line.add(pushed);
  }
};

void linear(Line& line, Dtype type, bool wild) {
  Operands operands(type, wild);
  Noise none;
  for (const Noise& noise : {none, givenNoise(operands.given), philoxNoise(1, type)}) {
    for (const uint8_t terms : {0, 1, 2, 3, 7}) {
      StepParams p = operands.params(noise);
      p.rows = {linearRow(terms)};
      p.rows[0].normals = normalsOf(noise);
      operands.add(line, run(p));
    }
  }
}

/// Rows of three kinds at once, of which two draw, from within a counter, and one is given its normals.
void mixed(Line& line, Dtype type, bool wild) {
  Operands operands(type, wild);
  Noise noise = philoxNoise(kShape.rows, type);
  noise.given = operands.given.view();
  for (const bool converts : {false, true}) {
    for (size_t turn = 0; turn < kShape.rows; ++turn) {
      StepParams p = operands.params(noise);
      p.rows = rowsOf(linearRow(3), [&](RowStep& row, size_t r) {
        row.kind = static_cast<RowStep::Kind>((r + turn) % 3);
        row.normals = r == 1 ? RowStep::Normals::Given : RowStep::Normals::Drawn;
        row.phase = static_cast<uint8_t>(r);
        row.converts = converts;
        row.sigma = kSigma[r];
        row.next = kNext[r];
        row.snr = kSnr[r];
      });
      operands.add(line, run(p));
    }
  }
}

void updates(const char* name, void (*update)(Line&, Dtype, bool)) {
  Line line(name);
  for (const Dtype type : kTypes)
    for (const bool wild : {false, true}) update(line, type, wild);
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

/// Every 16-bit pattern widened; narrowed what that gives, what lies about the middle to the next, and any 32 bits. In
/// short pieces: one with a NaN has a way of its own.
void conversions() {
  Line line("conversions");
  constexpr size_t patterns = 65536, piece = 25;
  const auto inPieces = [&](const auto& convert) {
    for (size_t at = 0; at < patterns; at += piece) convert(at, std::min(piece, patterns - at));
  };
  std::vector<uint16_t> halves(patterns);
  std::vector<float> values(patterns), others(patterns);
  for (const Dtype type : {Dtype::Float16, Dtype::Bfloat16}) {
    for (size_t i = 0; i < patterns; ++i) halves[i] = static_cast<uint16_t>(i);
    inPieces([&](size_t at, size_t n) { cpu::toFloat(&values[at], &halves[at], n, type); });
    for (const float value : values) line.add(bitsOf(value));
    const auto narrow = [&](auto bits) {
      for (size_t i = 0; i < patterns; ++i) others[i] = floatOf(bits(bitsOf(values[i])));
      inPieces([&](size_t at, size_t n) { line.add(cpu::fromFloat(&halves[at], &others[at], n, type)); });
      line.add(halves);
    };
    for (const uint32_t below : {0u, 0xfffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u})
      narrow([=](uint32_t b) { return b ^ below; });
    narrow([](uint32_t) { return nextWord(); });
  }
}

/// Values around [0, 1] and the edges between bytes, and what is no number of it.
std::vector<float> pixels() {
  std::vector<float> values = {
      -0.0f, 0.0f, 1.0f, -1e30f, 1e30f, floatOf(0x7f800000u), floatOf(0xff800000u), floatOf(0x7fc00001u)};
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
  Line continuous("libm.sigmas"), discrete("libm.discreteSigmas"), times("linspace");
  for (const size_t count : {1, 2, 3, 10, 16, 50, 1000, 2000}) {
    for (const double sigmaMax : {50.0, 378.0, 1348.0}) {
      std::vector<float> timesteps(count), levels(count);
      linspace(timesteps.data(), count, 1.0, 1e-5);
      times.add(timesteps);
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
  ThreadPool::instance().setThreads(2);
  philox();
  normals();
  torch("torch.float32", Dtype::Float32);
  torch("libm.torch.float16", Dtype::Float16);
  torch("libm.torch.bfloat16", Dtype::Bfloat16);
  torchSmall();
  updates("predict", predict);
  updates("correct", correct);
  updates("perturb", perturb);
  sums();
  conversions();
  images();
  tables();
  updates("linear", linear);
  updates("mixed", mixed);
  return 0;
}
