// An addon for tests: DLPack tensors as another library would hand them over, with whatever a test says of them, and what
// such a library sees of one that it is given.
#include <napi.h>

#include <atomic>
#include <memory>
#include <vector>

#include "binding/dlpack.hpp"

namespace {

namespace dlpack = score_sde::dlpack;

std::atomic<int> deleted{0};

struct Made {
  dlpack::ManagedTensorVersioned managed = {};
  std::vector<int64_t> shape, strides;

  static void end(dlpack::ManagedTensorVersioned* managed) {
    delete static_cast<Made*>(managed->context);
    ++deleted;
  }
};

std::vector<int64_t> wordsOf(const Napi::Value& list) {
  const auto words = list.As<Napi::BigInt64Array>();
  return {words.Data(), words.Data() + words.ElementLength()};
}

/// make({ version, flags, data, device: [type, id], dtype: [code, bits, lanes], ndim, shape, strides, byteOffset })
Napi::Value make(const Napi::CallbackInfo& info) {
  const auto given = info[0].As<Napi::Object>();
  const auto number = [](Napi::Object from, auto key) { return from.Get(key).ToNumber().Int64Value(); };
  const auto word = [&](const char* key) {
    bool lossless = false;
    return given.Get(key).As<Napi::BigInt>().Uint64Value(&lossless);
  };
  const auto device = given.Get("device").As<Napi::Object>(), dtype = given.Get("dtype").As<Napi::Object>();
  auto made = std::make_unique<Made>();
  made->shape = wordsOf(given.Get("shape"));
  const bool strided = given.Get("strides").IsTypedArray();
  if (strided) made->strides = wordsOf(given.Get("strides"));
  dlpack::ManagedTensorVersioned& managed = made->managed;
  managed.version = {static_cast<uint32_t>(number(given, "version")), 0};
  managed.context = made.get();
  managed.deleter = Made::end;
  managed.flags = word("flags");
  dlpack::Tensor& tensor = managed.tensor;
  tensor.data = reinterpret_cast<void*>(static_cast<uintptr_t>(word("data")));
  tensor.device = {static_cast<dlpack::DeviceType>(number(device, 0u)), static_cast<int32_t>(number(device, 1u))};
  tensor.ndim = static_cast<int32_t>(number(given, "ndim"));
  tensor.dtype = {static_cast<uint8_t>(number(dtype, 0u)), static_cast<uint8_t>(number(dtype, 1u)),
                  static_cast<uint16_t>(number(dtype, 2u))};
  tensor.shape = made->shape.empty() ? nullptr : made->shape.data();
  tensor.strides = strided ? made->strides.data() : nullptr;
  tensor.byteOffset = word("byteOffset");
  return Napi::External<dlpack::ManagedTensorVersioned>::New(info.Env(), &made.release()->managed);
}

/// layoutOf(tensor): [dims, strides], a part null where the tensor's is.
Napi::Value layoutOf(const Napi::CallbackInfo& info) {
  const auto* const managed = info[0].As<Napi::External<dlpack::ManagedTensorVersioned>>().Data();
  const dlpack::Tensor& tensor = managed->tensor;
  Napi::Array layout = Napi::Array::New(info.Env());
  for (const int64_t* const part : {tensor.shape, tensor.strides}) {
    Napi::Array numbers = Napi::Array::New(info.Env());
    for (int32_t i = 0; part != nullptr && i < tensor.ndim; ++i)
      numbers.Set(static_cast<uint32_t>(i), Napi::Number::New(info.Env(), static_cast<double>(part[i])));
    layout.Set(layout.Length(), part == nullptr ? info.Env().Null() : numbers);
  }
  return layout;
}

Napi::Object exportAll(Napi::Env env, Napi::Object exports) {
  exports.Set("make", Napi::Function::New(env, make));
  exports.Set("layoutOf", Napi::Function::New(env, layoutOf));
  exports.Set("deleted", Napi::Function::New(
                             env, [](const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), deleted); }));
  return exports;
}

}  // namespace

NODE_API_MODULE(externals, exportAll)
