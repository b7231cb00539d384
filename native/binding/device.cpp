#include "binding/device.hpp"

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "binding/args.hpp"
#include "binding/exports.hpp"
#include "cuda/devices.hpp"

namespace score_sde::binding {
namespace {

/// An environment's contexts, by device, and what gives memory back to other owners that a graph may use to the
/// environment's end.
struct Environment {
  std::map<int, std::shared_ptr<cuda::Context>> contexts;
  std::vector<std::function<void()>> releases;
};

/// The environments that are not at their end.
struct Environments {
  std::mutex mutex;
  std::map<napi_env, Environment> of;
};
Environments& environments() {
  static auto* const all = new Environments();
  return *all;
}

bool isAlive(napi_env env) {
  const std::lock_guard lock(environments().mutex);
  return environments().of.contains(env);
}

void endContexts(void* data) {
  const auto env = static_cast<napi_env>(data);
  Environment gone;  // ended outside of the lock: that waits for streams
  {
    const std::lock_guard lock(environments().mutex);
    const auto found = environments().of.find(env);
    if (found == environments().of.end()) return;
    gone = std::move(found->second);
    environments().of.erase(found);
  }
  if (gone.releases.empty()) return;
  for (const auto& [device, context] : gone.contexts) context->synchronize();
  const Napi::HandleScope scope(env);
  for (const auto& release : gone.releases) release();
}

void check(Napi::Env env, const Status& status) {
  if (!status.ok()) fail(env, status);
}

void reset(Napi::Env env, DeviceMemory& memory) {
  if (memory.buffer == nullptr) return;
  const int64_t reported = memory.reported;
  memory = {};
  Napi::MemoryManagement::AdjustExternalMemory(env, -reported);
}

DeviceMemory& memoryArg(const Napi::CallbackInfo& info, size_t index, size_t bytes = 0) {
  DeviceMemory* const memory = deviceMemoryOf(info[index]);
  if (memory == nullptr) fail(info.Env(), Status::error("ERR_NATIVE", "expected device memory"));
  if (memory->buffer == nullptr) fail(info.Env(), Status::error("ERR_DISPOSED", "the device memory is disposed"));
  if (memory->buffer->bytes < bytes) fail(info.Env(), Status::error("ERR_NATIVE", "the device memory is shorter"));
  return *memory;
}

/// A host array as the second argument, and its bytes.
Napi::TypedArray arrayArg(const Napi::CallbackInfo& info) {
  if (!info[1].IsTypedArray()) fail(info.Env(), Status::error("ERR_NATIVE", "expected a typed array"));
  return info[1].As<Napi::TypedArray>();
}

void* addressOf(Napi::TypedArray array) {
  return static_cast<uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset();
}

Napi::Array only(Napi::TypedArray array) {
  Napi::Array held = Napi::Array::New(array.Env());
  held.Set(uint32_t{0}, array);
  return held;
}

Napi::Value externalOf(Napi::Env env, DeviceMemory memory) {
  return Napi::External<DeviceMemory>::New(env, new DeviceMemory(std::move(memory)),
                                           [](Napi::Env home, DeviceMemory* gone) {
                                             reset(home, *gone);
                                             delete gone;
                                           });
}

/// deviceAllocate(device, bytes)
Napi::Value allocate(const Napi::CallbackInfo& info) {
  Args args(info);
  auto context = contextOf(info.Env(), args.count<int>());
  std::shared_ptr<cuda::Buffer> buffer;
  check(info.Env(), context->allocate(args.count(), buffer));
  return wrapMemory(info.Env(), std::move(context), std::move(buffer));
}

/// A part of another buffer, which lives as long as any part does.
class Slice final : public cuda::Buffer {
 public:
  Slice(std::shared_ptr<cuda::Buffer> whole, size_t offset, size_t bytes)
      : Buffer(static_cast<uint8_t*>(whole->data) + offset, bytes, whole->device), whole_(std::move(whole)) {}
  bool isForeign() const override { return whole_->isForeign(); }

