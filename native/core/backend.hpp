#pragma once

#include "core/params.hpp"
#include "core/status.hpp"

namespace score_sde {

/// One kind of device. Outputs may be the very memory of an input (in place), else they do not overlap any.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual Status randn(const RandnParams& p) = 0;
  /// `bad`, where given, gets the rows whose `out` is not finite in its type; a device, whose work is only enqueued
  /// when its functions return, leaves it alone and keeps the parameters' `mark`.
  virtual Status step(const StepParams& p, std::vector<uint32_t>* bad) = 0;
  /// out = in, rounded where its type is narrower
  virtual Status convert(ConstView in, View out, size_t count) = 0;
  virtual Status clamp(const ClampParams& p) = 0;
  virtual Status imageGrid(const ImageGridParams& p) = 0;
};

}  // namespace score_sde
