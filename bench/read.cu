// Fills the cache by reading: after writing, the lines that a step displaces would first have to be written back.
#include <cstdint>

#include "read.hpp"

namespace {

constexpr unsigned kBlocks = 1024, kThreads = 256;

__global__ void readWords(const uint4* words, size_t count, uint32_t* found) {
  uint32_t all = 0;
  for (size_t i = blockIdx.x * size_t{kThreads} + threadIdx.x; i < count; i += size_t{kBlocks} * kThreads) {
    const uint4 word = words[i];
    all |= word.x | word.y | word.z | word.w;
  }
  if (all != 0) *found = all;  // the words are zero; the compiler does not know it
}

}  // namespace

cudaError_t readZeros(const void* zeros, size_t bytes, uint32_t* found, cudaStream_t stream) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(kBlocks);
  config.blockDim = dim3(kThreads);
  config.stream = stream;
  return cudaLaunchKernelEx(&config, readWords, static_cast<const uint4*>(zeros), bytes / sizeof(uint4), found);
}
