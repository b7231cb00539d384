// Networks of ONNX Runtime.
#include <napi.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include "binding/args.hpp"
#include "binding/async_call.hpp"
#include "binding/attempt.hpp"
#include "binding/device.hpp"
#include "binding/exports.hpp"
#include "cpu/backend.hpp"
#include "ort/session.hpp"

namespace score_sde::binding {
namespace {

ThreadPool& runners() { return *Pools::ofProcess().runs; }

class RunCall;

/// A network as JS holds it. Runs share the session, so the last of them frees it. The context owns the session's
/// stream: it is declared first, so that it is destroyed last.
struct Network {
  std::shared_ptr<cuda::Context> context;
  std::shared_ptr<ort::Session> session;
  std::unordered_map<uint32_t, RunCall*> runs;  // runs that have not ended, by the ids that JS gave them
};
using SharedNetwork = std::shared_ptr<Network>;

Napi::Value portsOf(Napi::Env env, const std::vector<ort::Port>& ports) {
  Napi::Array list = Napi::Array::New(env);
  for (const ort::Port& port : ports) {
    Napi::Array shape = Napi::Array::New(env);
    for (size_t i = 0; i < port.dims.size(); ++i)
      shape.Set(static_cast<uint32_t>(i), port.dims[i] < 0 ? Napi::Value(Napi::String::New(env, port.dimNames[i]))
                                                           : Napi::Number::New(env, static_cast<double>(port.dims[i])));
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", port.name);
    entry.Set("type", port.type);
    entry.Set("shape", shape);
    list.Set(list.Length(), entry);
  }
  return list;
}

class LoadCall final : public AsyncCall {
 public:
  explicit LoadCall(Args& args) {
    library_ = args.text();
    shared_ = args.flag();
    if (args.isNext(napi_string)) {
      source_.path = args.text();
    } else {
      source_.size = args.count();
      source_.bytes = args.array<uint8_t>(source_.size);
    }
    options_.intraOpThreads = args.count<int>();
    options_.interOpThreads = args.count<int>();
    options_.graphOptimization = args.count<int>();
    options_.parallel = args.flag();
    options_.memoryPattern = args.flag();
    options_.cpuArena = args.flag();
    options_.logSeverity = args.count<int>();
    for (size_t sizes = args.count(); sizes > 0; --sizes) {
      std::string name = args.text();
      options_.sizes.emplace_back(std::move(name), args.count<int64_t>());
    }
    options_.optimizedPath = args.text();
    options_.profilePrefix = args.text();
    options_.config = args.texts();
    for (size_t files = args.count(); files > 0; --files) {
      ort::ExternalFile file;
      file.name = args.text();
      file.size = args.count();
      file.bytes = args.array<uint8_t>(file.size);
      source_.external.push_back(std::move(file));
    }
    if (args.isNext(napi_null)) return;
    const int device = args.count<int>();
    context_ = contextOf(args.env(), device);
    auto* const stream = reinterpret_cast<void*>(context_->stream());
    options_.cuda = ort::CudaProvider{device, stream, args.texts()};
  }

 protected:
  Status execute() override {
    return attempt([this]() -> Status {
      const ort::Library* library = nullptr;
      if (Status s = ort::openLibrary(library_, shared_, &library); !s.ok()) return s;
      std::unique_ptr<ort::Session> session;
      if (Status s = ort::Session::load(*library, source_, options_, &session); !s.ok()) return s;
      session_ = std::move(session);
      return {};
    });
  }

  Napi::Value result(Napi::Env env) override {
    Napi::Object loaded = Napi::Object::New(env);
    loaded.Set("inputs", portsOf(env, session_->inputs()));
    loaded.Set("outputs", portsOf(env, session_->outputs()));
    loaded.Set("library", session_->library().path);
    loaded.Set("version", session_->library().version);
    auto* const network = new SharedNetwork(new Network{std::move(context_), std::move(session_), {}});
    loaded.Set("network",
               Napi::External<SharedNetwork>::New(env, network, [](Napi::Env, SharedNetwork* n) { delete n; }));
    return loaded;
  }

