// The scheduler's tables, to the last bit of the reference (torch's CPU kernels; see docs/parity.md).
#pragma once

#include <cstddef>

namespace score_sde {

/// torch.linspace(start, end, count) in float32.
void linspace(float* out, size_t count, double start, double end);

/// The geometric sequence sigma_min (sigma_max / sigma_min)^((i-1)/(count-1)) (Song et al. 2021, section 3.4),
/// ascending: exp(linspace(log sigmaMin, log sigmaMax)).
void discreteSigmas(float* out, size_t count, double sigmaMin, double sigmaMax);

/// sigma(t) = sigma_min (sigma_max / sigma_min)^t, eq. 31.
void sigmas(float* out, const float* timesteps, size_t count, double sigmaMin, double sigmaMax);

}  // namespace score_sde
