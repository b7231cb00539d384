#pragma once

#include "core/params.hpp"
#include "core/status.hpp"

namespace score_sde {

/// One kind of device. Outputs may be the very memory of an input (in place), else they do not overlap any.
/// `finite`, where given, is set to whether every element of the result is finite in float32; a device, whose work is
/// only enqueued when its functions return, leaves it alone and keeps the parameters' `mark`.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual Status randn(const RandnParams& p) = 0;
  virtual Status stepPred(const StepPredParams& p, bool* finite) = 0;
  virtual Status stepCorrect(const StepCorrectParams& p, bool* finite) = 0;
  virtual Status addNoise(const AddNoiseParams& p) = 0;
  /// out = in, rounded where its type is narrower
  virtual Status convert(ConstView in, View out, size_t count) = 0;
  /// out = clamp(in, 0, 1)
  virtual Status clamp(ConstView in, View out, size_t count) = 0;
  virtual Status imageGrid(const ImageGridParams& p) = 0;
};

}  // namespace score_sde
