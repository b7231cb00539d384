#include "binding/args.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "binding/records.hpp"
#include "cpu/torch_stream.hpp"

namespace score_sde::binding {
namespace {

/// Whether a number is a whole one from 0 to `most`, which is a safe integer; not for NaN.
bool isWhole(double number, uint64_t most) {
  return number >= 0.0 && number <= static_cast<double>(most) &&
         number == static_cast<double>(static_cast<uint64_t>(number));
}

struct Bytes {
  uint8_t* data = nullptr;
  size_t length = 0;
};

constexpr size_t kElementSizes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8};  // by napi_typedarray_type

/// The memory of a typed array, in one call of the engine; false where the value is none.
bool bytesOf(Napi::Value value, Bytes& bytes) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok) return false;
  if (static_cast<size_t>(type) >= std::size(kElementSizes)) return false;
  bytes = {static_cast<uint8_t*>(data), length * kElementSizes[type]};
  return true;
}

}  // namespace

void fail(Napi::Env env, const Status& status) {
  Napi::Error error = Napi::Error::New(env, status.message);
  error.Set("code", Napi::String::New(env, status.code));
  throw error;
}

Napi::Value Args::take() { return info_[next_++]; }

double Args::number() {
  double number = 0.0;
  if (napi_get_value_double(env(), take(), &number) != napi_ok)
    fail(env(), Status::error("ERR_NATIVE", "expected a number as argument " + std::to_string(next_)));
  return number;
}

uint64_t Args::whole(uint64_t most) {
  const double value = number();
  if (!isWhole(value, most))
    fail(env(), Status::error("ERR_NATIVE", "expected a whole number up to " + std::to_string(most) + " as argument " +
                                                std::to_string(next_)));
  return static_cast<uint64_t>(value);
}

template <class Sizes>
size_t Args::product(const Sizes& sizes) const {
  constexpr size_t kMost = std::numeric_limits<size_t>::max() / 16;  // elements of 16 bytes
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) return 0;
  size_t all = 1;
  for (const auto each : sizes) {
    const auto size = static_cast<size_t>(each);
    if (size > kMost / all) fail(env(), Status::error("ERR_NATIVE", "the batch is larger than any memory"));
    all *= size;
  }
  return all;
}

size_t Args::elements(std::initializer_list<size_t> sizes) const { return product(sizes); }

size_t Args::elements(const std::vector<int64_t>& dims) const { return product(dims); }

Shape Args::shape() {
  const size_t rows = count(), cols = count();
  elements({rows, cols});
  return {rows, cols};
}

std::vector<int64_t> Args::numbers() {
  const Napi::Value value = take();
  const auto expected = [this] {
    fail(env(), Status::error("ERR_NATIVE", "expected whole numbers as argument " + std::to_string(next_)));
  };
  if (!value.IsArray()) expected();
  const Napi::Array list = value.As<Napi::Array>();
  std::vector<int64_t> numbers(list.Length());
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value number = list.Get(i);
    const double value = number.IsNumber() ? number.As<Napi::Number>().DoubleValue() : -1.0;
    if (!isWhole(value, kMaxSafeInteger)) expected();
    numbers[i] = static_cast<int64_t>(value);
  }
  return numbers;
}

bool Args::flag() { return take().ToBoolean(); }

std::string Args::text() {
  const Napi::Value value = take();
  if (!value.IsString())
    fail(env(), Status::error("ERR_NATIVE", "expected a string as argument " + std::to_string(next_)));
  return value.As<Napi::String>();
}

std::vector<std::pair<std::string, std::string>> Args::texts() {
  const Napi::Value value = take();
  if (!value.IsObject())
    fail(env(), Status::error("ERR_NATIVE", "expected an object as argument " + std::to_string(next_)));
  const Napi::Object object = value.As<Napi::Object>();
  napi_value own;  // not what the object inherits
  if (napi_get_all_property_names(env(), object, napi_key_own_only,
                                  static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols),
                                  napi_key_numbers_to_strings, &own) != napi_ok)
    fail(env(), Status::error("ERR_NATIVE", "expected an object of strings"));
  const Napi::Array keys(env(), own);
  std::vector<std::pair<std::string, std::string>> texts;
  for (uint32_t i = 0; i < keys.Length(); ++i) {
    const Napi::Value key = keys.Get(i);
    texts.emplace_back(key.ToString(), object.Get(key).ToString());
  }
  return texts;
}

