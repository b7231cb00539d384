// Plain parameters of the operations. A batch is `rows` samples of `cols` elements, contiguous.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/dtype.hpp"

namespace score_sde {

struct Shape {
  size_t rows = 0, cols = 0;
  size_t size() const { return rows * cols; }
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

struct TorchState;  // the state of torch's generator, see cpu/torch_stream.hpp

/// Where the standard normals of a batch come from. One stream serves the batch as one draw in row-major order; as many
/// streams as rows serve one row each. A batch of steps may mix streams with given rows (RowStep::normals): then there
/// is a stream for each row, and `given` has the whole batch's shape.
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

/// Where a device notes results that are not finite: for each row the least index of a call that had one. Its steps on
/// one mark are in order. The CPU tells at once.
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

/// How the corrector chooses its step: see stepSize in lib/scheduler/steps.ts.
enum class StepSize : uint8_t { Batch = 0, Sample = 1, Dim = 2, Ald = 3 };

/// What a linear update may combine beside x and the base: P and up to six values pushed before it.
inline constexpr size_t kTerms = 7;

/// How one row goes from its state x, the network's output m and a standard normal z to its next state. P is what m
/// stands for: the score, the denoised estimate D, or the noise, each px x + pm m.
struct RowStep {
  enum class Kind : uint8_t {
    Predict = 0,  // reverse diffusion (eq. 46): mean = x + (sigma^2 - next^2) P, out = mean + sqrt(sigma^2 - next^2) z
    Correct = 1,  // Langevin dynamics (algorithm 4): out = x + step P + sqrt(2 step) z
    Linear = 2,   // mean = a x + b0 P + b1 H1 + ... + base X0, out = mean + e z
  };
  /// What z is: nothing (then out = mean), drawn from a stream, or given.
  enum class Normals : uint8_t { None = 0, Drawn = 1, Given = 2 };

  Kind kind = Kind::Linear;
  Normals normals = Normals::None;
  StepSize stepSize = StepSize::Batch;  // of Correct
  bool converts = false;                // false: P is m itself, whatever px and pm are
  uint8_t terms = 0;                    // of Linear: P, H1, ... that it reads; with 0 it does not read m either
  uint8_t phase = 0;                    // where its first element stands in its stream's counter, 0 to 3
  uint32_t group = 0;                   // Correct with Batch: adjacent rows of one group share the means of their norms
  float px = 0.0f, pm = 1.0f;
  float a = 1.0f, b[kTerms] = {}, base = 0.0f, e = 0.0f;  // of Linear
  float sigma = 0.0f, next = 0.0f;                        // of Predict; sigma of Correct with Ald, too
  float snr = 0.0f;                                       // of Correct
};

/// One update of every row, whatever the kinds.
struct StepParams {
  Shape shape;
  std::vector<RowStep> rows;                  // one for all of them, or one each
  const RowStep* device = nullptr;            // where they lie in a device's memory, so that a captured graph can be
  size_t deviceRows = 0;                      // replayed with others; then `rows` holds the first, for what is uniform
  ConstView sample, output;                   // x and m; m null where no row reads it
  std::array<ConstView, kTerms - 1> history;  // H1, H2, ...: null where no row reads them
  ConstView base;                             // X0
  Noise noise;
  View out;
  View mean;    // null: not wanted
  View pushed;  // P of the linear rows; null: not wanted. It may be the memory of one of `history`
  FiniteMark mark;
};

/// Images [count, channels, height, width] of [0, 1] to 8 bits, side by side in one picture of interleaved channels:
/// [ceil(count / columns) * height, columns * width, channels]. Places without an image stay as they are.
struct ImageGridParams {
  size_t count = 0, channels = 0, height = 0, width = 0, columns = 0;
  ConstView images;
  uint8_t* out = nullptr;
};

/// out = clamp(scale in + shift, 0, 1)
struct ClampParams {
  size_t count = 0;
  ConstView in;
  View out;
  float scale = 1.0f, shift = 0.0f;
};

}  // namespace score_sde
