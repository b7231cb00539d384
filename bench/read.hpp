#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

/// Reads memory that holds zeros; `found` is device memory that is written where another value is found.
cudaError_t readZeros(const void* zeros, size_t bytes, uint32_t* found, cudaStream_t stream);