uint64_t Args::word() { return wordOf(take()); }

uint64_t Args::wordOf(Napi::Value value) {
  bool lossless = false;
  const uint64_t word = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless)
    fail(env(), Status::error("ERR_NATIVE", "expected a bigint of 64 bits as argument " + std::to_string(next_)));
  return word;
}

Dtype Args::dtype() {
  const double code = number();
  if (!(code == 0 || code == 1 || code == 2))
    fail(env(), Status::error("ERR_NATIVE", "expected a dtype as argument " + std::to_string(next_)));
  return static_cast<Dtype>(static_cast<int>(code));
}

cuda::Context* Args::context() const {
  if (context_ != nullptr && onHost_)
    fail(env(), Status::error("ERR_CONFIG", "the memory of one call must lie in one place, got host and device"));
  return context_.get();
}

void* Args::deviceMemoryAt(DeviceMemory& memory, size_t bytes) {
  if (memory.buffer == nullptr)
    fail(env(),
         Status::error("ERR_DISPOSED", "the device memory of argument " + std::to_string(next_) + " is disposed"));
  if (memory.buffer->bytes < bytes)
    fail(env(), Status::error("ERR_SHAPE", "expected at least " + std::to_string(bytes) + " bytes, got " +
                                               std::to_string(memory.buffer->bytes)));
  if (context_ != nullptr && context_ != memory.context)
    fail(env(), Status::error("ERR_CONFIG", "the memory of one call must lie in one place, got two devices"));
  context_ = memory.context;
  if (!held_.IsEmpty()) shares_.push_back(memory.buffer);
  return memory.buffer->data;
}

void* Args::memoryOf(Napi::Value value, size_t bytes, size_t alignment) {
  Bytes memory;
  if (bytesOf(value, memory)) {
    onHost_ = true;
    return hostMemoryAt(value, memory.data, memory.length, bytes, alignment);
  }
  DeviceMemory* const device = deviceMemoryOf(value);
  if (device == nullptr) expectArray();
  void* const data = deviceMemoryAt(*device, bytes);
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) misaligned(alignment);
  return data;
}

void* Args::hostMemoryOf(Napi::Value value, size_t bytes, size_t alignment) {
  Bytes memory;
  if (!bytesOf(value, memory)) expectArray();
  return hostMemoryAt(value, memory.data, memory.length, bytes, alignment);
}

void* Args::hostMemoryAt(Napi::Value value, void* data, size_t length, size_t bytes, size_t alignment) {
  if (length < bytes)
    fail(env(), Status::error("ERR_SHAPE", "expected at least " + std::to_string(bytes) + " bytes, got " +
                                               std::to_string(length) + " (was the memory transferred away?)"));
  if (reinterpret_cast<uintptr_t>(data) % alignment != 0) misaligned(alignment);
  if (!held_.IsEmpty()) held_.Set(held_.Length(), value);
  return data;
}

void Args::expectArray() const {
  fail(env(), Status::error("ERR_NATIVE", "expected a typed array as argument " + std::to_string(next_)));
}

void Args::misaligned(size_t alignment) const {
  fail(env(), Status::error("ERR_NATIVE", "the memory is not aligned to " + std::to_string(alignment) + " bytes"));
}

void* Args::memory(size_t count, size_t elementSize) { return memoryOf(take(), count * elementSize, elementSize); }

View Args::view(size_t count) {
  const Napi::Value value = take();
  const Dtype type = dtype();
  return {memoryOf(value, count * sizeOf(type), sizeOf(type)), type};
}

View Args::viewOrNull(size_t count) {
  if (isOver()) return {};
  // Told by its identity: napi_typeof would ask for every other type before.
  if (!info_[next_].StrictEquals(env().Null())) return view(count);
  next_ += 2;
  return {};
}

