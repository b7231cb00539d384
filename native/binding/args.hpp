// JS values become plain structs here. TypeScript has checked their meaning; this checks memory: that every view is
// there, long enough and aligned. The order of arguments is declared in lib/native.
#pragma once

#include <napi.h>

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

  double number();
  size_t count();
  Shape shape();
  uint64_t word();

  /// A typed array of `count` elements followed by its Dtype.
  View view(size_t count);
  View viewOrNull(size_t count);
  /// A typed array of `count` plain elements.
  template <class T>
  T* array(size_t count) {
    return static_cast<T*>(memory(count, sizeof(T)));
  }
  /// One number for all rows, a Float32Array of one each, or null for none.
  PerRow perRow(size_t rows);
  /// Kind, source and Dtype of a batch's noise.
  Noise noise(Shape shape);

 private:
  Napi::Value take();
  uint64_t wordOf(Napi::Value value);
  void* memory(size_t count, size_t elementSize);
  void* memoryOf(Napi::Value value, size_t bytes, size_t alignment);
  Dtype dtype();

  const Napi::CallbackInfo& info_;
  Napi::Array held_;
  size_t next_ = 0;
};

}  // namespace score_sde::binding