 private:
  const std::shared_ptr<cuda::Buffer> whole_;
};

/// deviceSlice(memory, offset, bytes)
Napi::Value slice(const Napi::CallbackInfo& info) {
  Args args(info);
  const DeviceMemory& memory = memoryArg(info, 0);
  args.skip();
  const size_t offset = args.count(), bytes = args.count(), all = memory.buffer->bytes;
  if (offset > all || bytes > all - offset)
    fail(info.Env(), Status::error("ERR_SHAPE", "expected a part of " + std::to_string(all) + " bytes, got " +
                                                    std::to_string(bytes) + " from " + std::to_string(offset) + " on"));
  auto part = std::make_shared<Slice>(memory.buffer, offset, bytes);
  return externalOf(info.Env(), {memory.context, std::move(part)});  // whose bytes the whole has reported
}

/// deviceRelease(memory): gives it back now, in the order of the stream.
Napi::Value release(const Napi::CallbackInfo& info) {
  if (DeviceMemory* const memory = deviceMemoryOf(info[0])) reset(info.Env(), *memory);
  return info.Env().Undefined();
}

Napi::Value address(const Napi::CallbackInfo& info) {
  const auto at = reinterpret_cast<uintptr_t>(memoryArg(info, 0).buffer->data);
  return Napi::Number::New(info.Env(), static_cast<double>(at));
}

Napi::Value clear(const Napi::CallbackInfo& info) {
  const DeviceMemory& memory = memoryArg(info, 0);
  check(info.Env(), memory.context->fill(memory.buffer->data, 0, memory.buffer->bytes));
  return info.Env().Undefined();
}

/// deviceClone(memory)
Napi::Value clone(const Napi::CallbackInfo& info) {
  const DeviceMemory& memory = memoryArg(info, 0);
  std::shared_ptr<cuda::Buffer> copy;
  check(info.Env(), memory.context->allocate(memory.buffer->bytes, copy));
  check(info.Env(), memory.context->copy(copy->data, memory.buffer->data, memory.buffer->bytes));
  return wrapMemory(info.Env(), memory.context, std::move(copy));
}

/// deviceUpload(memory, array)
Napi::Value upload(const Napi::CallbackInfo& info) {
  const Napi::TypedArray array = arrayArg(info);
  const DeviceMemory& memory = memoryArg(info, 0, array.ByteLength());
  check(info.Env(), memory.context->upload(memory.buffer->data, addressOf(array), array.ByteLength()));
  return info.Env().Undefined();
}

/// The copy through pinned memory, on a worker.
class Upload final : public AsyncCall {
 public:
  Upload(const DeviceMemory& to, const void* from, size_t bytes) : to_(to), from_(from), bytes_(bytes) {}

 protected:
  Status execute() override { return to_.context->upload(to_.buffer->data, from_, bytes_); }
  Napi::Value result(Napi::Env env) override { return env.Undefined(); }

 private:
  const DeviceMemory to_;
  const void* const from_;
  const size_t bytes_;
};

Napi::Value uploadAsync(const Napi::CallbackInfo& info) {
  const Napi::TypedArray array = arrayArg(info);
  const DeviceMemory& memory = memoryArg(info, 0, array.ByteLength());
  return AsyncCall::start(info.Env(), std::make_unique<Upload>(memory, addressOf(array), array.ByteLength()),
                          only(array));
}

/// A copy of what the memory holds when the stream gets there, which a worker then takes to the host.
class Download final : public DeviceCall {
 public:
  Download(std::shared_ptr<cuda::Context> context, std::shared_ptr<cuda::Buffer> from, void* to, size_t bytes)
      : DeviceCall(std::move(context)), from_(std::move(from)), to_(to), bytes_(bytes) {}

 protected:
  void reached(Status status) override {
    reached_ = std::move(status);
    if (ThreadPool::instance().submit(*this)) return;
    reached_ = Status::error("ERR_MEMORY", "no thread can be had");
    static_cast<Task*>(this)->run();
  }
  Status execute() override { return reached_.ok() ? context_->download(to_, from_->data, bytes_) : reached_; }

