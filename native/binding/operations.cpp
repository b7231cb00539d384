// The Backend's operations, each as a function that runs on the caller's thread and as an ...Async twin. On a device
// both enqueue the operation where they are called; the twin's promise is of its end.
#include <napi.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "binding/args.hpp"
#include "binding/async_call.hpp"
#include "binding/attempt.hpp"
#include "binding/exports.hpp"
#include "binding/records.hpp"
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

struct Step {
  StepParams p;
  std::vector<uint32_t> bad;
  explicit Step(Args& args) {
    p.shape = args.shape();
    args.records(p);
    p.sample = args.view(p.shape.size());
    p.output = args.viewOrNull(p.shape.size());
    p.noise = args.noise(p.shape, true);
    p.out = args.view(p.shape.size());
    p.mean = args.viewOrNull(p.shape.size());
    p.pushed = args.viewOrNull(p.shape.size());
    if (const View given = args.viewOrNull(p.shape.size()); given.data != nullptr) p.noise.given = given;
    p.base = args.viewOrNull(p.shape.size());
    const size_t histories = args.isOver() ? 0 : args.count();
    if (histories > p.history.size())
      fail(args.env(),
           Status::error("ERR_NATIVE", "expected at most " + std::to_string(p.history.size()) + " histories"));
    for (size_t k = 0; k < histories; ++k) p.history[k] = args.viewOrNull(p.shape.size());
    p.mark = args.mark(p.shape.rows);
    if (p.shape.size() == 0) return;  // memory of no elements has no address
    for (const RowStep& row : p.rows)
      if (const Status status = checkRow(p, row); !status.ok()) fail(args.env(), status);
  }
  Status run(Backend& backend) { return backend.step(p, &bad); }
  Napi::Value result(Napi::Env env) {
    if (bad.empty()) return env.Null();
    Napi::Uint32Array rows = Napi::Uint32Array::New(env, bad.size());
    std::copy(bad.begin(), bad.end(), rows.Data());
    return rows;
  }
};

struct Convert {
  size_t count;
  ConstView in;
  View out;
  explicit Convert(Args& args) : count(args.count()), in(args.view(count)), out(args.view(count)) {}
  Status run(Backend& backend) { return backend.convert(in, out, count); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

struct Clamp {
  ClampParams p;
  explicit Clamp(Args& args) {
    p.count = args.count();
    p.in = args.view(p.count);
    p.out = args.view(p.count);
    p.scale = static_cast<float>(args.number());
    p.shift = static_cast<float>(args.number());
  }
  Status run(Backend& backend) { return backend.clamp(p); }
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
    const size_t size = args.elements({p.count, p.channels, p.height, p.width});
    p.images = args.view(size);
    const size_t rows = (p.count + p.columns - 1) / p.columns;
    p.out = args.array<uint8_t>(args.elements({rows, p.columns, p.channels, p.height, p.width}));
    if (size == 0) p.count = 0;
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
    Status status = device->awaitable();
    if (status.ok()) status = runOn(device->backend(), operation);
    if (!status.ok()) fail(info.Env(), status);
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
  both<Step>(exports, "step");
  both<Convert>(exports, "convert");
  both<Clamp>(exports, "clamp");
  both<ImageGrid>(exports, "imageGrid");
}

}  // namespace score_sde::binding
