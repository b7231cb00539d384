// Device memory of other owners, and device memory lent to others: pointers, DLPack, CUDA IPC.
#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "binding/args.hpp"
#include "binding/device.hpp"
#include "binding/dlpack.hpp"
#include "binding/exports.hpp"

namespace score_sde::binding {
namespace {

void check(Napi::Env env, const Status& status) {
  if (!status.ok()) fail(env, status);
}

DeviceMemory& memoryArg(const Napi::CallbackInfo& info) {
  DeviceMemory* const memory = deviceMemoryOf(info[0]);
  if (memory == nullptr || memory->buffer == nullptr)
    fail(info.Env(), Status::error("ERR_NATIVE", "expected device memory"));
  return *memory;
}

/// Throws ERR_CUDA for a pointer that is no device memory, ERR_CONFIG for one of another device.
void inspect(Napi::Env env, cuda::Context& context, void* data) {
  int device = 0;
  check(env, context.inspect(data, device));
  if (device != context.device())
    fail(env, Status::error("ERR_CONFIG", "the pointer is one of cuda:" + std::to_string(device) +
                                              ", not of cuda:" + std::to_string(context.device())));
}

/// deviceFromPointer(device, pointer, bytes, release | null)
Napi::Value fromPointer(const Napi::CallbackInfo& info) {
  Args args(info);
  const Napi::Env env = info.Env();
  auto context = contextOf(env, args.count<int>());
  auto* const data = reinterpret_cast<void*>(static_cast<uintptr_t>(args.word()));
  const size_t bytes = args.count();
  inspect(env, *context, data);
  std::function<void()> release = [] {};
  if (info[3].IsFunction()) {
    auto owner = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[3].As<Napi::Function>()));
    release = [owner] {
      try {
        owner->Call({});
      } catch (const Napi::Error&) {
        // `release` has no caller that could get its exception.
      }
    };
  }
  auto buffer = std::make_shared<ForeignBuffer>(env, context, data, bytes, std::move(release));
  return wrapMemory(env, std::move(context), std::move(buffer));
}

/// The memory argument. Throws ERR_STATE for memory of another owner, which this addon must not lend.
DeviceMemory& ownArg(const Napi::CallbackInfo& info) {
  DeviceMemory& memory = memoryArg(info);
  if (memory.buffer->isForeign())
    fail(info.Env(), Status::error("ERR_STATE", "memory of another owner cannot be lent to a third: clone() it first"));
  return memory;
}

/// A tensor lent to a consumer, until the consumer calls the deleter, on any thread.
struct Lent {
  dlpack::ManagedTensorVersioned managed = {};
  std::vector<int64_t> shape, strides;
  DeviceMemory memory;
  uintptr_t stream = 0;

  static void end(dlpack::ManagedTensorVersioned* managed) {
    const std::unique_ptr<Lent> lent(static_cast<Lent*>(managed->context));
    cuda::Context& context = *lent->memory.context;
    bool isOrdered = false;
    try {
      isOrdered = context.reuseAfter(lent->stream).ok();
    } catch (const std::bad_alloc&) {
      // The consumer's code is C. Waiting takes no memory.
    }
    if (!isOrdered) context.synchronize();
  }
};

/// The strides of a dense row-major tensor, in elements.
std::vector<int64_t> stridesOf(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  uint64_t stride = 1;  // which may wrap where another size is 0: then no element is found by it
  for (size_t i = shape.size(); i-- > 0; stride *= static_cast<uint64_t>(shape[i]))
    strides[i] = static_cast<int64_t>(stride);
  return strides;
}

