// The updates of the variance exploding SDE (Song et al. 2021, arXiv 2011.13456), one rounding per operation and in the
// order of the reference (diffusers, scheduling_sde_ve.py), so that float32 results agree to the last bit.
#pragma once

#include "math/host_device.hpp"

namespace score_sde {

/// The discretised diffusion coefficient sqrt(sigma_i^2 - sigma_{i-1}^2), eq. 46.
HD float diffusion(float sigma, float adjacentSigma) {
  return std::sqrt(sigma * sigma - adjacentSigma * adjacentSigma);
}

/// The mean of the reverse diffusion predictor (algorithm 2, line 4). `squared` is diffusion^2 as the reference has it:
/// the rounded root squared again.
HD float predictMean(float sample, float score, float squared) { return sample - (0.0f - squared * score); }

/// The predictor's draw around its mean.
HD float predict(float mean, float noise, float diffusion) { return mean + diffusion * noise; }

/// The corrector's mean, before its noise is added.
HD float correctMean(float sample, float score, float step) { return sample + step * score; }

/// The annealed Langevin corrector (algorithm 2, line 7); `scale` is sqrt(2 step).
HD float correct(float sample, float score, float noise, float step, float scale) {
  return correctMean(sample, score, step) + scale * noise;
}

/// Step size 2 (snr |z| / |g|)^2 of the corrector (algorithm 4).
HD float langevinStep(float snr, float noiseNorm, float gradNorm) {
  const float q = (snr * noiseNorm) / gradNorm;
  return (q * q) * 2.0f;
}

/// Step size 2 (snr sigma)^2 of annealed Langevin dynamics, which measures nothing (Song & Ermon 2019, up to the
/// constant).
HD float annealedStep(float snr, float sigma) {
  const float q = snr * sigma;
  return (q * q) * 2.0f;
}

HD float noiseScale(float step) { return std::sqrt(step * 2.0f); }

/// P, what the network's output stands for: the score, the denoised estimate, or the noise.
HD float converted(float sample, float output, float px, float pm) { return px * sample + pm * output; }

// A linear update: linearStart, then linearTerm for each P, H1, H2, ... in this order, then for the base. A term whose
// factor is 0 is left out, and its value is not read. Noise is added as by linearTerm(mean, e, z), which with a = 1
// and no terms is a sample of the perturbation kernel p(x_t | x_0), eq. 29 with sigma_min neglected.
HD float linearStart(float a, float sample) { return a * sample; }
HD float linearTerm(float sum, float factor, float value) { return sum + factor * value; }

/// A value of [0, 1] to 8 bits, rounding half to even as numpy's round() does; NaN gives 0.
HD uint8_t quantize(float value) {
  const float scaled = value * 255.0f;
  const float clamped = scaled > 0.0f ? (scaled < 255.0f ? scaled : 255.0f) : 0.0f;
  return static_cast<uint8_t>((clamped + 8388608.0f) - 8388608.0f);  // 2^23: the sum rounds to an integer
}

/// A value of the data's range to one of the images'; with scale 1 and shift 0 the value itself, a negative zero too.
HD float scaled(float value, float scale, float shift) { return shift == 0.0f ? value * scale : value * scale + shift; }

/// max(0, min(1, value)) with NaN kept, as torch.clamp does.
HD float clamp01(float value) { return value < 0.0f ? 0.0f : (value > 1.0f ? 1.0f : value); }

}  // namespace score_sde
