// Every call of the runtime is checked; its error says which call, and the runtime's name and words for it.
#pragma once

#include <cuda_runtime.h>

#include <array>

#include "core/status.hpp"
#include "cuda/driver.hpp"

namespace score_sde::cuda {

/// An error's name and CUDA's words for it.
struct ErrorWords {
  const char *name = "", *text = "";
};

/// Those of all codes, read from CUDA by the first call. A stream's callback, which may call nothing of CUDA, finds
/// them here: opening a device reads them.
inline const std::array<ErrorWords, 1000>& errorWords() {
  static const auto words = [] {
    std::array<ErrorWords, 1000> all;
    for (size_t code = 0; code < all.size(); ++code) {
      const auto error = static_cast<cudaError_t>(code);
      all[code] = {cudaGetErrorName(error), cudaGetErrorString(error)};
    }
    return all;
  }();
  return words;
}

inline Status failure(cudaError_t error, const char* call) {
  const bool memory = error == cudaErrorMemoryAllocation;
  const auto code = static_cast<size_t>(error);
  const ErrorWords words = code < errorWords().size() ? errorWords()[code] : ErrorWords{};
  return Status::error(memory ? "ERR_MEMORY" : "ERR_CUDA", std::string(call) + ": " + words.name + ": " + words.text);
}

inline Status checked(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return {};
  cudaGetLastError();  // an error that ends nothing is forgotten, one that ends the context comes again by itself
  return failure(error, call);
}

/// Makes a device the thread's while it lives, and then gives it back its own, if that is in use.
class OnDevice {
 public:
  explicit OnDevice(int device) : device_(device), error_(cudaGetDevice(&before_)) {
    if (error_ == cudaSuccess && before_ != device) error_ = cudaSetDevice(device);
  }
  ~OnDevice() {
    if (error_ == cudaSuccess && before_ != device_ && isInUse(before_)) cudaSetDevice(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  Status status() const { return checked(error_, "cudaSetDevice"); }

 private:
  int before_ = 0;
  const int device_;
  cudaError_t error_;
};

}  // namespace score_sde::cuda

/// In functions that return a Status: goes on only where the call went well.
#define TRY_CUDA(function, ...) TRY_STATUS(::score_sde::cuda::checked(function(__VA_ARGS__), #function))

/// In functions that return a Status: the rest of them is on that device.
#define TRY_ON_DEVICE(device)                     \
  const ::score_sde::cuda::OnDevice here(device); \
  TRY_STATUS(here.status())
