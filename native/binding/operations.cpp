// The Backend's operations, each as a function that runs on the caller's thread and as an ...Async twin.
#include <napi.h>

#include <memory>
#include <new>
#include <utility>

#include "binding/args.hpp"
#include "binding/async_call.hpp"
#include "binding/exports.hpp"
#include "core/backend.hpp"
#include "cpu/backend.hpp"

namespace score_sde::binding {
namespace {

Status outOfMemory() { return Status::error("ERR_MEMORY", "not enough memory"); }

struct Randn {
  RandnParams p;
  explicit Randn(Args& args) {
    p.shape = args.shape();
    p.noise = args.noise(p.shape);
    p.scale = static_cast<float>(args.number());
    p.out = args.view(p.shape.size());
  }
  Status run() { return cpu::backend().randn(p); }
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
  }
  Status run() { return cpu::backend().stepPred(p, &finite); }
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
  }
  Status run() {
    if (p.stepSize > StepSize::Ald || (p.stepSize == StepSize::Ald && p.sigma.values.empty()))
      return Status::error("ERR_NATIVE", "expected a step size, and a sigma with 'ald'");
    return cpu::backend().stepCorrect(p, &finite);
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
  Status run() { return cpu::backend().addNoise(p); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

struct Clamp {
  size_t count;
  ConstView in;
  View out;
  explicit Clamp(Args& args) : count(args.count()), in(args.view(count)), out(args.view(count)) {}
  Status run() { return cpu::backend().clamp(in, out, count); }
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
  Status run() { return cpu::backend().imageGrid(p); }
  Napi::Value result(Napi::Env env) { return env.Undefined(); }
};

template <class Operation>
Status attempt(Operation& operation) {
  try {
    return operation.run();
  } catch (const std::bad_alloc&) {
    return outOfMemory();
  }
}

template <class Operation>
Napi::Value sync(const Napi::CallbackInfo& info) {
  Args args(info);
  Operation operation(args);
  if (const Status status = attempt(operation); !status.ok()) fail(info.Env(), status);
  return operation.result(info.Env());
}

template <class Operation>
class Call final : public AsyncCall {
 public:
  explicit Call(Operation operation) : operation_(std::move(operation)) {}

 protected:
  Status execute() override { return attempt(operation_); }
  Napi::Value result(Napi::Env env) override { return operation_.result(env); }

 private:
  Operation operation_;
};

template <class Operation>
Napi::Value async(const Napi::CallbackInfo& info) {
  Args args(info, true);
  Operation operation(args);
  return AsyncCall::start(info.Env(), std::make_unique<Call<Operation>>(std::move(operation)), args.held());
}

template <class Operation>
void both(Napi::Env env, Napi::Object exports, const char* name) {
  exports.Set(name, Napi::Function::New(env, sync<Operation>, name));
  const std::string twin = std::string(name) + "Async";
  exports.Set(twin, Napi::Function::New(env, async<Operation>, twin));
}

}  // namespace

void exportOperations(Napi::Env env, Napi::Object exports) {
  both<Randn>(env, exports, "randn");
  both<StepPred>(env, exports, "stepPred");
  both<StepCorrect>(env, exports, "stepCorrect");
  both<AddNoise>(env, exports, "addNoise");
  both<Clamp>(env, exports, "clamp");
  both<ImageGrid>(env, exports, "imageGrid");
}

}  // namespace score_sde::binding
