#pragma once

#include "core/params.hpp"
#include "core/status.hpp"

namespace score_sde::binding {

/// Floats of a record; their places are those of Row in lib/native/abi.ts.
inline constexpr size_t kRecordFloats = 22;

/// A record as JS writes it. ERR_NATIVE where a number that chooses is out of its range, NaN among them.
Status readRecord(const float* record, RowStep& row);

/// ERR_NATIVE where a row reads an operand, or draws from a stream, that the step does not have.
Status checkRow(const StepParams& p, const RowStep& row);

}  // namespace score_sde::binding
