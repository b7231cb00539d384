#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "core/backend.hpp"
#include "cuda/launch.hpp"
#include "cuda/pool.hpp"
#include "cuda/staging.hpp"

namespace score_sde::cuda {

/// The operations, enqueued on a stream; all views lie in the device's memory.
class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, cudaStream_t stream, std::shared_ptr<Pool> pool);
  /// Asks the device what its launches depend on.
  Status prepare();

  Status randn(const RandnParams& p) override;
  Status stepPred(const StepPredParams& p, bool* finite) override;
  Status stepCorrect(const StepCorrectParams& p, bool* finite) override;
  Status addNoise(const AddNoiseParams& p) override;
  Status clamp(ConstView in, View out, size_t count) override;
  Status convert(ConstView in, View out, size_t count) override;
  Status imageGrid(const ImageGridParams& p) override;

 private:
  friend class Enqueue;
  Status tickets(size_t count, uint32_t*& out);
  Status isCapturing(bool& captured) const;

  const int device_;
  const cudaStream_t stream_;
  const std::shared_ptr<Pool> pool_;
  Staging staging_;  // of the rows' parameters
  Traits traits_;
  std::vector<std::shared_ptr<Buffer>> tickets_;   // the last one in use; the others may stand in captured graphs
  std::vector<std::shared_ptr<Buffer>> captured_;  // what stands in graphs, whose end nobody tells
};

}  // namespace score_sde::cuda