 private:
  const std::shared_ptr<cuda::Buffer> from_;
  void* const to_;
  const size_t bytes_;
  Status reached_;
};

/// deviceDownloadAsync(memory, array)
Napi::Value downloadAsync(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Napi::TypedArray array = arrayArg(info);
  const size_t bytes = array.ByteLength();
  const DeviceMemory& memory = memoryArg(info, 0, bytes);
  check(env, memory.context->awaitable());
  std::shared_ptr<cuda::Buffer> copy;
  check(env, memory.context->allocate(bytes, copy));
  check(env, memory.context->copy(copy->data, memory.buffer->data, bytes));
  return AsyncCall::start(env, std::make_unique<Download>(memory.context, std::move(copy), addressOf(array), bytes),
                          only(array));
}

/// deviceDoneAsync(device): when all that is enqueued is done.
Napi::Value doneAsync(const Napi::CallbackInfo& info) {
  Args args(info);
  return AsyncCall::start(info.Env(), std::make_unique<DeviceCall>(contextOf(info.Env(), args.count<int>())),
                          Napi::Array::New(info.Env()));
}

/// Where the device notes, for each row, the first call whose result was not finite.
struct Mark {
  std::shared_ptr<const uint32_t> words;
  size_t rows;
};

/// The words of a mark as memory that kernels write.
class MarkMemory final : public cuda::Buffer {
 public:
  MarkMemory(std::shared_ptr<uint32_t> words, size_t rows, int device)
      : Buffer(words.get(), rows * sizeof(uint32_t), device), words_(std::move(words)) {}

 private:
  const std::shared_ptr<uint32_t> words_;
};

/// deviceMark(device, rows): { handle, mark }, the memory to give to steps and what deviceMarkSeen reads.
Napi::Value mark(const Napi::CallbackInfo& info) {
  Args args(info);
  const Napi::Env env = info.Env();
  auto context = contextOf(env, args.count<int>());
  const size_t rows = args.count<uint32_t>();
  if (rows == 0) fail(env, Status::error("ERR_NATIVE", "expected rows to mark"));
  std::shared_ptr<uint32_t> words;
  check(env, context->words(rows, words));
  auto memory = std::make_shared<MarkMemory>(words, rows, context->device());
  auto* const kept = new Mark{std::move(words), rows};
  Napi::Object result = Napi::Object::New(env);
  result.Set("mark", Napi::External<Mark>::New(env, kept, [](Napi::Env, Mark* m) { delete m; }));
  result.Set("handle", wrapMemory(env, std::move(context), std::move(memory)));
  return result;
}

/// deviceMarkSeen(mark): what is known by now. Waits for nothing.
Napi::Value markSeen(const Napi::CallbackInfo& info) {
  Args args(info);
  const Mark& mark = *args.external<Mark>();
  Napi::Uint32Array known = Napi::Uint32Array::New(info.Env(), mark.rows);
  const volatile uint32_t* const words = mark.words.get();
  for (size_t row = 0; row < mark.rows; ++row) known[row] = words[row];
  return known;
}

Napi::Value streamOf(const Napi::CallbackInfo& info) {
  Args args(info);
  return Napi::BigInt::New(info.Env(), static_cast<uint64_t>(contextOf(info.Env(), args.count<int>())->stream()));
}

/// deviceWaitFor(device, stream), devicePrecede(device, stream)
template <Status (cuda::Context::*order)(uintptr_t)>
Napi::Value ordered(const Napi::CallbackInfo& info) {
  Args args(info);
  const auto context = contextOf(info.Env(), args.count<int>());
  check(info.Env(), (context.get()->*order)(static_cast<uintptr_t>(args.word())));
  return info.Env().Undefined();
}

Napi::Value usage(const Napi::CallbackInfo& info) {
  Args args(info);
  const cuda::Context::Usage now = contextOf(info.Env(), args.count<int>())->usage();
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("used", static_cast<double>(now.used));
  result.Set("kept", static_cast<double>(now.kept));
  return result;
}

Napi::Value trim(const Napi::CallbackInfo& info) {
  Args args(info);
  check(info.Env(), contextOf(info.Env(), args.count<int>())->trim());
  return info.Env().Undefined();
}

}  // namespace

DeviceMemory* deviceMemoryOf(Napi::Value value) {
  if (value.IsObject() && !value.IsExternal() && !value.IsTypedArray()) value = value.As<Napi::Object>().Get("handle");
  return value.IsExternal() ? value.As<Napi::External<DeviceMemory>>().Data() : nullptr;
}

Napi::Value wrapMemory(Napi::Env env, std::shared_ptr<cuda::Context> context, std::shared_ptr<cuda::Buffer> buffer) {
  const auto bytes = static_cast<int64_t>(buffer->bytes);
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes);
  return externalOf(env, {std::move(context), std::move(buffer), bytes});
}

