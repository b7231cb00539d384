#include "core/joined.hpp"
#include "cuda/backend.hpp"
#include "cuda/check.hpp"
#include "cuda/choice.cuh"
#include "cuda/kernels/images.cuh"
#include "cuda/kernels/whole.cuh"
#include "cuda/stream_operation.cuh"

namespace score_sde::cuda {
// Not anonymous: nvcc would name it after the folder that the file lies in, and the binary would differ from one to
// another.
inline namespace backend_parts {

enum class How : uint8_t { Alone, Overlapping, Cooperative, Cluster };

template <class Params>
Status launch(void (*kernel)(Params), Grid grid, uint32_t threads, cudaStream_t stream, const Params& params,
              How how = How::Alone) {
  if (!grid.fits()) return Status::error("ERR_RANGE", "the batch is larger than one launch can be");
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
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
    attribute.val.clusterDim = {static_cast<unsigned>(grid.x), 1, 1};
  }
  return checked(cudaLaunchKernelEx(&config, kernel, params), "cudaLaunchKernelEx");
}

/// What rows of that shape are to the kernels; all operands are known by now.
void setShape(StepArgs& args, Shape shape) {
  args.rows = shape.rows;
  args.cols = shape.cols;
  args.aligned = true;
  eachView(args, [&](ConstView view) {
    const auto address = reinterpret_cast<uintptr_t>(view.data);
    args.aligned &= address % 16 == 0 && (shape.rows == 1 || shape.cols * sizeOf(view.type) % 16 == 0);
  });
}

/// Loads a kernel's code now. CUDA does so at its first launch unless the environment says otherwise, and that may wait
/// for all that the device has to do.
template <class Kernel>
Status load(Kernel* kernel, cudaFuncAttributes& loaded) {
  return checked(cudaFuncGetAttributes(&loaded, kernel), "cudaFuncGetAttributes");
}

/// Loads all kernels, and tells of the last of them.
Status loadAll(cudaFuncAttributes& loaded) {
  for (const StepKernel kernel : stepKernels()) TRY_STATUS(load(kernel, loaded));
  TRY_STATUS(load(convertValues<true>, loaded));
  TRY_STATUS(load(convertValues<false>, loaded));
  TRY_STATUS(load(imageGrid, loaded));
  TRY_STATUS(load(correctWhole<ClusterBarrier>, loaded));
  return load(correctWhole<GridBarrier>, loaded);
}

/// The blocks of a cluster that the device can hold at once; 0 where it has no clusters, or does not tell.
int maxClusterOf() {
  // Sixteen blocks are more than every such device must take.
  const cudaError_t allowed =
      cudaFuncSetAttribute(correctWhole<ClusterBarrier>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(16);
  config.blockDim = dim3(kWholeThreads);
  int blocks = 0;
  if (allowed == cudaSuccess &&
      cudaOccupancyMaxPotentialClusterSize(&blocks, correctWhole<ClusterBarrier>, &config) == cudaSuccess)
    return std::min(blocks, 16);
  cudaGetLastError();
  return 0;
}

}  // namespace backend_parts

CudaBackend::CudaBackend(int device, cudaStream_t stream, std::shared_ptr<Pool> pool)
    // Pieces for many calls: the host waits for none until it is that far ahead of the device.
    : device_(device),
      stream_(stream),
      pool_(std::move(pool)),
      staging_(device, stream, 64, size_t{1} << 14),
      tickets_(device),
      ahead_(device, stream) {}

Status CudaBackend::prepare() {
  TRY_ON_DEVICE(device_);
  cudaDeviceProp properties = {};
  TRY_CUDA(cudaGetDeviceProperties, &properties, device_);
  // Code that was made on the spot from an older architecture's lacks what the newer one's launches rely on.
  cudaFuncAttributes compiled = {};
  TRY_STATUS(loadAll(compiled));
  traits_.major = std::min(properties.major, compiled.ptxVersion / 10);
  int cooperative = 0, blocks = 0;  // blocks: to a multiprocessor
  TRY_CUDA(cudaDeviceGetAttribute, &cooperative, cudaDevAttrCooperativeLaunch, device_);
  TRY_STATUS(checked(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, correctWhole<GridBarrier>,
                                                                   static_cast<int>(kWholeThreads), 0),
                     "cudaOccupancyMaxActiveBlocksPerMultiprocessor"));
  traits_.maxCooperative = cooperative != 0 && blocks > 0 ? properties.multiProcessorCount : 0;
  traits_.maxCluster = traits_.major >= 9 ? maxClusterOf() : 0;
  return ahead_.create();
}

Status CudaBackend::randn(const RandnParams& p) {
  const Shape shape = joined(p.shape, p.noise);
  if (shape.size() == 0) return {};
  TRY_ON_DEVICE(device_);
  StreamOperation call(*this);
  StepArgs args;
  args.out = p.out;
  args.drawn = p.noise.type;
  setShape(args, shape);
  RowStep row;
  row.normals = RowStep::Normals::Drawn;
  row.e = p.scale;
  TRY_STATUS(call.rows({row}, nullptr, 0, p.noise, args.rowsOf));
  return launch(storeOf(typesOf(args, true)), updateGrid(shape), kUpdateThreads, stream_, args);
}

