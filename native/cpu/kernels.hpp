// Short loops over at most kBlock elements, which stay in the first-level cache between one pass and the next.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"
#include "math/sum_tree.hpp"

namespace score_sde::cpu {

inline constexpr size_t kBlock = kSumGroup;

/// 4 * counters normals of the Philox stream `key` from `counter` on.
void philoxNormals(float* out, size_t counters, uint64_t counter, uint64_t key);

/// The sum tree's fold of up to 1024 values: of their squares (level 0), or of the sums themselves (above).
double sumSquares(const float* values, size_t count);
double sumGroup(const double* values, size_t count);

/// Widening and narrowing of the 16-bit types.
void toFloat(float* out, const uint16_t* in, size_t count, Dtype type);
void fromFloat(uint16_t* out, const float* in, size_t count, Dtype type);

void scale(float* out, const float* in, size_t count, float factor);

// The updates of math/ve.hpp over a block. They return the largest magnitude written, as bits: 0x7f800000 and above
// mean that something is not finite.
uint32_t predict(float* out, const float* sample, const float* score, const float* noise, size_t count,
                 float diffusion);
uint32_t predictWithMean(float* out, float* mean, const float* sample, const float* score, const float* noise,
                         size_t count, float diffusion);
uint32_t correct(float* out, const float* sample, const float* score, const float* noise, size_t count, float step,
                 float scale);
void perturb(float* out, const float* sample, const float* noise, size_t count, float sigma);

void clamp(float* out, const float* in, size_t count);
void quantize(uint8_t* out, const float* in, size_t count);

}  // namespace score_sde::cpu
