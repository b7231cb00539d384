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

/// Opens a library, and never closes it. With `shared`, a library that the process has loaded is used in place of
/// `path`. So onnxruntime-node and this package share one copy: the dynamic loader confuses two libraries of the same
/// name. ERR_MODEL.
Status openLibrary(const std::string& path, bool shared, const Library** library);

/// Whether the CUDA execution provider is beside a library and of the same version. ONNX Runtime itself would load a
/// provider of another version, and misbehave. ERR_CUDA_UNAVAILABLE.
Status checkCudaProvider(const Library& library);

}  // namespace score_sde::ort
