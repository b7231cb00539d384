#include <cstring>

#include "cuda/backend.hpp"
#include "cuda/capture.hpp"
#include "cuda/check.hpp"
#include "cuda/device.hpp"
#include "cuda/devices.hpp"
#include "cuda/streams.hpp"

namespace score_sde::cuda {
namespace {

constexpr size_t kPiece = size_t{1} << 22;

cudaStream_t streamOf(uintptr_t handle) { return reinterpret_cast<cudaStream_t>(handle); }

/// The bytes of a block from `data` on; all that can be counted where the driver, of whose own interface this is, does
/// not tell.
size_t bytesFrom(void* data) {
  auto* const range = driverFunction<int(uintptr_t * base, size_t * bytes, uintptr_t data)>("cuMemGetAddressRange");
  uintptr_t base = 0;
  size_t bytes = 0;
  if (range == nullptr) return SIZE_MAX;
  const auto address = reinterpret_cast<uintptr_t>(data);
  return range(&base, &bytes, address) == 0 ? base + bytes - address : SIZE_MAX;
}

/// A block that another process lends.
class Opened final : public Buffer {
 public:
  using Buffer::Buffer;
  ~Opened() override {
    const OnDevice here(device);
    const Relaxed relaxed;
    cudaIpcCloseMemHandle(data);
  }
};

class DeviceContext final : public Context {
 public:
  DeviceContext(std::shared_ptr<Streams> streams)
      : streams_(std::move(streams)),
        pool_(std::make_shared<Pool>(streams_)),
        in_(streams_->device, streams_->work, 2, kPiece),
        out_(streams_->device, streams_->out, 2, kPiece),
        backend_(streams_->device, streams_->work, pool_) {}
  ~DeviceContext() override {
    const OnDevice here(device());
    for (cudaStream_t stream : {streams_->work, streams_->out, streams_->told}) cudaStreamSynchronize(stream);
  }

  Status prepare() { return backend_.prepare(); }

  int device() const override { return streams_->device; }
  Backend& backend() override { return backend_; }

  Status allocate(size_t bytes, std::shared_ptr<Buffer>& out) override { return pool_->allocate(bytes, out); }

  Status fill(void* to, uint8_t byte, size_t bytes) override {
    TRY_ON_DEVICE(device());
    TRY_CUDA(cudaMemsetAsync, to, byte, bytes, streams_->work);
    return {};
  }

  Status copy(void* to, const void* from, size_t bytes) override {
    TRY_ON_DEVICE(device());
    TRY_CUDA(cudaMemcpyAsync, to, from, bytes, cudaMemcpyDeviceToDevice, streams_->work);
    return {};
  }

  Status upload(void* to, const void* from, size_t bytes) override {
    if (isCaptured())
      return Status::error("ERR_STATE", "the stream is captured: a graph takes no memory of the host along");
    return in_.upload(to, from, bytes);
  }
  Status download(void* to, const void* from, size_t bytes) override { return out_.download(to, from, bytes); }

  Status words(size_t count, std::shared_ptr<uint32_t>& out) override { return streams_->words(count, out); }

  bool isCaptured() const override {
    bool captured = false;
    const OnDevice here(device());
    return isCapturing(streams_->work, captured).ok() && captured;
  }

  Status notify(void (*done)(void*, Status), void* data) override {
    if (isCaptured())
      return Status::error("ERR_STATE",
                           "the stream is captured: what is enqueued now is done when its graph is launched");
    struct Notice {
      void (*done)(void*, Status);
      void* data;
    };
    TRY_ON_DEVICE(device());
    // A stream waits for its callbacks: the work's does not, so that the device goes on.
    TRY_STATUS(precede(reinterpret_cast<uintptr_t>(streams_->told)));
    auto* const notice = new Notice{done, data};
    // Not cudaLaunchHostFunc, which is silent where the device has failed.
    const cudaError_t error = cudaStreamAddCallback(
        streams_->told,
        [](cudaStream_t, cudaError_t result, void* argument) {
          const std::unique_ptr<Notice> notice(static_cast<Notice*>(argument));
          notice->done(notice->data, result == cudaSuccess ? Status{} : failure(result, "a kernel"));
        },
        notice, 0);
    if (error != cudaSuccess) delete notice;
    // NOLINTNEXTLINE(clang-analyzer-cplusplus.NewDeleteLeaks): the notice is the callback's
    return checked(error, "cudaStreamAddCallback");
  }

