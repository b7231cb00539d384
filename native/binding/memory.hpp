// The memory of tensors on the CPU.
#pragma once

#include <memory>

namespace score_sde::binding {

/// A reference to the memory that `allocate` made at this address; null for any other address. Work on another thread
/// needs it: when a worker_threads worker is terminated, its buffers are freed before its cleanup hooks run.
std::shared_ptr<void> shareMemory(const void* data);

}  // namespace score_sde::binding