Noise Args::noise(Shape shape, bool optional) {
  Noise noise;
  const double kind = number();
  const auto expectStreams = [&](size_t streams) {
    if (streams != 1 && streams != shape.rows)
      fail(env(), Status::error("ERR_NATIVE", "expected one noise stream, or one a row"));
  };
  if (kind == 0) {
    noise.kind = Noise::Kind::Given;
    noise.given = view(shape.size());
  } else if (kind == 1) {
    noise.kind = Noise::Kind::Philox;
    const Napi::Value list = take();
    Bytes memory;
    if (list.IsArray()) {
      const Napi::Array pair = list.As<Napi::Array>();
      noise.philox = {{wordOf(pair.Get(uint32_t{0})), wordOf(pair.Get(uint32_t{1}))}};
    } else if (bytesOf(list, memory)) {
      noise.philox.resize(memory.length / sizeof(PhiloxStream));
      std::memcpy(noise.philox.data(), memory.data, noise.philox.size() * sizeof(PhiloxStream));
    } else if (DeviceMemory* const device = deviceMemoryOf(list); device != nullptr) {
      noise.device = static_cast<const PhiloxStream*>(deviceMemoryAt(*device, sizeof(PhiloxStream)));
      noise.deviceStreams = device->buffer->bytes / sizeof(PhiloxStream);
    }
    expectStreams(noise.streams());
    noise.type = dtype();
  } else if (kind == 2) {
    noise.kind = Noise::Kind::Torch;
    const Napi::Value list = take();
    if (!list.IsArray()) fail(env(), Status::error("ERR_NATIVE", "expected an array of generator states"));
    const Napi::Array states = list.As<Napi::Array>();
    expectStreams(states.Length());
    for (uint32_t i = 0; i < states.Length(); ++i)
      noise.torch.push_back(static_cast<TorchState*>(hostMemoryOf(states[i], sizeof(TorchState), alignof(TorchState))));
    noise.type = dtype();
  } else if (kind == 3 && optional) {
    next_ += 2;
  } else {
    fail(env(), Status::error("ERR_NATIVE", "expected a kind of noise"));
  }
  return noise;
}

bool Args::recordsOf(Napi::Value value, size_t rows, std::vector<RowStep>& records) {
  Bytes memory;
  if (!bytesOf(value, memory) || reinterpret_cast<uintptr_t>(memory.data) % alignof(float) != 0) return false;
  const size_t count = memory.length / (kRecordFloats * sizeof(float));
  if (count == 0 || (count < rows && count != 1))
    fail(env(), Status::error("ERR_NATIVE", "expected a record for all rows, or one each"));
  records.resize(count < rows ? 1 : rows);
  for (size_t r = 0; r < records.size(); ++r) {
    const Status status = readRecord(reinterpret_cast<const float*>(memory.data) + r * kRecordFloats, records[r]);
    if (!status.ok()) fail(env(), status);
  }
  return true;
}

void Args::records(StepParams& p) {
  const Napi::Value value = take();
  if (recordsOf(value, p.shape.rows, p.rows)) return;
  const Napi::Array pair = value.IsArray() ? value.As<Napi::Array>() : Napi::Array::New(env());
  DeviceMemory* const memory = deviceMemoryOf(pair.Get(uint32_t{1}));
  if (!recordsOf(pair.Get(uint32_t{0}), 1, p.rows) || memory == nullptr)
    fail(env(),
         Status::error("ERR_NATIVE", "expected a Float32Array of records, or one and device memory, as argument " +
                                         std::to_string(next_)));
  void* const data = deviceMemoryAt(*memory, sizeof(RowStep));
  if (reinterpret_cast<uintptr_t>(data) % alignof(RowStep) != 0)
    fail(env(), Status::error("ERR_NATIVE", "the memory of the records is not aligned"));
  p.device = static_cast<const RowStep*>(data);
  p.deviceRows = memory->buffer->bytes / sizeof(RowStep) < p.shape.rows ? 1 : p.shape.rows;
}

FiniteMark Args::mark(size_t rows) {
  if (isOver()) return {};
  auto* const first = static_cast<uint32_t*>(memoryOf(take(), rows * sizeof(uint32_t), alignof(uint32_t)));
  return {first, count<uint32_t>()};
}

}  // namespace score_sde::binding
