// Tensor memory: 64-byte aligned, seen by JS as an ArrayBuffer.
#include <napi.h>

#include <new>

#include "binding/args.hpp"
#include "binding/exports.hpp"

namespace score_sde::binding {
namespace {

constexpr std::align_val_t kAlignment{64};

void release(napi_env, void* data, void*) { ::operator delete(data, kAlignment); }

/// allocate(bytes): an ArrayBuffer, not cleared.
Napi::Value allocate(const Napi::CallbackInfo& info) {
  Args args(info);
  const size_t bytes = args.count();
  const Napi::Env env = info.Env();
  void* const data = ::operator new(bytes > 0 ? bytes : 1, kAlignment, std::nothrow);
  if (data == nullptr) fail(env, Status::error("ERR_MEMORY", "no memory for " + std::to_string(bytes) + " bytes"));
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, data, bytes, release, nullptr, &buffer);
  if (status == napi_ok) return Napi::Value(env, buffer);
  release(env, data, nullptr);
  // A runtime that keeps all array buffers in a cage of its own allows no other memory.
  if (status == napi_no_external_buffers_allowed) return Napi::ArrayBuffer::New(env, bytes);
  fail(env, Status::error("ERR_MEMORY", "no ArrayBuffer of " + std::to_string(bytes) + " bytes"));
}

/// detach(buffer): gives the memory back now; every view of it is empty from then on.
Napi::Value detach(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) fail(info.Env(), Status::error("ERR_NATIVE", "expected an ArrayBuffer"));
  info[0].As<Napi::ArrayBuffer>().Detach();
  return info.Env().Undefined();
}

}  // namespace

void exportMemory(Napi::Env env, Napi::Object exports) {
  exports.Set("allocate", Napi::Function::New(env, allocate, "allocate"));
  exports.Set("detach", Napi::Function::New(env, detach, "detach"));
}

}  // namespace score_sde::binding