 private:
  std::string library_;
  bool shared_ = true;
  ort::Source source_;
  ort::SessionOptions options_;
  std::shared_ptr<cuda::Context> context_;
  std::shared_ptr<ort::Session> session_;
};

/// Checks that the CUDA provider can be used with a library.
class ProviderCall final : public AsyncCall {
 public:
  explicit ProviderCall(Args& args) : library_(args.text()), shared_(args.flag()) {}

 protected:
  Status execute() override {
    return attempt([this]() -> Status {
      const ort::Library* library = nullptr;
      if (Status s = ort::openLibrary(library_, shared_, &library); !s.ok()) return s;
      return ort::checkCudaProvider(*library);
    });
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  const std::string library_;
  const bool shared_;
};

SharedNetwork networkOf(Args& args) { return *args.external<SharedNetwork>(); }

class RunCall final : public AsyncCall {
 public:
  explicit RunCall(Args& args) : network_(networkOf(args)), session_(network_->session) {
    if (args.isNext(napi_null)) {
      args.skip();
    } else {
      singleThreaded_ = networkOf(args)->session;
    }
    atOnce_ = args.count();
    if (session_ == nullptr || (atOnce_ > 1 && singleThreaded_ == nullptr))
      fail(args.env(), Status::error("ERR_DISPOSED", "the network is disposed"));
    id_ = args.count<uint32_t>();
    p_.backend = &cpu::backend();
    p_.perCall = args.count();
    p_.fill = args.count();
    p_.dims = args.numbers();
    if (p_.dims.empty()) fail(args.env(), Status::error("ERR_NATIVE", "expected dims"));
    p_.rows = static_cast<size_t>(p_.dims[0]);
    const size_t count = args.elements(p_.dims);
    p_.samplePort = portOf(args, session_->inputs());
    p_.sample = args.view(count);
    p_.outputPort = portOf(args, session_->outputs());
    p_.out = args.view(count);
    p_.onDevice = args.onDevice();
    if (p_.onDevice && args.context() != network_->context.get())
      fail(args.env(), Status::error("ERR_CONFIG", "the states lie on a device that the network does not run on"));
    shares_ = args.shares();
    for (size_t further = args.count(); further > 0; --further) {
      ort::InputParams input;
      input.port = portOf(args, session_->inputs());
      input.dims = args.numbers();
      input.bytes = args.count();
      input.data = args.array<uint8_t>(input.bytes);
      input.perRow = args.flag();
      if (input.perRow && input.bytes % std::max<size_t>(p_.rows, 1) != 0)
        fail(args.env(), Status::error("ERR_NATIVE", "expected an input of as many rows as the states"));
      p_.inputs.push_back(std::move(input));
    }
    divide();
    network_->runs[id_] = this;
  }
  ~RunCall() override { network_->runs.erase(id_); }

 protected:
  Status execute() override {
    return attempt([this]() -> Status {
      if (network_->context != nullptr)
        if (Status s = network_->context->makeCurrent(); !s.ok()) return s;
      // While other runs are at work, this one uses one thread.
      return (singleThreaded_ != nullptr && runners().runningTasks() > 1 ? singleThreaded_ : session_)->run(p_, stop_);
    });
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }
  void interrupt() override {
    stop_.request();
    size_t withdrawn = 0;
    for (Strand& strand : strands_) withdrawn += runners().withdraw(strand) ? 1 : 0;
    if (withdrawn > 0) endStrands(withdrawn);
  }
  Status begin() override {
    if (strands_.empty()) return AsyncCall::begin();
    // Not a range-for: the last strand may end the call, and with it `this`, before the loop is left.
    Strand* const strands = strands_.data();
    for (size_t i = 0, count = strands_.size(); i < count; ++i)  // submit can fail only for the first
      if (!runners().submit(strands[i])) return Status::error("ERR_MEMORY", "no thread can be had");
    return {};
  }

 private:
  /// One of the tasks that work on a divided batch at once. Its run() makes one call of the network and submits the
  /// task again, behind the waiting tasks of other runs.
  class Strand final : public Task {
   public:
    explicit Strand(RunCall& run) : run_(run) {}
    void run() override { run_.callNext(*this); }

   private:
    RunCall& run_;
  };

