// Short loops over at most kBlock elements, which stay in the first-level cache between one pass and the next.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/params.hpp"
#include "math/sum_tree.hpp"

namespace score_sde::cpu {

inline constexpr size_t kBlock = kSumGroup;
inline constexpr size_t kAlone = 64;  // blocks that are done before a second thread is awake

/// The normals of a block: none, in memory, or, where `values` is null, to be drawn from a stream's counter on and
/// rounded to `type`.
struct Normals {
  const float* values = nullptr;
  PhiloxStream stream = {};
  Dtype type = Dtype::Float32;
  bool none = false;
};

/// The sum tree's fold of up to 1024 values: of their squares (level 0), or of the sums themselves (above).
double sumSquares(const float* values, size_t count);
double sumGroup(const double* values, size_t count);

bool isFinite(const float* values, size_t count);

/// out = normals * factor
void store(float* out, const Normals& noise, size_t count, float factor = 1.0f);

// The updates of math/ve.hpp over a block. They return whether all of `out` is finite. `mean` may be null.
bool predict(float* out, float* mean, const float* sample, const float* score, const Normals& noise, size_t count,
             float diffusion);
bool correct(float* out, float* mean, const float* sample, const float* score, const Normals& noise, size_t count,
             float step);
/// The end of a linear update: out = mean + scale * normals.
bool addNormals(float* out, const float* mean, const Normals& noise, size_t count, float scale);

/// P of math/ve.hpp
void convertOutput(float* out, const float* sample, const float* output, size_t count, float px, float pm);
/// Operands and factors of the first one to three terms of a linear update.
struct Terms {
  size_t size;
  const float *sample, *output, *first, *second;  // x, m, H1, H2
  bool converts;
  float px, pm, a, b0, b1, b2;
};
/// Their sum, and P. All operands are read side by side, so that the processor fetches them from memory at once: three
/// quarters of the time that passes over one after the other take.
void linearSum(float* sum, float* value, const Terms& terms, size_t count);
// A sum by one pass a term.
void linearStart(float* sum, const float* sample, size_t count, float a);
void linearTerm(float* sum, const float* value, size_t count, float factor);

/// out = clamp(scale in + shift, 0, 1)
void clamp(float* out, const float* in, size_t count, float scale = 1.0f, float shift = 0.0f);
void quantize(uint8_t* out, const float* in, size_t count);

}  // namespace score_sde::cpu
