#include <array>

#include "core/joined.hpp"
#include "cuda/backend.hpp"
#include "cuda/check.hpp"
#include "cuda/kernels/images.cuh"
#include "cuda/kernels/norms.cuh"
#include "cuda/kernels/update.cuh"
#include "cuda/kernels/whole.cuh"

namespace score_sde::cuda {
// Not anonymous: nvcc would name it after the folder that the file lies in, and the binary would differ from one to
// another.
inline namespace backend_parts {

/// An update of rows of that shape.
UpdateArgs argsOver(Shape shape) {
  UpdateArgs args;
  args.cols = shape.cols;
  args.blocksPerRow = updateBlocks(shape).perRow;
  return args;
}

bool isPlain(const UpdateArgs& p) {
  const auto plain = [](const void* data, Dtype type) { return data == nullptr || type == Dtype::Float32; };
  return plain(p.sample.data, p.sample.type) && plain(p.score.data, p.score.type) &&
         plain(p.noise.given.data, p.noise.given.type) && plain(p.out.data, p.out.type) &&
         plain(p.mean.data, p.mean.type) && (p.noise.given.data != nullptr || p.noise.type == Dtype::Float32);
}

enum class How : uint8_t { Alone, Overlapping, Cooperative, Cluster };

template <class Params>
Status launch(void (*kernel)(Params), size_t blocks, uint32_t threads, cudaStream_t stream, const Params& params,
              How how = How::Alone) {
  if (blocks > kMaxBlocks) return Status::error("ERR_RANGE", "the batch is larger than one launch can be");
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(threads);
  config.stream = stream;
  cudaLaunchAttribute attribute = {};
  config.attrs = &attribute;
  config.numAttrs = how == How::Alone ? 0 : 1;
  if (how == How::Overlapping) {
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  } else if (how == How::Cooperative) {
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
  } else if (how == How::Cluster) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  }
  return checked(cudaLaunchKernelEx(&config, kernel, params), "cudaLaunchKernelEx");
}

template <class Op>
Status launchUpdate(const UpdateArgs& p, Shape shape, cudaStream_t stream, How how = How::Alone) {
  return launch(isPlain(p) ? update<Op, true> : update<Op, false>, updateBlocks(shape).blocks, kThreads, stream, p,
                how);
}

}  // namespace backend_parts

/// One operation being enqueued: its parameters by row, in memory of the device where there are many.
class Enqueue {
 public:
  explicit Enqueue(CudaBackend& backend) : backend_(backend) {}

  template <class T>
  Status scratch(size_t count, T*& out) {
    std::shared_ptr<Buffer> buffer;
    TRY_STATUS(backend_.pool_->allocate(count * sizeof(T), buffer));
    out = static_cast<T*>(buffer->data);
    bool captured = false;
    TRY_STATUS(backend_.isCapturing(captured));
    (captured ? backend_.captured_ : held_).push_back(std::move(buffer));
    return {};
  }

  Status values(const PerRow& given, Values& out) {
    if (given.device != nullptr) {
      out.device = given.device;
      out.each = given.each;
      return {};
    }
    return rows(given.values, out);
  }

  Status noise(const Noise& given, NoiseArgs& out) {
    out.type = given.type;
    if (given.kind == Noise::Kind::Given) {
      out.given = given.given;
      return {};
    }
    if (given.kind != Noise::Kind::Philox)
      return Status::error("ERR_NATIVE", "a torch stream is drawn on the host, and given to a device");
    if (given.device != nullptr) {
      out.streams.device = given.device;
      out.streams.each = given.deviceStreams > 1;
      return {};
    }
    return rows(given.philox, out.streams);
  }

 private:
  template <class T>
  Status rows(const std::vector<T>& given, ByRow<T>& out) {
    out.each = given.size() > 1;
    if (given.size() <= kFew) {
      std::copy(given.begin(), given.end(), out.few);
      return {};
    }
    bool captured = false;
    TRY_STATUS(backend_.isCapturing(captured));
    if (captured)
      return Status::error("ERR_CUDA",
                           "a graph takes the values of more than " + std::to_string(kFew) +
                               " rows from device memory alone: host memory would be gone when it is replayed");
    T* device = nullptr;
    TRY_STATUS(scratch(given.size(), device));
    out.device = device;
    return backend_.staging_.upload(device, given.data(), given.size() * sizeof(T));
  }

