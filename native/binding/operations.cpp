// The Backend's operations, each as a function that runs on the caller's thread and as an ...Async twin. On a device
// both enqueue the operation where they are called; the twin's promise is of its end.
#include <napi.h>

#include <memory>
#include <string>
#include <utility>

#include "binding/args.hpp"
#include "binding/async_call.hpp"
#include "binding/attempt.hpp"
#include "binding/exports.hpp"
#include "core/backend.hpp"
#include "cpu/backend.hpp"

namespace score_sde::binding {
namespace {

struct Randn {
  RandnParams p;
  explicit Randn(Args& args) {
    p.shape = args.shape();
    p.noise = args.noise(p.shape);
    p.scale = static_cast<float>(args.number());
    p.out = args.view(p.shape.size());
  }
  Status run(Backend& backend) { return backend.randn(p); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

struct StepPred {
  StepPredParams p;
  bool finite = true;
  explicit StepPred(Args& args) {
    p.shape = args.shape();
    p.modelOutput = args.view(p.shape.size());
    p.sample = args.view(p.shape.size());
    p.noise = args.noise(p.shape);
    p.sigma = args.perRow(p.shape.rows);
    p.adjacentSigma = args.perRow(p.shape.rows);
    p.out = args.view(p.shape.size());
    p.mean = args.viewOrNull(p.shape.size());
    p.mark = args.mark();
  }
  Status run(Backend& backend) { return backend.stepPred(p, &finite); }
  Napi::Value result(Napi::Env env) { return Napi::Boolean::New(env, finite); }
};

struct StepCorrect {
  StepCorrectParams p;
  bool finite = true;
  explicit StepCorrect(Args& args) {
    p.shape = args.shape();
    p.modelOutput = args.view(p.shape.size());
    p.sample = args.view(p.shape.size());
    p.noise = args.noise(p.shape);
    p.stepSize = static_cast<StepSize>(args.count());
    p.snr = args.perRow(p.shape.rows);
    p.sigma = args.perRow(p.shape.rows);
    p.out = args.view(p.shape.size());
    p.mark = args.mark();
  }
  Status run(Backend& backend) {
    if (p.stepSize > StepSize::Ald ||
        (p.stepSize == StepSize::Ald && p.sigma.values.empty() && p.sigma.device == nullptr))
      return Status::error("ERR_NATIVE", "expected a step size, and a sigma with 'ald'");
    return backend.stepCorrect(p, &finite);
  }
  Napi::Value result(Napi::Env env) { return Napi::Boolean::New(env, finite); }
};

struct AddNoise {
  AddNoiseParams p;
  explicit AddNoise(Args& args) {
    p.shape = args.shape();
    p.sample = args.view(p.shape.size());
    p.noise = args.noise(p.shape);
    p.sigma = args.perRow(p.shape.rows);
    p.out = args.view(p.shape.size());
  }
  Status run(Backend& backend) { return backend.addNoise(p); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

/// An operation from one array to another of as many elements.
template <Status (Backend::*operation)(ConstView, View, size_t)>
struct Elementwise {
  size_t count;
  ConstView in;
  View out;
  explicit Elementwise(Args& args) : count(args.count()), in(args.view(count)), out(args.view(count)) {}
  Status run(Backend& backend) { return (backend.*operation)(in, out, count); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

struct ImageGrid {
  ImageGridParams p;
  explicit ImageGrid(Args& args) {
    const Shape images = args.shape(), each = args.shape();
    p.count = images.rows;
    p.channels = images.cols;
    p.height = each.rows;
    p.width = each.cols;
    p.columns = args.count();
    if (p.columns == 0) fail(args.env(), Status::error("ERR_NATIVE", "expected columns"));
    p.images = args.view(Shape{images.size(), each.size()}.size());
    const size_t rows = (p.count + p.columns - 1) / p.columns;
    p.out = args.array<uint8_t>(rows * p.columns * p.channels * each.size());
  }
  Status run(Backend& backend) { return backend.imageGrid(p); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

template <class Operation>
Status runOn(Backend& backend, Operation& operation) {
  return attempt([&] { return operation.run(backend); });
}

template <class Operation>
Napi::Value sync(const Napi::CallbackInfo& info) {
  Args args(info);
  Operation operation(args);
  cuda::Context* const device = args.context();
  const Status status = runOn(device == nullptr ? cpu::backend() : device->backend(), operation);
  if (!status.ok()) fail(info.Env(), status);
  return operation.result(info.Env());
}

template <class Operation>
class Call final : public AsyncCall {
 public:
  explicit Call(Operation operation) : operation_(std::move(operation)) {}

 protected:
  Status execute() override { return runOn(cpu::backend(), operation_); }
  Napi::Value result(Napi::Env env) override { return operation_.result(env); }

 private:
  Operation operation_;
};

template <class Operation>
Napi::Value async(const Napi::CallbackInfo& info) {
  Args args(info, true);
  const Order order = args.numbers();
  Operation operation(args);
  if (cuda::Context* const device = args.context(); device != nullptr) {
    if (const Status status = runOn(device->backend(), operation); !status.ok()) fail(info.Env(), status);
    return AsyncCall::start(info.Env(), std::make_unique<DeviceCall>(args.sharedContext()),
                            Napi::Array::New(info.Env()));
  }
  return AsyncCall::start(info.Env(), std::make_unique<Call<Operation>>(std::move(operation)), args.held(), nullptr,
                          order);
}

template <class Operation>
void both(Exports& exports, const std::string& name) {
  exports.add(name, sync<Operation>);
  exports.add(name + "Async", async<Operation>);
}

}  // namespace

void exportOperations(Exports& exports) {
  both<Randn>(exports, "randn");
  both<StepPred>(exports, "stepPred");
  both<StepCorrect>(exports, "stepCorrect");
  both<AddNoise>(exports, "addNoise");
  both<Elementwise<&Backend::convert>>(exports, "convert");
  both<Elementwise<&Backend::clamp>>(exports, "clamp");
  both<ImageGrid>(exports, "imageGrid");
}

}  // namespace score_sde::binding
