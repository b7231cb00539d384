#include "ort/session.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <string_view>

#include "ort/paths.hpp"

namespace score_sde::ort {
namespace {

/// Bytes of an element, by ONNX's number of its type; 0 for a type that states cannot have.
size_t sizeOfElement(int type) { return type == kFloat64 ? 8 : type == kFloat32 ? 4 : type == kFloat16 ? 2 : 0; }

Dtype dtypeOf(int type) { return type == kFloat16 ? Dtype::Float16 : Dtype::Float32; }

/// Resizes to `count` parts of `each` bytes. False if that is more than a vector can have.
bool grow(std::vector<unsigned char>& bytes, size_t count, size_t each) {
  if (each != 0 && count > bytes.max_size() / each) return false;
  bytes.resize(count * each);
  return true;
}

Status tooLarge() { return Status::error("ERR_MEMORY", "the network's batch is larger than any memory"); }

}  // namespace

void Stop::request() {
  const std::lock_guard lock(mutex_);
  requested_.store(true, std::memory_order_relaxed);
  for (OrtRunOptions* const options : running_) api_->ignore((*api_)(RunOptionsSetTerminate, options));
}

Stop::Scope::Scope(Stop& stop, const Api& api, OrtRunOptions* options) : stop_(stop), options_(options) {
  const std::lock_guard lock(stop_.mutex_);
  stop_.api_ = &api;
  stop_.running_.push_back(options);
}

Stop::Scope::~Scope() {
  const std::lock_guard lock(stop_.mutex_);
  if (stop_.requested()) stop_.api_->ignore((*stop_.api_)(RunOptionsUnsetTerminate, options_));
  std::erase(stop_.running_, options_);
}

RunParams rowsOf(const RunParams& p, size_t first, size_t count) {
  RunParams rows = p;
  size_t each = 1;
  for (size_t axis = 1; axis < p.dims.size(); ++axis) each *= static_cast<size_t>(p.dims[axis]);
  rows.rows = count;
  rows.dims[0] = static_cast<int64_t>(count);
  rows.sample.data = static_cast<const char*>(p.sample.data) + first * each * sizeOf(p.sample.type);
  rows.out.data = static_cast<char*>(p.out.data) + first * each * sizeOf(p.out.type);
  for (InputParams& input : rows.inputs) {
    if (!input.perRow) continue;
    const size_t bytes = input.bytes / p.rows;
    input.data = static_cast<const char*>(input.data) + first * bytes;
    input.bytes = count * bytes;
  }
  return rows;
}

/// The memory that a port is bound to.
struct Session::Bound {
  const void* data = nullptr;
  std::vector<int64_t> dims;
};

/// The objects that a run needs for itself. Later runs reuse them, so that a loop binds once and allocates nothing.
struct Session::Workspace {
  explicit Workspace(const Api& api) : binding(api), waiting(api), enqueuing(api) {}
  BindingHandle binding;
  RunOptionsHandle waiting, enqueuing;  // options of calls that wait for the device, and of calls that do not
  std::vector<Bound> inputs, outputs;
  std::vector<std::vector<unsigned char>> converted,
      filled;  // by input: states in the network's type; a call's filled-up rows
  std::vector<unsigned char> score, filledScore;
};

namespace {

Status addExternal(const Api& api, const std::vector<ExternalFile>& files, OrtSessionOptions* options) {
  if (files.empty()) return {};
  std::vector<std::filesystem::path> names;
  std::vector<char*> bytes;
  std::vector<size_t> sizes;
  names.reserve(files.size());
  for (const ExternalFile& file : files) {
    names.push_back(pathOf(file.name));
    bytes.push_back(static_cast<char*>(const_cast<void*>(file.bytes)));  // the API lacks a const
    sizes.push_back(file.size);
  }
  std::vector<const PathChar*> starts;
  starts.reserve(files.size());
  for (const auto& name : names) starts.push_back(name.c_str());
  return api.check(
      api(AddExternalInitializersFromFilesInMemory, options, starts.data(), bytes.data(), sizes.data(), files.size()));
}

}  // namespace

Session::Session(const Library& library)
    : library_(library), session_(library.api), host_(library.api), device_(library.api) {}
Session::~Session() = default;

Status Session::load(const Library& library, const Source& source, const SessionOptions& options,
                     std::unique_ptr<Session>* session) {
  const Api& api = library.api;
  std::unique_ptr<Session> made(new Session(library));
  SessionOptionsHandle settings(api);
  TRY_STATUS(api.check(api(CreateSessionOptions, settings.out())));
  OrtSessionOptions* const o = settings.get();
  OrtStatus* const results[] = {
      api(SetIntraOpNumThreads, o, options.intraOpThreads),
      api(SetInterOpNumThreads, o, options.interOpThreads),
      api(SetSessionExecutionMode, o, options.parallel ? 1 : 0),
      api(SetSessionGraphOptimizationLevel, o, options.graphOptimization),
      api(SetSessionLogSeverityLevel, o, options.logSeverity),
  };
  Status failed;
  for (OrtStatus* const result : results)  // checks all of them: each status must be released
    if (Status status = api.check(result); !status.ok()) failed = std::move(status);
  if (!failed.ok()) return failed;
  if (!options.memoryPattern) TRY_STATUS(api.check(api(DisableMemPattern, o)));
  if (!options.cpuArena) TRY_STATUS(api.check(api(DisableCpuMemArena, o)));
  for (const auto& [name, size] : options.sizes)
    TRY_STATUS(api.check(api(AddFreeDimensionOverrideByName, o, name.c_str(), size), "ERR_CONFIG"));
  if (!options.optimizedPath.empty())
    TRY_STATUS(api.check(api(SetOptimizedModelFilePath, o, pathOf(options.optimizedPath).c_str())));
  if (!options.profilePrefix.empty())
    TRY_STATUS(api.check(api(EnableProfiling, o, pathOf(options.profilePrefix).c_str())));
  TRY_STATUS(addExternal(api, source.external, o));
  // The network's threads do not spin after a run: the step kernels need the cores.
  std::map<std::string, std::string> config = {{"session.force_spinning_stop", "1"}};
  for (const auto& [key, value] : options.config) config[key] = value;
  for (const auto& [key, value] : config)
    TRY_STATUS(api.check(api(AddSessionConfigEntry, o, key.c_str(), value.c_str()), "ERR_CONFIG"));
  if (options.cuda) {
    CudaOptionsHandle cuda(api);
    TRY_STATUS(api.check(api(CreateCudaProviderOptions, cuda.out()), "ERR_CUDA_UNAVAILABLE"));
    // An update without settings tells whether the provider's library loads.
    TRY_STATUS(api.check(api(UpdateCudaProviderOptions, cuda.get(), nullptr, nullptr, 0), "ERR_CUDA_UNAVAILABLE"));
    std::vector<const char*> keys, values;
    for (const auto& [key, value] : options.cuda->settings) {
      keys.push_back(key.c_str());
      values.push_back(value.c_str());
    }
    TRY_STATUS(
        api.check(api(UpdateCudaProviderOptions, cuda.get(), keys.data(), values.data(), keys.size()), "ERR_CONFIG"));
    TRY_STATUS(
        api.check(api(UpdateCudaProviderOptionsWithValue, cuda.get(), "user_compute_stream", options.cuda->stream)));
    TRY_STATUS(api.check(api(SessionOptionsAppendExecutionProviderCuda, o, cuda.get()), "ERR_CUDA_UNAVAILABLE"));
    TRY_STATUS(api.check(
        api(CreateMemoryInfo, "Cuda", kDeviceAllocator, options.cuda->device, kDefaultMemory, made->device_.out())));
  }
  TRY_STATUS(api.check(
      source.path.empty() ? api(CreateSessionFromArray, library.env, source.bytes, source.size, o, made->session_.out())
                          : api(CreateSession, library.env, pathOf(source.path).c_str(), o, made->session_.out())));
  TRY_STATUS(api.check(api(CreateMemoryInfo, "Cpu", kDeviceAllocator, 0, kDefaultMemory, made->host_.out())));
  TRY_STATUS(made->describe());
  *session = std::move(made);
  return {};
}

Status Session::describe() {
  TRY_STATUS(portsOf(true, inputs_));
  return portsOf(false, outputs_);
}

Status Session::portsOf(bool input, std::vector<Port>& ports) {
  const Api& api = library_.api;
  OrtAllocator* allocator = nullptr;
  TRY_STATUS(api.check(api(GetAllocatorWithDefaultOptions, &allocator)));
  size_t count = 0;
  OrtSession* const session = session_.get();
  TRY_STATUS(
      api.check(input ? api(SessionGetInputCount, session, &count) : api(SessionGetOutputCount, session, &count)));
  for (size_t i = 0; i < count; ++i) {
    Port port;
    char* name = nullptr;
    TRY_STATUS(api.check(input ? api(SessionGetInputName, session, i, allocator, &name)
                               : api(SessionGetOutputName, session, i, allocator, &name)));
    port.name = name;
    api.check(api(AllocatorFree, allocator, name));
    TypeInfoHandle type(api);
    TRY_STATUS(api.check(input ? api(SessionGetInputTypeInfo, session, i, type.out())
                               : api(SessionGetOutputTypeInfo, session, i, type.out())));
    const OrtTensorInfo* tensor = nullptr;  // part of `type`
    TRY_STATUS(api.check(api(CastTypeInfoToTensorInfo, type.get(), &tensor)));
    if (tensor != nullptr) {
      size_t rank = 0;
      TRY_STATUS(api.check(api(GetTensorElementType, tensor, &port.type)));
      TRY_STATUS(api.check(api(GetDimensionsCount, tensor, &rank)));
      port.dims.resize(rank);
      std::vector<const char*> names(rank);
      TRY_STATUS(api.check(api(GetDimensions, tensor, port.dims.data(), rank)));
      TRY_STATUS(api.check(api(GetSymbolicDimensions, tensor, names.data(), rank)));
      for (const char* const dim : names) port.dimNames.emplace_back(dim == nullptr ? "" : dim);
    }
    ports.push_back(std::move(port));
  }
  return {};
}

std::unique_ptr<Session::Workspace> Session::acquire(bool onDevice, Status& status) {
  {
    const std::lock_guard lock(mutex_);
    auto& free = onDevice ? freeOnDevice_ : free_;
    if (!free.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(free.back());
      free.pop_back();
      return workspace;
    }
  }
  const Api& api = library_.api;
  auto workspace = std::make_unique<Workspace>(api);
  workspace->inputs.resize(inputs_.size());
  workspace->outputs.resize(outputs_.size());
  workspace->converted.resize(inputs_.size());
  workspace->filled.resize(inputs_.size());
  status = api.check(api(CreateIoBinding, session_.get(), workspace->binding.out()));
  for (RunOptionsHandle* options : {&workspace->waiting, &workspace->enqueuing}) {
    if (status.ok()) status = api.check(api(CreateRunOptions, options->out()));
    if (status.ok()) status = api.check(api(RunOptionsSetRunLogSeverityLevel, options->get(), kFatal));
  }
  if (status.ok())
    status =
        api.check(api(AddRunConfigEntry, workspace->enqueuing.get(), "disable_synchronize_execution_providers", "1"));
  return workspace;
}

Status Session::run(const RunParams& p, Stop& stop) {
  Status status;
  std::unique_ptr<Workspace> workspace = acquire(p.onDevice, status);
  if (!status.ok()) return status;
  status = run(p, stop, *workspace);
  if (stop.requested()) status = Status::error("ERR_ABORTED", "the run was ended");
  const std::lock_guard lock(mutex_);
  (p.onDevice ? freeOnDevice_ : free_).push_back(std::move(workspace));
  return status;
}

/// Whether this thread's next call on a device waits for it, as one call in kCalls does. The provider frees the pinned
/// memory of a thread's calls only in a call that waits.
bool Session::waitsForDevice() {
  constexpr unsigned kCalls = 32;
  return ++deviceCalls_[std::this_thread::get_id()] % kCalls == 0;
}

Status Session::bind(Workspace& workspace, Bound& bound, const Port& port, bool input, bool onDevice, void* data,
                     size_t bytes, const std::vector<int64_t>& dims) {
  // A CUDA session copies an input on the host when it is bound, so such an input is bound again for each call.
  const bool copied = input && !onDevice && device_.get() != nullptr;
  if (bound.data == data && bound.dims == dims && data != nullptr && !copied) return {};
  const Api& api = library_.api;
  bound.data = nullptr;
  ValueHandle value(api);
  TRY_STATUS(api.check(api(CreateTensorWithDataAsOrtValue, (onDevice ? device_ : host_).get(), data, bytes, dims.data(),
                           dims.size(), port.type, value.out())));
  TRY_STATUS(api.check(input ? api(BindInput, workspace.binding.get(), port.name.c_str(), value.get())
                             : api(BindOutput, workspace.binding.get(), port.name.c_str(), value.get())));
  bound.data = data;
  bound.dims = dims;
  return {};
}

Status Session::run(const RunParams& p, Stop& stop, Workspace& workspace) {
  const Api& api = library_.api;
  const int scoreElement = outputs_[p.outputPort].type, sampleElement = inputs_[p.samplePort].type;
  if (sizeOfElement(scoreElement) == 0 || sizeOfElement(sampleElement) == 0 || sampleElement == kFloat64)
    return Status::error("ERR_MODEL", "the network's states must be float32 or float16");
  const Dtype sampleType = dtypeOf(sampleElement), scoreType = dtypeOf(scoreElement);
  size_t count = 1;
  for (const int64_t dim : p.dims) count *= static_cast<size_t>(dim);
  const size_t perCall = p.perCall == 0 ? p.rows : std::min(p.perCall, p.rows);
  if (count == 0 || perCall == 0) return {};
  if (p.onDevice && (device_.get() == nullptr || p.sample.type != sampleType || p.out.type != scoreType ||
                     scoreElement == kFloat64 || (p.fill != 0 && (p.rows % perCall != 0 || perCall != p.fill))))
    return Status::error("ERR_MODEL", "the network cannot take these states on the device");

  // The states are one more input, in the network's element type.
  std::vector<InputParams> inputs = p.inputs;
  InputParams states{p.samplePort, p.sample.data, count * sizeOf(sampleType), p.dims, true};
  if (p.sample.type != sampleType) {
    auto& converted = workspace.converted[p.samplePort];
    converted.resize(states.bytes);
    TRY_STATUS(p.backend->convert(p.sample, {converted.data(), sampleType}, count));
    states.data = converted.data();
  }
  inputs.push_back(std::move(states));
  auto* score = static_cast<unsigned char*>(p.out.data);
  const bool isDouble = scoreElement == kFloat64;
  if (p.out.type != scoreType || isDouble) {
    workspace.score.resize(count * sizeOfElement(scoreElement));
    score = workspace.score.data();
  }
  const size_t scoreRow = count / p.rows * sizeOfElement(scoreElement);

  std::vector<int64_t> dims;
  for (size_t row = 0; row < p.rows; row += perCall) {
    std::unique_lock<std::mutex> lock(provider_, std::defer_lock);
    if (device_.get() != nullptr) lock.lock();
    const size_t present = std::min(perCall, p.rows - row), called = p.fill == 0 ? present : p.fill;
    for (const InputParams& input : inputs) {
      const auto* data = static_cast<const unsigned char*>(input.data);
      size_t bytes = input.bytes;
      dims = input.dims;
      if (input.perRow) {
        const size_t each = bytes / p.rows;
        data += row * each;
        bytes = called * each;
        if (!dims.empty()) dims[0] = static_cast<int64_t>(called);
        if (present < called) {
          auto& filled = workspace.filled[input.port];
          if (!grow(filled, called, each)) return tooLarge();
          std::memcpy(filled.data(), data, present * each);
          for (size_t k = present; k < called; ++k)
            std::memcpy(filled.data() + k * each, data + (present - 1) * each, each);
          data = filled.data();
        }
      }
      const bool onDevice = p.onDevice && input.port == p.samplePort;
      TRY_STATUS(bind(workspace, workspace.inputs[input.port], inputs_[input.port], true, onDevice,
                      const_cast<unsigned char*>(data), bytes, dims));
    }
    unsigned char* out = score + row * scoreRow;
    if (present < called) {
      if (!grow(workspace.filledScore, called, scoreRow)) return tooLarge();
      out = workspace.filledScore.data();
    }
    dims = p.dims;
    dims[0] = static_cast<int64_t>(called);
    TRY_STATUS(bind(workspace, workspace.outputs[p.outputPort], outputs_[p.outputPort], false, p.onDevice, out,
                    called * scoreRow, dims));
    OrtRunOptions* const options =
        p.onDevice && !waitsForDevice() ? workspace.enqueuing.get() : workspace.waiting.get();
    {
      const Stop::Scope scope(stop, api, options);
      if (stop.requested()) return {};
      TRY_STATUS(api.check(api(RunWithBinding, session_.get(), options, workspace.binding.get())));
    }
    if (present < called) std::memcpy(score + row * scoreRow, out, present * scoreRow);
  }
  if (isDouble) {
    // In place: the float i ends before the double i does.
    for (size_t i = 0; i < count; ++i) {
      double value;
      std::memcpy(&value, score + i * sizeof value, sizeof value);
      const auto rounded = static_cast<float>(value);
      std::memcpy(score + i * sizeof rounded, &rounded, sizeof rounded);
    }
  }
  return score == p.out.data ? Status{} : p.backend->convert({score, scoreType}, p.out, count);
}

Status selfTest(const Library& library) {
  // An ONNX network of opset 17: y = x + x over float32 [n].
  constexpr std::string_view kDouble(
      "\x08\x08\x42\x02\x10\x11\x3a\x37"
      "\x0a\x0e\x0a\x01x\x0a\x01x\x12\x01y\x22\x03"
      "Add\x12\x01t"
      "\x5a\x10\x0a\x01x\x12\x0b\x0a\x09\x08\x01\x12\x05\x0a\x03\x12\x01n"
      "\x62\x10\x0a\x01y\x12\x0b\x0a\x09\x08\x01\x12\x05\x0a\x03\x12\x01n",
      63);
  std::unique_ptr<Session> session;
  TRY_STATUS(Session::load(library, {"", kDouble.data(), kDouble.size(), {}}, {}, &session));
  const float x[] = {1.0f, -2.5f, 1e30f};
  float y[3] = {};
  RunParams p;
  p.rows = 3;
  p.dims = {3};
  p.sample = {x, Dtype::Float32};
  p.out = {y, Dtype::Float32};
  Stop stop;
  TRY_STATUS(session->run(p, stop));
  for (size_t i = 0; i < 3; ++i)
    if (y[i] != x[i] + x[i]) return Status::error("ERR_MODEL", "a network of one addition gives wrong sums");
  return {};
}

}  // namespace score_sde::ort