  CudaBackend& backend_;
  std::vector<std::shared_ptr<Buffer>> held_;  // goes back to the pool when all is enqueued
};

CudaBackend::CudaBackend(int device, cudaStream_t stream, std::shared_ptr<Pool> pool)
    // Pieces for many calls: the host waits for none until it is that far ahead of the device.
    : device_(device), stream_(stream), pool_(std::move(pool)), staging_(device, stream, 64, size_t{1} << 14) {}

Status CudaBackend::prepare() {
  TRY_ON_DEVICE(device_);
  cudaDeviceProp properties = {};
  TRY_CUDA(cudaGetDeviceProperties, &properties, device_);
  // Code that was made on the spot from an older architecture's lacks what the newer one's launches rely on.
  cudaFuncAttributes compiled = {};
  TRY_STATUS(checked(cudaFuncGetAttributes(&compiled, correctWhole<GridBarrier>), "cudaFuncGetAttributes"));
  traits_.major = std::min(properties.major, compiled.ptxVersion / 10);
  int blocks = 0;  // to a multiprocessor
  TRY_STATUS(checked(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, correctWhole<GridBarrier>,
                                                                   static_cast<int>(kWholeThreads), 0),
                     "cudaOccupancyMaxActiveBlocksPerMultiprocessor"));
  traits_.multiprocessors = blocks > 0 ? properties.multiProcessorCount : 0;
  if (traits_.major < 9) return {};
  // Sixteen blocks are more than every such device must take.
  TRY_STATUS(
      checked(cudaFuncSetAttribute(correctWhole<ClusterBarrier>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
              "cudaFuncSetAttribute"));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(16);
  config.blockDim = dim3(kWholeThreads);
  TRY_STATUS(checked(cudaOccupancyMaxPotentialClusterSize(&traits_.maxCluster, correctWhole<ClusterBarrier>, &config),
                     "cudaOccupancyMaxPotentialClusterSize"));
  traits_.maxCluster = std::min(traits_.maxCluster, 16);
  return {};
}

Status CudaBackend::isCapturing(bool& captured) const {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  TRY_CUDA(cudaStreamIsCapturing, stream_, &status);
  captured = status != cudaStreamCaptureStatusNone;
  return {};
}

Status CudaBackend::tickets(size_t count, uint32_t*& out) {
  const size_t bytes = count * sizeof(uint32_t);
  if (tickets_.empty() || tickets_.back()->bytes < bytes) {
    std::shared_ptr<Buffer> grown;
    TRY_STATUS(pool_->allocate(std::max(bytes, size_t{4096}), grown));
    TRY_CUDA(cudaMemsetAsync, grown->data, 0, grown->bytes, stream_);
    tickets_.push_back(std::move(grown));
  }
  out = static_cast<uint32_t*>(tickets_.back()->data);
  return {};
}

Status CudaBackend::randn(const RandnParams& p) {
  const Shape shape = joined(p.shape, p.noise, {});
  if (shape.size() == 0) return {};
  TRY_ON_DEVICE(device_);
  Enqueue call(*this);
  UpdateArgs args = argsOver(shape);
  TRY_STATUS(call.noise(p.noise, args.noise));
  args.out = p.out;
  args.scale = p.scale;
  return launchUpdate<Store>(args, shape, stream_);
}

Status CudaBackend::stepPred(const StepPredParams& p, bool*) {
  const Shape shape = joined(p.shape, p.noise, {&p.sigma, &p.adjacentSigma});
  if (shape.size() == 0) return {};
  TRY_ON_DEVICE(device_);
  Enqueue call(*this);
  UpdateArgs args = argsOver(shape);
  args.sample = p.sample;
  args.score = p.modelOutput;
  args.out = p.out;
  args.mean = p.mean;
  args.mark = p.mark;
  TRY_STATUS(call.noise(p.noise, args.noise));
  TRY_STATUS(call.values(p.sigma, args.first));
  TRY_STATUS(call.values(p.adjacentSigma, args.second));
  return launchUpdate<Predict>(args, shape, stream_);
}

Status CudaBackend::addNoise(const AddNoiseParams& p) {
  const Shape shape = joined(p.shape, p.noise, {&p.sigma});
  if (shape.size() == 0) return {};
  TRY_ON_DEVICE(device_);
  Enqueue call(*this);
  UpdateArgs args = argsOver(shape);
  args.sample = p.sample;
  args.out = p.out;
  TRY_STATUS(call.noise(p.noise, args.noise));
  TRY_STATUS(call.values(p.sigma, args.first));
  return launchUpdate<Perturb>(args, shape, stream_);
}