/// deviceToDlpack(memory, dims, code, bits, stream): an External of a ManagedTensorVersioned, whose deleter the
/// consumer calls. Later work on `stream` begins after the work that is enqueued now, and the memory is used again
/// after the work that is on `stream` when the deleter is called.
Napi::Value toDlpack(const Napi::CallbackInfo& info) {
  Args args(info);
  const Napi::Env env = info.Env();
  auto lent = std::make_unique<Lent>();
  lent->memory = ownArg(info);
  args.skip();
  lent->shape = args.numbers();
  const auto code = args.count<uint8_t>(), bits = args.count<uint8_t>();
  lent->stream = static_cast<uintptr_t>(args.word());
  const cuda::Buffer& buffer = *lent->memory.buffer;
  if (args.elements(lent->shape) > buffer.bytes / std::max(bits / 8, 1))
    fail(env, Status::error("ERR_SHAPE", "the device memory is shorter"));
  lent->strides = stridesOf(lent->shape);
  check(env, lent->memory.context->precede(lent->stream));
  lent->managed.version = {dlpack::kMajor, dlpack::kMinor};
  lent->managed.context = lent.get();
  lent->managed.deleter = Lent::end;
  lent->managed.tensor = {buffer.data,
                          {dlpack::kCuda, buffer.device},
                          static_cast<int32_t>(lent->shape.size()),
                          {code, bits, 1},
                          lent->shape.empty() ? nullptr : lent->shape.data(),
                          lent->shape.empty() ? nullptr : lent->strides.data(),
                          0};
  return Napi::External<dlpack::ManagedTensorVersioned>::New(env, &lent.release()->managed);
}

/// Whether a tensor, whose sizes measure() has checked, is row-major without gaps.
bool isDense(const dlpack::Tensor& tensor) {
  int64_t expected = 1;
  for (int32_t i = tensor.ndim - 1; tensor.strides != nullptr && i >= 0; --i) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != expected) return false;
    expected *= tensor.shape[i];
  }
  return true;
}

uintptr_t addressOf(const dlpack::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.data) + tensor.byteOffset;
}

Status assertOnDevice(const dlpack::Tensor& tensor) {
  if (tensor.device.type != dlpack::kCuda && tensor.device.type != dlpack::kCudaManaged)
    return Status::error("ERR_CONFIG", "expected a tensor on a CUDA device, got one on a device of DLPack's type " +
                                           std::to_string(tensor.device.type));
  if (tensor.device.id < 0) return Status::error("ERR_CONFIG", "the DLPack tensor's device has no number");
  return {};
}

/// The index of the elements' format among `formats`, pairs of DLPack's code and bits. ERR_DTYPE.
Status formatOf(const dlpack::Tensor& tensor, const std::vector<int64_t>& formats, size_t& format) {
  const auto [code, bits, lanes] = tensor.dtype;
  if (lanes != 1) return Status::error("ERR_DTYPE", "expected elements that are numbers, got vectors");
  for (format = 0; 2 * format + 1 < formats.size(); ++format)
    if (formats[2 * format] == code && formats[2 * format + 1] == bits) return {};
  return Status::error("ERR_DTYPE", "the DLPack tensor has elements of code " + std::to_string(code) + " and " +
                                        std::to_string(bits) + " bits, which no type has");
}

/// The bytes of a tensor whose element format is known. Checks everything else that the other library says of it.
Status measure(const dlpack::Tensor& tensor, size_t& bytes) {
  constexpr int32_t kMaxRank = 64;
  if (tensor.ndim < 0 || tensor.ndim > kMaxRank || (tensor.ndim > 0 && tensor.shape == nullptr))
    return Status::error("ERR_SHAPE", "the DLPack tensor has no shape");
  // A safe integer in JS. `most` counts a size of 0 as 1, so that the order of the sizes does not matter.
  constexpr size_t kMaxBytes = (size_t{1} << 53) - 1;
  const size_t element = tensor.dtype.bits / 8u;
  size_t most = element;
  bytes = element;
  for (int32_t i = 0; i < tensor.ndim; ++i) {
    const int64_t dim = tensor.shape[i];
    if (dim < 0) return Status::error("ERR_SHAPE", "the DLPack tensor has a negative size");
    const size_t size = std::max<size_t>(static_cast<size_t>(dim), 1);
    if (size > kMaxBytes / most) return Status::error("ERR_SHAPE", "the DLPack tensor is larger than any memory");
    most *= size;
    bytes *= static_cast<size_t>(dim);
  }
  if (addressOf(tensor) % element != 0)
    return Status::error("ERR_CONFIG", "the DLPack tensor must be aligned to its elements");
  if (bytes > 0 && !isDense(tensor))
    return Status::error("ERR_SHAPE", "the DLPack tensor must be contiguous in row-major order");
  return {};
}