std::shared_ptr<cuda::Context> contextOf(Napi::Env env, int device) {
  // The entry is this thread's alone, and stays where it is: opening a device takes long, and others need not wait.
  Environments& all = environments();
  std::unique_lock lock(all.mutex);
  const auto [mine, isNew] = all.of.try_emplace(env);
  lock.unlock();
  if (isNew) napi_add_env_cleanup_hook(env, endContexts, static_cast<napi_env>(env));
  std::shared_ptr<cuda::Context>& context = mine->second.contexts[device];
  if (context == nullptr) check(env, cuda::open(device, context));
  return context;
}

Status DeviceCall::begin() {
  return context_->notify([](void* data, Status status) { static_cast<DeviceCall*>(data)->reached(std::move(status)); },
                          this);
}

void DeviceCall::reached(Status status) {
  outcome_ = std::move(status);
  static_cast<Task*>(this)->run();
}

ForeignBuffer::ForeignBuffer(Napi::Env env, std::shared_ptr<cuda::Context> context, void* data, size_t bytes,
                             std::function<void()> release)
    : Buffer(data, bytes, context->device()), env_(env), context_(std::move(context)), release_(std::move(release)) {}

ForeignBuffer::~ForeignBuffer() {
  try {
    sayFarewell();
  } catch (...) {
    // Without memory for it the owner is not told.
  }
}

void ForeignBuffer::sayFarewell() {
  /// Tells the owner when the stream is through.
  class Farewell final : public DeviceCall {
   public:
    Farewell(std::shared_ptr<cuda::Context> context, std::function<void()> release)
        : DeviceCall(std::move(context)), release_(std::move(release)) {}

   protected:
    Status execute() override { return {}; }
    Napi::Value result(Napi::Env env) override {
      release_();
      return env.Undefined();
    }
    void abandoned() override { release_(); }

   private:
    const std::function<void()> release_;
  };
  if (!isAlive(env_)) {  // nobody can be called back
    context_->synchronize();
    release_();
    return;
  }
  if (context_->isCaptured()) {
    const std::lock_guard lock(environments().mutex);
    environments().of.find(env_)->second.releases.push_back(release_);
    return;
  }
  const Napi::HandleScope scope(env_);
  try {
    AsyncCall::start(env_, std::make_unique<Farewell>(context_, release_), Napi::Array::New(env_));
  } catch (const Napi::Error&) {
    context_->synchronize();  // where the stream cannot tell
    release_();
  }
}

void exportDevices(Exports& exports) {
  exports.add("deviceAllocate", allocate);
  exports.add("deviceSlice", slice);
  exports.add("deviceRelease", release);
  exports.add("deviceAddress", address);
  exports.add("deviceClear", clear);
  exports.add("deviceClone", clone);
  exports.add("deviceUpload", upload);
  exports.add("deviceUploadAsync", uploadAsync);
  exports.add("deviceDownloadAsync", downloadAsync);
  exports.add("deviceDoneAsync", doneAsync);
  exports.add("deviceMark", mark);
  exports.add("deviceMarkSeen", markSeen);
  exports.add("deviceStream", streamOf);
  exports.add("deviceWaitFor", ordered<&cuda::Context::waitFor>);
  exports.add("devicePrecede", ordered<&cuda::Context::precede>);
  exports.add("deviceUsage", usage);
  exports.add("deviceTrim", trim);
}

}  // namespace score_sde::binding