Status CudaBackend::stepCorrect(const StepCorrectParams& p, bool*) {
  if (p.shape.size() == 0) return {};
  TRY_ON_DEVICE(device_);
  Enqueue call(*this);
  UpdateArgs args;
  args.sample = p.sample;
  args.score = p.modelOutput;
  args.out = p.out;
  args.mark = p.mark;
  TRY_STATUS(call.noise(p.noise, args.noise));
  if (p.stepSize == StepSize::Ald) {
    const Shape shape = joined(p.shape, p.noise, {&p.snr, &p.sigma});
    args.cols = shape.cols;
    args.blocksPerRow = updateBlocks(shape).perRow;
    TRY_STATUS(call.values(p.snr, args.first));
    TRY_STATUS(call.values(p.sigma, args.second));
    return launchUpdate<Anneal>(args, shape, stream_);
  }

  const Shape shape = p.shape;
  StepRule rule;
  rule.size = p.stepSize;
  rule.scoreType = p.modelOutput.type;
  rule.cols = shape.cols;
  TRY_STATUS(call.values(p.snr, rule.snr));
  double* sums = nullptr;
  const size_t groups = shape.rows * sumGroups(shape.cols);
  TRY_STATUS(call.scratch(2 * groups, sums));

  if (const CorrectPlan plan = correctPlan(shape, traits_); plan.kind != CorrectPlan::Kind::Split) {
    WholeArgs whole;
    whole.rows = shape.rows;
    whole.cols = shape.cols;
    whole.sample = p.sample;
    whole.score = p.modelOutput;
    whole.noise = args.noise;
    whole.out = p.out;
    whole.rule = rule;
    whole.gradSums = sums;
    whole.noiseSums = sums + groups;
    whole.mark = p.mark;
    if (plan.kind == CorrectPlan::Kind::Cluster)
      return launch(correctWhole<ClusterBarrier>, plan.blocks, kWholeThreads, stream_, whole, How::Cluster);
    return launch(correctWhole<GridBarrier>, plan.blocks, kWholeThreads, stream_, whole, How::Cooperative);
  }

  NormArgs measure;
  measure.rows = shape.rows;
  measure.cols = shape.cols;
  measure.blocksPerRow = normBlocks(shape).perRow;
  measure.score = p.modelOutput;
  measure.noise = args.noise;
  measure.rule = rule;
  measure.gradSums = sums;
  measure.noiseSums = sums + groups;
  float* rows = nullptr;
  TRY_STATUS(call.scratch(3 * shape.rows, rows));
  measure.gradNorms = rows;
  measure.noiseNorms = rows + shape.rows;
  measure.steps = rows + 2 * shape.rows;
  TRY_STATUS(tickets(shape.rows + 1, measure.tickets));
  args.cols = shape.cols;
  args.blocksPerRow = updateBlocks(shape).perRow;
  args.first.device = measure.steps;
  args.first.each = true;
  args.backwards = true;
  args.waits = traits_.major >= 9;
  TRY_STATUS(launch(isPlain(args) ? norms<true> : norms<false>, normBlocks(shape).blocks, kThreads, stream_, measure));
  return launchUpdate<Correct>(args, shape, stream_, args.waits ? How::Overlapping : How::Alone);
}

Status CudaBackend::clamp(ConstView in, View out, size_t count) {
  TRY_ON_DEVICE(device_);
  if (count == 0) return {};
  return launch(cast, (count + kTile - 1) / kTile, kThreads, stream_, CastArgs{count, in, out, true});
}

Status CudaBackend::convert(ConstView in, View out, size_t count) {
  TRY_ON_DEVICE(device_);
  if (count == 0) return {};
  return launch(cast, (count + kTile - 1) / kTile, kThreads, stream_, CastArgs{count, in, out, false});
}

Status CudaBackend::imageGrid(const ImageGridParams& p) {
  TRY_ON_DEVICE(device_);
  const size_t pixels = p.count * p.height * p.width;
  if (pixels == 0) return {};
  return launch(cuda::imageGrid, (pixels + kThreads - 1) / kThreads, kThreads, stream_, p);
}

}  // namespace score_sde::cuda