/// deviceFromDlpack(external, formats, stream): { handle, device, dims, format, readOnly }. What is enqueued from now
/// on comes after what is on `stream` now. Takes ownership of the DLPack tensor, unless it throws.
Napi::Value fromDlpack(const Napi::CallbackInfo& info) {
  Args args(info);
  const Napi::Env env = info.Env();
  auto* const managed = args.external<dlpack::ManagedTensorVersioned>();
  if (managed->version.major != dlpack::kMajor)
    fail(env, Status::error("ERR_DTYPE", "expected a tensor of DLPack 1, got one of version " +
                                             std::to_string(managed->version.major)));
  const dlpack::Tensor& tensor = managed->tensor;
  check(env, assertOnDevice(tensor));
  size_t format = 0, bytes = 0;
  check(env, formatOf(tensor, args.numbers(), format));
  check(env, measure(tensor, bytes));
  auto context = contextOf(env, tensor.device.id);
  auto* const data = reinterpret_cast<void*>(addressOf(tensor));
  if (bytes > 0) inspect(env, *context, data);
  Napi::Array dims = Napi::Array::New(env);
  for (int32_t i = 0; i < tensor.ndim; ++i)
    dims.Set(static_cast<uint32_t>(i), Napi::Number::New(env, static_cast<double>(tensor.shape[i])));
  Napi::Object result = Napi::Object::New(env);
  result.Set("device", tensor.device.id);
  result.Set("dims", dims);
  result.Set("format", static_cast<double>(format));
  result.Set("readOnly", (managed->flags & dlpack::kReadOnly) != 0);
  check(env, context->waitFor(static_cast<uintptr_t>(args.word())));
  const auto release = [managed] {
    if (managed->deleter != nullptr) managed->deleter(managed);
  };
  auto buffer = std::make_shared<ForeignBuffer>(env, context, data, bytes, release);
  result.Set("handle", wrapMemory(env, std::move(context), std::move(buffer)));
  return result;
}

/// deviceToIpc(memory): the 64 bytes with which another process opens it.
Napi::Value toIpc(const Napi::CallbackInfo& info) {
  const DeviceMemory& memory = ownArg(info);
  uint8_t handle[64];
  check(info.Env(), memory.context->exportHandle(memory.buffer->data, handle));
  Napi::Uint8Array bytes = Napi::Uint8Array::New(info.Env(), sizeof handle);
  std::memcpy(bytes.Data(), handle, sizeof handle);
  return bytes;
}

/// deviceFromIpc(device, handle, offset, bytes)
Napi::Value fromIpc(const Napi::CallbackInfo& info) {
  Args args(info);
  const Napi::Env env = info.Env();
  auto context = contextOf(env, args.count<int>());
  uint8_t handle[64];
  std::memcpy(handle, args.array<uint8_t>(sizeof handle), sizeof handle);
  const size_t offset = args.count(), bytes = args.count();
  std::shared_ptr<cuda::Buffer> block;
  check(env, context->importHandle(handle, block));
  inspect(env, *context, block->data);
  if (offset > block->bytes || bytes > block->bytes - offset)
    fail(env, Status::error("ERR_SHAPE", "dims need " + std::to_string(bytes) + " bytes from offset " +
                                             std::to_string(offset) + " on, and the block of the handle has " +
                                             std::to_string(block->bytes)));
  auto* const data = static_cast<uint8_t*>(block->data) + offset;
  // The callback holds the mapped block: it is unmapped after the stream's last use of the buffer.
  auto buffer = std::make_shared<ForeignBuffer>(env, context, data, bytes, [block] {});
  return wrapMemory(env, std::move(context), std::move(buffer));
}

}  // namespace

void exportSharing(Exports& exports) {
  exports.add("deviceFromPointer", fromPointer);
  exports.add("deviceToDlpack", toDlpack);
  exports.add("deviceFromDlpack", fromDlpack);
  exports.add("deviceToIpc", toIpc);
  exports.add("deviceFromIpc", fromIpc);
}

}  // namespace score_sde::binding