  /// Divides the batch into calls of about the same size: a multiple of atOnce_, if there are rows enough.
  void divide() {
    if (atOnce_ < 2 || p_.rows < 2) return;
    const size_t perCall = std::max<size_t>(p_.perCall, 1);
    const size_t roundRows = perCall > p_.rows / atOnce_ ? p_.rows : perCall * atOnce_;
    calls_ = std::min(p_.rows, (p_.rows + roundRows - 1) / roundRows * atOnce_);
    left_ = std::min({atOnce_, calls_, static_cast<size_t>(runners().threads())});
    strands_ = std::vector<Strand>(left_, Strand(*this));
  }

  /// rows * i / calls_
  size_t firstOf(size_t i) const { return p_.rows / calls_ * i + p_.rows % calls_ * i / calls_; }

  void callNext(Strand& strand) {
    if (const size_t i = next_++; i < calls_ && !stop_.requested()) {
      const size_t first = firstOf(i), end = firstOf(i + 1);
      Status status = attempt([&] { return singleThreaded_->run(ort::rowsOf(p_, first, end - first), stop_); });
      if (!status.ok()) {
        const std::lock_guard lock(mutex_);
        if (failed_.ok()) failed_ = std::move(status);
        next_ = calls_;
      }
    }
    if (next_ < calls_ && !stop_.requested()) {
      runners().submit(strand);
    } else {
      endStrands(1);
    }
  }

  /// The last strand to end ends the run.
  void endStrands(size_t strands) {
    if (left_.fetch_sub(strands) != strands) return;
    end(stop_.requested() ? Status::error("ERR_ABORTED", "the run was ended") : std::move(failed_));
  }

  static size_t portOf(Args& args, const std::vector<ort::Port>& ports) {
    const size_t port = args.count();
    if (port >= ports.size()) fail(args.env(), Status::error("ERR_NATIVE", "the network has no such port"));
    return port;
  }

  SharedNetwork network_;
  std::shared_ptr<ort::Session> session_, singleThreaded_;
  size_t atOnce_ = 0;  // calls of the single-threaded session at once; 0 or 1: the batch is not divided
  size_t calls_ = 0;   // calls that a divided batch is made of
  std::vector<Strand> strands_;
  std::atomic<size_t> next_{0}, left_{0};
  std::mutex mutex_;
  Status failed_;
  uint32_t id_ = 0;
  std::vector<std::shared_ptr<cuda::Buffer>> shares_;
  ort::RunParams p_;
  ort::Stop stop_;
};

/// Frees the session, off the event loop. If a run still uses the session, that run frees it.
class ReleaseCall final : public AsyncCall {
 public:
  explicit ReleaseCall(Args& args) : session_(std::move(networkOf(args)->session)) {}

 protected:
  Status execute() override {
    session_.reset();
    return {};
  }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  std::shared_ptr<ort::Session> session_;
};

template <class Call>
Napi::Value async(const Napi::CallbackInfo& info) {
  Args args(info, true);
  auto call = std::make_unique<Call>(args);
  return AsyncCall::start(info.Env(), std::move(call), args.held(), Pools::ofProcess().loads);
}

Napi::Value runNetworkAsync(const Napi::CallbackInfo& info) {
  Args args(info, true);
  const Order order = args.numbers();
  auto call = std::make_unique<RunCall>(args);
  return AsyncCall::start(info.Env(), std::move(call), args.held(), &runners(), order);
}

/// stopNetwork(network, id): stops a run if it has not ended.
Napi::Value stopNetwork(const Napi::CallbackInfo& info) {
  Args args(info);
  const SharedNetwork network = networkOf(args);
  const auto run = network->runs.find(args.count<uint32_t>());
  if (run != network->runs.end()) run->second->cancel(Status::error("ERR_ABORTED", "the run was ended"));
  return info.Env().Undefined();
}

}  // namespace

void exportNetworks(Exports& exports) {
  exports.add("checkProviderAsync", async<ProviderCall>);
  exports.add("loadNetworkAsync", async<LoadCall>);
  exports.add("runNetworkAsync", runNetworkAsync);
  exports.add("stopNetwork", stopNetwork);
  exports.add("releaseNetworkAsync", async<ReleaseCall>);
}

}  // namespace score_sde::binding
