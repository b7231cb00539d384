// Short loops over at most kBlock elements, which stay in the first-level cache between one pass and the next.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/params.hpp"
#include "math/sum_tree.hpp"

namespace score_sde::cpu {

inline constexpr size_t kBlock = kSumGroup;

/// The normals of a block: in memory, or, where `values` is null, to be drawn from a stream's counter on.
struct Normals {
  const float* values = nullptr;
  PhiloxStream stream;
};

/// The sum tree's fold of up to 1024 values: of their squares (level 0), or of the sums themselves (above).
double sumSquares(const float* values, size_t count);
double sumGroup(const double* values, size_t count);

/// Widening and narrowing of the 16-bit types.
void toFloat(float* out, const uint16_t* in, size_t count, Dtype type);
void fromFloat(uint16_t* out, const float* in, size_t count, Dtype type);

/// out = normals * factor
void store(float* out, const Normals& noise, size_t count, float factor = 1.0f);

// The updates of math/ve.hpp over a block. They return whether everything written is finite.
/// `mean` may be null.
bool predict(float* out, float* mean, const float* sample, const float* score, const Normals& noise, size_t count,
             float diffusion);
bool correct(float* out, const float* sample, const float* score, const Normals& noise, size_t count, float step,
             float scale);
void perturb(float* out, const float* sample, const Normals& noise, size_t count, float sigma);

void clamp(float* out, const float* in, size_t count);
void quantize(uint8_t* out, const float* in, size_t count);

}  // namespace score_sde::cpu
