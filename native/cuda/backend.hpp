#pragma once

#include <cuda_runtime.h>

#include <memory>
#include <vector>

#include "core/backend.hpp"
#include "cuda/ahead.hpp"
#include "cuda/launch.hpp"
#include "cuda/pool.hpp"
#include "cuda/staging.hpp"
#include "cuda/tickets.hpp"

namespace score_sde::cuda {

/// The operations, enqueued on a stream; all views lie in the device's memory.
class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, cudaStream_t stream, std::shared_ptr<Pool> pool);
  /// Asks the device what its launches depend on, and loads the kernels there.
  Status prepare();

  Status randn(const RandnParams& p) override;
  Status step(const StepParams& p, std::vector<uint32_t>* bad) override;
  Status clamp(const ClampParams& p) override;
  Status convert(ConstView in, View out, size_t count) override;
  Status imageGrid(const ImageGridParams& p) override;

 private:
  friend class StreamOperation;

  const int device_;
  const cudaStream_t stream_;
  const std::shared_ptr<Pool> pool_;
  Staging staging_;  // of the rows' records
  Traits traits_;
  Tickets tickets_;
  NoiseAhead ahead_;
  std::vector<std::shared_ptr<Buffer>> captured_;  // what stands in graphs, whose end nobody tells
};

}  // namespace score_sde::cuda
