// ONNX Runtime's shared library, opened at run time.
#pragma once

#include <string>

#include "ort/api.hpp"

namespace score_sde::ort {

struct Library {
  std::string path, version;
  Api api;
  OrtEnv* env = nullptr;
};

/// Opens a library, once and for good. With `shared`, one that the process has loaded already comes first:
/// onnxruntime-node and this package are then never at work in two copies of it, which the dynamic loader would take
/// for one another.
Status openLibrary(const std::string& path, bool shared, const Library** library);

/// Whether CUDA's execution provider lies beside a library and is of its version: the runtime itself would load any,
/// and misbehave. ERR_CUDA_UNAVAILABLE.
Status checkCudaProvider(const Library& library);

}  // namespace score_sde::ort
