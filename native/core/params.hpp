// Plain parameters of the operations. A batch is `rows` samples of `cols` elements, contiguous.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.hpp"

namespace score_sde {

struct Shape {
  size_t rows = 0, cols = 0;
  size_t size() const { return rows * cols; }
};

/// A number for every row: one for all of them, or one each. On a device they may lie in its memory, so that a captured
/// graph can be replayed with others.
struct PerRow {
  std::vector<float> values;
  const float* device = nullptr;
  bool each = false;  // of `device`
  float operator[](size_t row) const { return values[values.size() == 1 ? 0 : row]; }
};

struct ConstView {
  const void* data = nullptr;
  Dtype type = Dtype::Float32;
};

struct View {
  void* data = nullptr;
  Dtype type = Dtype::Float32;
  operator ConstView() const { return {data, type}; }
};

/// A position in a Philox stream: 128-bit counters of which the low 64 bits count, four elements each.
struct PhiloxStream {
  uint64_t key = 0, counter = 0;
};

struct TorchState;  // random/torch's generator, see cpu/torch_stream.hpp

/// Where the standard normals of a batch come from. One stream serves the batch as one draw in row-major order; as many
/// streams as rows serve one row each.
struct Noise {
  enum class Kind : uint8_t { Given = 0, Philox = 1, Torch = 2 };
  Kind kind = Kind::Given;
  ConstView given;
  std::vector<PhiloxStream> philox;
  const PhiloxStream* device = nullptr;  // the streams where they lie in a device's memory, `deviceStreams` of them
  size_t deviceStreams = 0;
  std::vector<TorchState*> torch;
  Dtype type = Dtype::Float32;  // what a drawn normal is rounded to

  size_t streams() const { return device ? deviceStreams : kind == Kind::Philox ? philox.size() : torch.size(); }
};

/// Where a device notes results that are not finite: the least index of a call that had one, in the device's memory.
/// The CPU tells at once.
struct FiniteMark {
  uint32_t* first = nullptr;
  uint32_t index = 0;
};

struct RandnParams {
  Shape shape;
  Noise noise;         // never Given
  float scale = 1.0f;  // out = normal * scale
  View out;
};

struct StepPredParams {
  Shape shape;
  ConstView modelOutput, sample;
  Noise noise;
  PerRow sigma, adjacentSigma;
  View out;
  View mean;  // data null: not wanted
  FiniteMark mark;
};

/// How the corrector chooses its step: see stepSize in lib/scheduler/steps.ts.
enum class StepSize : uint8_t { Batch = 0, Sample = 1, Dim = 2, Ald = 3 };

struct StepCorrectParams {
  Shape shape;
  ConstView modelOutput, sample;
  Noise noise;
  StepSize stepSize = StepSize::Batch;
  PerRow snr;
  PerRow sigma;  // only for Ald
  View out;
  FiniteMark mark;
};

/// Images [count, channels, height, width] of [0, 1] to 8 bits, side by side in one picture of interleaved channels:
/// [ceil(count / columns) * height, columns * width, channels]. Places without an image stay as they are.
struct ImageGridParams {
  size_t count = 0, channels = 0, height = 0, width = 0, columns = 0;
  ConstView images;
  uint8_t* out = nullptr;
};

struct AddNoiseParams {
  Shape shape;
  ConstView sample;
  Noise noise;
  PerRow sigma;
  View out;
};

}  // namespace score_sde