  uintptr_t stream() const override { return reinterpret_cast<uintptr_t>(streams_->work); }

  Status waitFor(uintptr_t other) override {
    TRY_STATUS(assertOrderly(other));
    const std::lock_guard lock(order_);
    TRY_ON_DEVICE(device());
    TRY_CUDA(cudaEventRecord, streams_->before, streamOf(other));
    TRY_CUDA(cudaStreamWaitEvent, streams_->work, streams_->before, 0);
    return {};
  }

  Status precede(uintptr_t other) override {
    TRY_STATUS(assertOrderly(other));
    TRY_STATUS(pool_->order());  // here, too: who lends again and again, and takes no memory, would pile up events
    const std::lock_guard lock(order_);
    TRY_ON_DEVICE(device());
    TRY_CUDA(cudaEventRecord, streams_->after, streams_->work);
    TRY_CUDA(cudaStreamWaitEvent, streamOf(other), streams_->after, 0);
    return {};
  }

  Status reuseAfter(uintptr_t other) override { return pool_->reuseAfter(streamOf(other)); }

  Status makeCurrent() override {
    TRY_CUDA(cudaSetDevice, device());
    return {};
  }

  void synchronize() override {
    const OnDevice here(device());
    const Relaxed relaxed;
    cudaDeviceSynchronize();
  }

  Status inspect(void* data, int& found) override {
    TRY_ON_DEVICE(device());
    cudaPointerAttributes attributes = {};
    TRY_CUDA(cudaPointerGetAttributes, &attributes, data);
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged)
      return Status::error("ERR_CUDA", "the pointer is not one of a device's memory");
    found = attributes.device;
    return {};
  }

  Status exportHandle(void* data, uint8_t (&handle)[64]) override {
    static_assert(sizeof(cudaIpcMemHandle_t) == sizeof handle);
    TRY_ON_DEVICE(device());
    cudaIpcMemHandle_t found;
    TRY_CUDA(cudaIpcGetMemHandle, &found, data);
    std::memcpy(handle, &found, sizeof handle);
    return {};
  }

  Status importHandle(const uint8_t (&handle)[64], std::shared_ptr<Buffer>& out) override {
    TRY_ON_DEVICE(device());
    cudaIpcMemHandle_t given;
    std::memcpy(&given, handle, sizeof given);
    void* data = nullptr;
    if (Status opened =
            checked(cudaIpcOpenMemHandle(&data, given, cudaIpcMemLazyEnablePeerAccess), "cudaIpcOpenMemHandle");
        !opened.ok()) {
      opened.message += " (a handle is another process's, and good while that keeps the memory)";
      return opened;
    }
    out = std::make_shared<Opened>(data, bytesFrom(data), device());
    return {};
  }

  Usage usage() const override { return pool_->usage(); }
  Status trim() override { return pool_->trim(); }

 private:
  /// The legacy default stream takes part in no capture: an order against it would end the one of this stream.
  Status assertOrderly(uintptr_t other) const {
    if (streamOf(other) != nullptr && streamOf(other) != cudaStreamLegacy) return {};
    if (!isCaptured()) return {};
    return Status::error("ERR_STATE",
                         "the stream is captured, in which the legacy default stream takes no part: name "
                         "a stream of the capture");
  }

  const std::shared_ptr<Streams> streams_;
  const std::shared_ptr<Pool> pool_;
  std::mutex order_;  // of recording an event and waiting for it
  Staging in_, out_;
  CudaBackend backend_;
};

}  // namespace

Status open(int device, std::shared_ptr<Context>& out) {
  const Devices found = devices();
  if (found.list.empty()) return Status::error("ERR_CUDA_UNAVAILABLE", found.unavailable);
  if (device < 0 || static_cast<size_t>(device) >= found.list.size())
    return Status::error("ERR_CUDA_UNAVAILABLE", "there is no device cuda:" + std::to_string(device));
  errorWords();  // for callbacks
  auto streams = std::make_shared<Streams>(device);
  TRY_STATUS(streams->create());
  auto context = std::make_shared<DeviceContext>(std::move(streams));
  TRY_STATUS(context->prepare());
  out = std::move(context);
  return {};
}

}  // namespace score_sde::cuda
