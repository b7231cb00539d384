// The mean of a batch's norms in the order of torch.mean on a float32 vector (docs/parity.md).
#pragma once

#include <cstddef>

#include "math/host_device.hpp"

namespace score_sde {

/// The 32 sums that the mean is made of may be taken at once, or one after the other.
struct MeanPartials {
  float sum[4][8];
};

/// Short vectors are summed by scalars, longer ones by vectors of eight.
HD size_t meanLanes(size_t count) { return count < 8 ? 1 : 8; }

/// Sum p of lane l: groups go round robin into four, and what is left of them into the first.
HD float meanPartial(const float* values, size_t count, size_t p, size_t l) {
  const size_t lanes = meanLanes(count), groups = count / lanes, whole = groups / 4 * 4;
  float sum = 0.0f;
  if (l >= lanes) return sum;
  for (size_t g = p; g < whole; g += 4) sum += values[g * lanes + l];
  if (p == 0)
    for (size_t g = whole; g < groups; ++g) sum += values[g * lanes + l];
  return sum;
}

HD float meanOf(const MeanPartials& partial, const float* values, size_t count) {
  const size_t lanes = meanLanes(count);
  float total = 0.0f;
  for (size_t i = count / lanes * lanes; i < count; ++i) total += values[i];
  for (size_t l = 0; l < lanes; ++l) {
    const float lane = ((partial.sum[0][l] + partial.sum[1][l]) + partial.sum[2][l]) + partial.sum[3][l];
    total = lanes == 1 ? lane : total + lane;
  }
  return total / static_cast<float>(count);
}

HD float batchMean(const float* values, size_t count) {
  MeanPartials partial;
  for (size_t p = 0; p < 4; ++p)
    for (size_t l = 0; l < 8; ++l) partial.sum[p][l] = meanPartial(values, count, p, l);
  return meanOf(partial, values, count);
}

}  // namespace score_sde