Status CudaBackend::step(const StepParams& p, std::vector<uint32_t>*) {
  if (p.shape.size() == 0) return {};
  TRY_ON_DEVICE(device_);
  StreamOperation call(*this);
  StepArgs args;
  args.rowSize = p.shape.cols;
  args.sample = p.sample;
  args.output = p.output;
  args.base = p.base;
  std::copy(p.history.begin(), p.history.end(), args.history);
  args.given = p.noise.given;
  args.drawn = p.noise.type;
  args.out = p.out;
  args.mean = p.mean;
  args.pushed = p.pushed;
  args.mark = p.mark;
  TRY_STATUS(call.rows(p.rows, p.device, p.deviceRows, p.noise, args.rowsOf));
  const auto any = [&](auto holds) { return std::any_of(p.rows.begin(), p.rows.end(), holds); };
  const bool draws = any([](const RowStep& row) { return row.normals == RowStep::Normals::Drawn; });
  if (draws && p.noise.kind != Noise::Kind::Philox)
    return Status::error("ERR_NATIVE", "a torch stream is drawn on the host, and given to a device");
  const Types types = typesOf(args, draws);
  const StepKernel kernel = updateFor(p.rows, types);

  if (!any(measuresScore)) {
    const bool same = p.device == nullptr ? sameUpdates(p.rows) : p.deviceRows == 1;
    const Shape shape = joined(p.shape, p.noise, same);
    // Rows that are the same have one record, whose phase is the first row's.
    if (shape.rows == 1) args.rowsOf.stepBytes = 0;
    setShape(args, shape);
    return launch(kernel, updateGrid(shape), kUpdateThreads, stream_, args);
  }

  const Shape shape = p.shape;
  setShape(args, shape);
  const size_t groups = shape.rows * sumGroups(shape.cols);
  TRY_STATUS(call.scratch(2 * groups, args.measures.scoreSums));
  args.measures.noiseSums = args.measures.scoreSums + groups;
  const bool all = std::all_of(p.rows.begin(), p.rows.end(), measuresScore);
  if (const CorrectPlan plan = correctPlan(shape, traits_); all && plan.kind != CorrectPlan::Kind::Split) {
    if (plan.kind == CorrectPlan::Kind::Cluster)
      return launch(correctWhole<ClusterBarrier>, Grid{plan.blocks}, kWholeThreads, stream_, args, How::Cluster);
    return launch(correctWhole<GridBarrier>, Grid{plan.blocks}, kWholeThreads, stream_, args, How::Cooperative);
  }
  TRY_STATUS(call.scratch(3 * shape.rows, args.measures.scoreNorms));
  args.measures.noiseNorms = args.measures.scoreNorms + shape.rows;
  args.measures.steps = args.measures.noiseNorms + shape.rows;
  TRY_STATUS(tickets_.take(2 * shape.rows, args.measures.tickets));
  // Noise that is drawn, by records that travel with the launch, depends on nothing that the stream has still to do.
  // Its launch pays where the batch is large, and not where other rows keep a small one from being corrected at once.
  const auto from = [&](RowStep::Normals normals) {
    return any([=](const RowStep& row) { return measuresNoise(row) && row.normals == normals; });
  };
  bool ahead = all && shape.rows <= kWholeRows && types != Types::Mixed && args.rowsOf.steps == nullptr &&
               args.rowsOf.streams == nullptr && from(RowStep::Normals::Drawn) && !from(RowStep::Normals::Given);
  if (ahead) TRY_STATUS(ahead_.isWorthwhile(ahead));
  if (ahead) {
    cudaStream_t stream = nullptr;
    TRY_STATUS(ahead_.begin(groups, args.measures.noiseSums, stream));
    TRY_STATUS(launch(normsOf<Sums::Noise>(types), normGrid(shape), kThreads, stream, args));
    TRY_STATUS(ahead_.join());
  }
  const StepKernel measure = ahead ? normsOf<Sums::Score>(types) : normsOf<Sums::Both>(types);
  TRY_STATUS(launch(measure, normGrid(shape), kThreads, stream_, args));
  args.backwards = true;
  args.waits = traits_.major >= 9;
  TRY_STATUS(
      launch(kernel, updateGrid(shape), kUpdateThreads, stream_, args, args.waits ? How::Overlapping : How::Alone));
  return ahead ? ahead_.end() : Status{};
}

Status CudaBackend::clamp(const ClampParams& p) {
  TRY_ON_DEVICE(device_);
  if (p.count == 0) return {};
  return launch(convertValues<true>, Grid{(p.count + kConverted - 1) / kConverted}, kThreads, stream_, p);
}

Status CudaBackend::convert(ConstView in, View out, size_t count) {
  TRY_ON_DEVICE(device_);
  if (count == 0) return {};
  return launch(convertValues<false>, Grid{(count + kConverted - 1) / kConverted}, kThreads, stream_,
                ClampParams{count, in, out});
}

Status CudaBackend::imageGrid(const ImageGridParams& p) {
  TRY_ON_DEVICE(device_);
  const size_t pixels = p.count * p.height * p.width;
  if (pixels == 0) return {};
  return launch(cuda::imageGrid, Grid{(pixels + kThreads - 1) / kThreads}, kThreads, stream_, p);
}

}  // namespace score_sde::cuda
