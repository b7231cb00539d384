// The part of ONNX Runtime's C API that is used. The API is a table of functions. ONNX Runtime only appends to the
// table, so a function's index never changes, and no header of ONNX Runtime is needed. library.cpp checks the table
// first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "core/status.hpp"

namespace score_sde::ort {

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtIoBinding;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtTypeInfo;
struct OrtTensorInfo;
struct OrtAllocator;
struct OrtCudaOptions;

#if defined(_WIN32)
using PathChar = wchar_t;
#else
using PathChar = char;
#endif

/// The version of the table to ask for. Every library from 1.18 on has it.
inline constexpr uint32_t kApiVersion = 18;
/// Entries of the table, up to the last one that is used.
inline constexpr size_t kSlots = 280;

// The used values of ONNX Runtime's enumerations.
enum ElementType : int { kFloat32 = 1, kFloat16 = 10, kFloat64 = 11 };
enum LoggingLevel : int { kError = 3, kFatal = 4 };
enum AllocatorType : int { kDeviceAllocator = 0 };
enum MemoryType : int { kDefaultMemory = 0 };

template <size_t Slot, class Signature>
struct Entry {};

inline constexpr Entry<2, const char*(const OrtStatus*)> GetErrorMessage;
inline constexpr Entry<3, OrtStatus*(int, const char*, OrtEnv**)> CreateEnv;
inline constexpr Entry<7, OrtStatus*(const OrtEnv*, const PathChar*, const OrtSessionOptions*, OrtSession**)>
    CreateSession;
inline constexpr Entry<8, OrtStatus*(const OrtEnv*, const void*, size_t, const OrtSessionOptions*, OrtSession**)>
    CreateSessionFromArray;
inline constexpr Entry<10, OrtStatus*(OrtSessionOptions**)> CreateSessionOptions;
inline constexpr Entry<11, OrtStatus*(OrtSessionOptions*, const PathChar*)> SetOptimizedModelFilePath;
inline constexpr Entry<13, OrtStatus*(OrtSessionOptions*, int)> SetSessionExecutionMode;
inline constexpr Entry<14, OrtStatus*(OrtSessionOptions*, const PathChar*)> EnableProfiling;
inline constexpr Entry<17, OrtStatus*(OrtSessionOptions*)> DisableMemPattern;
inline constexpr Entry<19, OrtStatus*(OrtSessionOptions*)> DisableCpuMemArena;
inline constexpr Entry<22, OrtStatus*(OrtSessionOptions*, int)> SetSessionLogSeverityLevel;
inline constexpr Entry<23, OrtStatus*(OrtSessionOptions*, int)> SetSessionGraphOptimizationLevel;
inline constexpr Entry<24, OrtStatus*(OrtSessionOptions*, int)> SetIntraOpNumThreads;
inline constexpr Entry<25, OrtStatus*(OrtSessionOptions*, int)> SetInterOpNumThreads;
inline constexpr Entry<30, OrtStatus*(const OrtSession*, size_t*)> SessionGetInputCount;
inline constexpr Entry<31, OrtStatus*(const OrtSession*, size_t*)> SessionGetOutputCount;
inline constexpr Entry<33, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)> SessionGetInputTypeInfo;
inline constexpr Entry<34, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)> SessionGetOutputTypeInfo;
inline constexpr Entry<36, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)> SessionGetInputName;
inline constexpr Entry<37, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)> SessionGetOutputName;
inline constexpr Entry<39, OrtStatus*(OrtRunOptions**)> CreateRunOptions;
inline constexpr Entry<41, OrtStatus*(OrtRunOptions*, int)> RunOptionsSetRunLogSeverityLevel;
inline constexpr Entry<46, OrtStatus*(OrtRunOptions*)> RunOptionsSetTerminate;
inline constexpr Entry<47, OrtStatus*(OrtRunOptions*)> RunOptionsUnsetTerminate;
inline constexpr Entry<49, OrtStatus*(const OrtMemoryInfo*, void*, size_t, const int64_t*, size_t, int, OrtValue**)>
    CreateTensorWithDataAsOrtValue;
inline constexpr Entry<55, OrtStatus*(const OrtTypeInfo*, const OrtTensorInfo**)> CastTypeInfoToTensorInfo;
inline constexpr Entry<60, OrtStatus*(const OrtTensorInfo*, int*)> GetTensorElementType;
inline constexpr Entry<61, OrtStatus*(const OrtTensorInfo*, size_t*)> GetDimensionsCount;
inline constexpr Entry<62, OrtStatus*(const OrtTensorInfo*, int64_t*, size_t)> GetDimensions;
inline constexpr Entry<63, OrtStatus*(const OrtTensorInfo*, const char**, size_t)> GetSymbolicDimensions;
inline constexpr Entry<68, OrtStatus*(const char*, int, int, int, OrtMemoryInfo**)> CreateMemoryInfo;
inline constexpr Entry<76, OrtStatus*(OrtAllocator*, void*)> AllocatorFree;
inline constexpr Entry<78, OrtStatus*(OrtAllocator**)> GetAllocatorWithDefaultOptions;
inline constexpr Entry<93, void(OrtStatus*)> ReleaseStatus;
inline constexpr Entry<94, void(OrtMemoryInfo*)> ReleaseMemoryInfo;
inline constexpr Entry<95, void(OrtSession*)> ReleaseSession;
inline constexpr Entry<96, void(OrtValue*)> ReleaseValue;
inline constexpr Entry<97, void(OrtRunOptions*)> ReleaseRunOptions;
inline constexpr Entry<98, void(OrtTypeInfo*)> ReleaseTypeInfo;
inline constexpr Entry<100, void(OrtSessionOptions*)> ReleaseSessionOptions;
inline constexpr Entry<124, OrtStatus*(OrtSessionOptions*, const char*, int64_t)> AddFreeDimensionOverrideByName;
inline constexpr Entry<130, OrtStatus*(OrtSessionOptions*, const char*, const char*)> AddSessionConfigEntry;
inline constexpr Entry<133, OrtStatus*(OrtSession*, const OrtRunOptions*, const OrtIoBinding*)> RunWithBinding;
inline constexpr Entry<134, OrtStatus*(OrtSession*, OrtIoBinding**)> CreateIoBinding;
inline constexpr Entry<135, void(OrtIoBinding*)> ReleaseIoBinding;
inline constexpr Entry<136, OrtStatus*(OrtIoBinding*, const char*, const OrtValue*)> BindInput;
inline constexpr Entry<137, OrtStatus*(OrtIoBinding*, const char*, const OrtValue*)> BindOutput;
inline constexpr Entry<165, OrtStatus*(OrtRunOptions*, const char*, const char*)> AddRunConfigEntry;
inline constexpr Entry<204, OrtStatus*(OrtSessionOptions*, const OrtCudaOptions*)>
    SessionOptionsAppendExecutionProviderCuda;
