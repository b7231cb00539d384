// The memory of tensors.
#pragma once

#include <memory>

namespace score_sde::binding {

/// A share in the memory that `allocate` made at this address; null for any other. A terminated worker's buffers go
/// before its cleanup hooks run, so work on them off its thread needs shares of its own.
std::shared_ptr<void> shareMemory(const void* data);

}  // namespace score_sde::binding
