// Errors on demand. EMULATED_FAULT="CALL N CODE" has the Nth call of that function from now on ("any": of whatever
// function) fail with that code; when it has, the variable is gone. "kernel" is the work of a launch, which tells nothing
// of it; "callback" is what a stream's callback is told. A code that ends the context stays: every call gives it then.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

#include "emulator/types.h"

namespace emulator {

struct Faults {
  std::mutex mutex;
  std::string text;  // of the variable, as it was last seen
  char call[64] = "";
  int left = 0, code = 0;
  cudaError_t lost = cudaSuccess;
};
inline Faults& faults() {
  static auto* const all = new Faults();
  return *all;
}

inline cudaError_t fault(const char* call) {
  Faults& f = faults();
  const std::lock_guard lock(f.mutex);
  if (f.lost != cudaSuccess) return f.lost;
  const char* text = std::getenv("EMULATED_FAULT");
  if (text == nullptr) return f.text.clear(), cudaSuccess;
  if (f.text != text) {
    f.text = text;
    if (std::sscanf(text, "%63s %d %d", f.call, &f.left, &f.code) != 3) std::abort();
  }
  const bool isFunction = std::strncmp(call, "cuda", 4) == 0;
  if (std::strcmp(f.call, call) != 0 && !(isFunction && std::strcmp(f.call, "any") == 0)) return cudaSuccess;
  if (--f.left > 0) return cudaSuccess;
  unsetenv("EMULATED_FAULT");
  f.text.clear();
  const auto error = static_cast<cudaError_t>(f.code);
  if (endsContext(error)) f.lost = error;
  return error;
}

}  // namespace emulator

/** First in every function that can fail. */
#define EMULATED_CALL                                          \
  if (emulator::inCallback) return cudaErrorNotPermitted; \
  if (const cudaError_t error = emulator::fault(__func__); error != cudaSuccess) return error