inline constexpr Entry<205, OrtStatus*(OrtCudaOptions**)> CreateCudaProviderOptions;
inline constexpr Entry<206, OrtStatus*(OrtCudaOptions*, const char* const*, const char* const*, size_t)>
    UpdateCudaProviderOptions;
inline constexpr Entry<208, void(OrtCudaOptions*)> ReleaseCudaProviderOptions;
inline constexpr Entry<263, OrtStatus*(OrtCudaOptions*, const char*, void*)> UpdateCudaProviderOptionsWithValue;
inline constexpr Entry<279, OrtStatus*(OrtSessionOptions*, const PathChar* const*, char* const*, const size_t*, size_t)>
    AddExternalInitializersFromFilesInMemory;

/// The table. api(CreateEnv, ...) calls the function CreateEnv.
class Api {
 public:
  Api() = default;
  explicit Api(const void* table) : table_(static_cast<const void* const*>(table)) {}

  template <size_t Slot, class Result, class... Parameters>
  Result operator()(Entry<Slot, Result(Parameters...)>, std::type_identity_t<Parameters>... arguments) const {
    return reinterpret_cast<Result (*)(Parameters...)>(const_cast<void*>(table_[Slot]))(arguments...);
  }

  /// Drops the result of a call whose error nothing can be done about.
  void ignore(OrtStatus* status) const {
    if (status != nullptr) (*this)(ReleaseStatus, status);
  }

  /// Whether no entry is null. A table that is too short most likely has a null among them.
  bool isComplete() const {
    return table_ != nullptr &&
           std::all_of(table_, table_ + kSlots, [](const void* entry) { return entry != nullptr; });
  }

  /// The result of a call as a Status: ok, or an error with this code and ONNX Runtime's message.
  Status check(OrtStatus* status, const char* code = "ERR_MODEL") const {
    if (status == nullptr) return {};
    std::string message = (*this)(GetErrorMessage, status);
    (*this)(ReleaseStatus, status);
    // Keeps the text after "file:line function [ONNXRuntimeError] : 1 : FAIL : ".
    constexpr std::string_view kMark = "[ONNXRuntimeError] : ", kColon = " : ";
    if (const size_t mark = message.rfind(kMark); mark != std::string::npos) {
      const size_t number = message.find(kColon, mark + kMark.size());
      const size_t name = number == std::string::npos ? number : message.find(kColon, number + kColon.size());
      if (name != std::string::npos) message.erase(0, name + kColon.size());
    }
    return Status::error(code, std::move(message));
  }

 private:
  const void* const* table_ = nullptr;
};

/// Owns an object of ONNX Runtime.
template <class Object, class Release>
class Handle {
 public:
  explicit Handle(const Api& api) : api_(&api) {}
  Handle(Handle&& other) noexcept : api_(other.api_), object_(std::exchange(other.object_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(object_, other.object_);
    return *this;
  }
  ~Handle() { reset(); }

  Object* get() const { return object_; }
  /// Where a function of ONNX Runtime writes a new object. The present one is released.
  Object** out() {
    reset();
    return &object_;
  }

 private:
  void reset() {
    if (object_ != nullptr) (*api_)(Release{}, std::exchange(object_, nullptr));
  }
  const Api* api_;
  Object* object_ = nullptr;
};

using SessionHandle = Handle<OrtSession, std::remove_const_t<decltype(ReleaseSession)>>;
using SessionOptionsHandle = Handle<OrtSessionOptions, std::remove_const_t<decltype(ReleaseSessionOptions)>>;
using RunOptionsHandle = Handle<OrtRunOptions, std::remove_const_t<decltype(ReleaseRunOptions)>>;
using BindingHandle = Handle<OrtIoBinding, std::remove_const_t<decltype(ReleaseIoBinding)>>;
using ValueHandle = Handle<OrtValue, std::remove_const_t<decltype(ReleaseValue)>>;
using MemoryInfoHandle = Handle<OrtMemoryInfo, std::remove_const_t<decltype(ReleaseMemoryInfo)>>;
using TypeInfoHandle = Handle<OrtTypeInfo, std::remove_const_t<decltype(ReleaseTypeInfo)>>;
using CudaOptionsHandle = Handle<OrtCudaOptions, std::remove_const_t<decltype(ReleaseCudaProviderOptions)>>;

}  // namespace score_sde::ort
