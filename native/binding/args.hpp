// JS values become plain structs here. TypeScript has checked their meaning; this checks memory: that every view is
// there, long enough and aligned. The order of arguments is declared in lib/native.
#pragma once

#include <napi.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "binding/device.hpp"
#include "core/params.hpp"
#include "core/status.hpp"

namespace score_sde::binding {

[[noreturn]] void fail(Napi::Env env, const Status& status);

class Args {
 public:
  /// With `hold`, every typed array whose memory is handed out is collected in held().
  explicit Args(const Napi::CallbackInfo& info, bool hold = false) : info_(info) {
    if (hold) held_ = Napi::Array::New(info.Env());
  }

  Napi::Env env() const { return info_.Env(); }
  Napi::Array held() const { return held_; }
  /// With `hold`, shares in the device memory that is handed out.
  const std::vector<std::shared_ptr<cuda::Buffer>>& shares() const { return shares_; }

  /// Whether the next argument is of that type.
  bool isNext(napi_valuetype type) const { return info_[next_].Type() == type; }
  double number();
  /// A whole number, from 0 to the most that both T and a safe integer of JS can be.
  template <class T = size_t>
  T count() {
    return static_cast<T>(whole(std::min<uint64_t>(std::numeric_limits<T>::max(), kMaxSafeInteger)));
  }
  bool flag();
  std::string text();
  /// An object of strings.
  std::vector<std::pair<std::string, std::string>> texts();
  /// An array of counts.
  std::vector<int64_t> numbers();
  /// The elements of these sizes; ERR_NATIVE where the bytes of so many could not be counted.
  size_t elements(std::initializer_list<size_t> sizes) const;
  size_t elements(const std::vector<int64_t>& dims) const;
  /// What an External of this addon holds.
  template <class T>
  T* external() {
    const Napi::Value value = take();
    if (!value.IsExternal()) fail(env(), Status::error("ERR_NATIVE", "expected an external"));
    return value.As<Napi::External<T>>().Data();
  }
  Shape shape();
  uint64_t word();

  bool isOver() const { return next_ >= info_.Length(); }
  void skip() { ++next_; }
  /// The device that the memory so far lies on; null for the host. ERR_CONFIG where it is not one place.
  cuda::Context* context() const;
  /// Whether any of it lies on a device.
  bool onDevice() const { return context_ != nullptr; }
  const std::shared_ptr<cuda::Context>& sharedContext() const { return context_; }

  /// A typed array of `count` elements, or as many bytes of device memory, followed by its Dtype.
  View view(size_t count);
  /// None for null, and at the end of the arguments.
  View viewOrNull(size_t count);
  /// A typed array of `count` plain elements.
  template <class T>
  T* array(size_t count) {
    return static_cast<T*>(memory(count, sizeof(T)));
  }
  /// Kind, source and Dtype of a batch's noise; where a step may do without, its kind may be 3, for none.
  Noise noise(Shape shape, bool optional = false);
  /// The records of a step: a Float32Array of one for all rows, or one each; or a pair of such an array's first record
  /// and of device memory of RowSteps.
  void records(StepParams& p);
  /// Device memory of a word a row and an index, or nothing more.
  FiniteMark mark(size_t rows);

 private:
  static constexpr uint64_t kMaxSafeInteger = (uint64_t{1} << 53) - 1;

  Napi::Value take();
  /// A whole number from 0 to `most`.
  uint64_t whole(uint64_t most);
  template <class Sizes>
  size_t product(const Sizes& sizes) const;
  /// False where the value is no typed array.
  bool recordsOf(Napi::Value value, size_t rows, std::vector<RowStep>& records);
  uint64_t wordOf(Napi::Value value);
  void* memory(size_t count, size_t elementSize);
  /// Of a typed array, or on a device.
  void* memoryOf(Napi::Value value, size_t bytes, size_t alignment);
  void* hostMemoryOf(Napi::Value value, size_t bytes, size_t alignment);
  void* hostMemoryAt(Napi::Value value, void* data, size_t length, size_t bytes, size_t alignment);
  [[noreturn]] void expectArray() const;
  [[noreturn]] void misaligned(size_t alignment) const;
  void* deviceMemoryAt(DeviceMemory& memory, size_t bytes);
  Dtype dtype();

  const Napi::CallbackInfo& info_;
  Napi::Array held_;
  std::vector<std::shared_ptr<cuda::Buffer>> shares_;
  std::shared_ptr<cuda::Context> context_;
  bool onHost_ = false;
  size_t next_ = 0;
};

}  // namespace score_sde::binding
