// The mean of a batch's norms in the order of torch.mean on a float32 vector (reference/diffusers, kernel F4).
#pragma once

#include <cstddef>

#include "math/host_device.hpp"

namespace score_sde {

HD float batchMean(const float* values, size_t count) {
  const size_t lanes = count < 8 ? 1 : 8;  // short vectors are summed by scalars, longer ones by vectors of eight
  const size_t groups = count / lanes;
  float partial[4][8] = {};
  for (size_t g = 0; g < groups; ++g) {
    const size_t p = g < groups / 4 * 4 ? g % 4 : 0;
    for (size_t l = 0; l < lanes; ++l) partial[p][l] += values[g * lanes + l];
  }
  float total = 0.0f;
  for (size_t i = groups * lanes; i < count; ++i) total += values[i];
  for (size_t l = 0; l < lanes; ++l) {
    const float lane = ((partial[0][l] + partial[1][l]) + partial[2][l]) + partial[3][l];
    total = lanes == 1 ? lane : total + lane;
  }
  return total / static_cast<float>(count);
}

}  // namespace score_sde
