// Memory on CUDA devices as JS holds it, and the devices' contexts of an environment.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "binding/async_call.hpp"
#include "cuda/device.hpp"

namespace score_sde::binding {

/// What the External of a tensor's device memory holds; without a buffer once it is released.
struct DeviceMemory {
  std::shared_ptr<cuda::Context> context;
  std::shared_ptr<cuda::Buffer> buffer;
  int64_t reported = 0;  // the bytes that the engine counts as memory of this External
};

/// The device memory in an External, or in the `handle` of an object; null where the value is none.
DeviceMemory* deviceMemoryOf(Napi::Value value);

/// An External of its own for a buffer.
Napi::Value wrapMemory(Napi::Env env, std::shared_ptr<cuda::Context> context, std::shared_ptr<cuda::Buffer> buffer);

/// The environment's context on a device, made when it is first asked for. Throws what the Status says.
std::shared_ptr<cuda::Context> contextOf(Napi::Env env, int device);

/// A call that is over when all that was enqueued before it is done.
class DeviceCall : public AsyncCall {
 public:
  explicit DeviceCall(std::shared_ptr<cuda::Context> context) : context_(std::move(context)) {}

 protected:
  Status begin() override;
  Status execute() override { return std::move(outcome_); }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }
  /// On a thread of the driver's, which may call nothing of CUDA.
  virtual void reached(Status status);

  const std::shared_ptr<cuda::Context> context_;

 private:
  Status outcome_;
};

/// Memory of another owner, who hears of it on the environment's thread when the last share is gone and the stream has
/// done what it was to do with it; at the environment's end where the last share goes while the stream is captured.
class ForeignBuffer final : public cuda::Buffer {
 public:
  ForeignBuffer(Napi::Env env, std::shared_ptr<cuda::Context> context, void* data, size_t bytes,
                std::function<void()> release);
  ~ForeignBuffer() override;
  bool isForeign() const override { return true; }

 private:
  void sayFarewell();
  const napi_env env_;
  const std::shared_ptr<cuda::Context> context_;
  std::function<void()> release_;
};

}  // namespace score_sde::binding
