// Functions of the host alone: tables, generator states, threads, and what this build and machine can do.
#include <napi.h>

#include "binding/args.hpp"
#include "binding/async_call.hpp"
#include "binding/exports.hpp"
#include "core/tables.hpp"
#include "cpu/machine_rates.hpp"
#include "cpu/multiversion.hpp"
#include "cpu/torch_stream.hpp"
#include "cuda/devices.hpp"
#include "math/philox.hpp"
#include "threads/thread_pool.hpp"

namespace score_sde::binding {
namespace {

Napi::Value linspaceOf(const Napi::CallbackInfo& info) {
  Args args(info);
  const size_t count = args.count();
  float* const out = args.array<float>(count);
  const double start = args.number(), end = args.number();
  linspace(out, count, start, end);
  return info.Env().Undefined();
}

Napi::Value discreteSigmasOf(const Napi::CallbackInfo& info) {
  Args args(info);
  const size_t count = args.count();
  float* const out = args.array<float>(count);
  const double low = args.number(), high = args.number();
  discreteSigmas(out, count, low, high);
  return info.Env().Undefined();
}

Napi::Value sigmasOf(const Napi::CallbackInfo& info) {
  Args args(info);
  const size_t count = args.count();
  float* const out = args.array<float>(count);
  const float* const timesteps = args.array<float>(count);
  const double low = args.number(), high = args.number();
  sigmas(out, timesteps, count, low, high);
  return info.Env().Undefined();
}

TorchState& stateOf(Args& args) {
  auto* const bytes = args.array<uint64_t>(sizeof(TorchState) / sizeof(uint64_t));
  return *reinterpret_cast<TorchState*>(bytes);
}

Napi::Value torchSeedOf(const Napi::CallbackInfo& info) {
  Args args(info);
  TorchState& state = stateOf(args);
  torchSeed(state, args.word());
  return info.Env().Undefined();
}

Napi::Value torchStateIsSoundOf(const Napi::CallbackInfo& info) {
  Args args(info);
  return Napi::Boolean::New(info.Env(), torchStateIsSound(stateOf(args)));
}

Napi::Value philoxWords(const Napi::CallbackInfo& info) {
  Args args(info);
  const uint32_t* const c = args.array<uint32_t>(4);
  const uint32_t* const k = args.array<uint32_t>(2);
  const Words w = philox({c[0], c[1], c[2], c[3]}, k[0], k[1]);
  Napi::Uint32Array out = Napi::Uint32Array::New(info.Env(), 4);
  out[0] = w.x;
  out[1] = w.y;
  out[2] = w.z;
  out[3] = w.w;
  return out;
}

Napi::Value getNumThreads(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), ThreadPool::instance().threads());
}

Napi::Value setNumThreads(const Napi::CallbackInfo& info) {
  Args args(info);
  ThreadPool::instance().setThreads(args.count<int>());
  return info.Env().Undefined();
}

/// Marks the value that stands for pools. The last word tells compilers apart whose virtual functions lie otherwise.
#if defined(_MSC_VER)
constexpr napi_type_tag kPoolsTag = {0x5d0e'c5de'900f'5001 + Pools::kVersion, 1};
#else
constexpr napi_type_tag kPoolsTag = {0x5d0e'c5de'900f'5001 + Pools::kVersion, 0};
#endif

/// The pools in use, as a value for other copies of the addon. Those of another copy are taken in place of new ones.
Napi::Value sharePools(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  bool fits = false;
  if (info[0].IsExternal() && napi_check_object_type_tag(env, info[0], &kPoolsTag, &fits) == napi_ok && fits)
    Pools::share(*info[0].As<Napi::External<Pools>>().Data());
  const auto pools = Napi::External<Pools>::New(env, &Pools::ofProcess());
  // Without its mark no copy takes it.
  napi_type_tag_object(env, pools, &kPoolsTag);
  return pools;
}

Napi::Value streamRateOf(const Napi::CallbackInfo& info) {
  Args args(info);
  cpu::StreamRate rate;
  const Status status = cpu::streamRate(std::max<size_t>(args.count(), 1), rate);
  if (!status.ok()) fail(info.Env(), status);
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("copy", rate.copy);
  result.Set("triad", rate.triad);
  return result;
}

Napi::Value normalRateOf(const Napi::CallbackInfo& info) {
  Args args(info);
  const auto kind = args.count() == 2 ? Noise::Kind::Torch : Noise::Kind::Philox;
  return Napi::Number::New(info.Env(), cpu::normalRate(kind));
}

Napi::Value instructionSetOf(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), cpu::instructionSet());
}

Napi::Value cudaDevices(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const cuda::Devices found = cuda::devices();
  Napi::Array list = Napi::Array::New(env);
  for (const cuda::Device& device : found.list) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", device.name);
    entry.Set("memory", static_cast<double>(device.memory));
    entry.Set("computeCapability", std::to_string(device.major) + "." + std::to_string(device.minor));
    entry.Set("unusable", device.unusable);
    list.Set(list.Length(), entry);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("devices", list);
  result.Set("unavailable", found.unavailable);
  return result;
}

Napi::Value nextCall(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(nextCallNumber()));
}

}  // namespace

void exportHost(Exports& exports) {
  exports.add("linspace", linspaceOf);
  exports.add("discreteSigmas", discreteSigmasOf);
  exports.add("sigmas", sigmasOf);
  exports.add("torchSeed", torchSeedOf);
  exports.add("torchStateIsSound", torchStateIsSoundOf);
  exports.add("philoxWords", philoxWords);
  exports.add("nextCall", nextCall);
  exports.add("sharePools", sharePools);
  exports.add("getNumThreads", getNumThreads);
  exports.add("setNumThreads", setNumThreads);
  exports.add("streamRate", streamRateOf);
  exports.add("normalRate", normalRateOf);
  exports.add("instructionSet", instructionSetOf);
  exports.add("cudaDevices", cudaDevices);
}

}  // namespace score_sde::binding
