// The order in which squares are summed, a function of the element's index alone: whatever the device, the number of
// threads or the launch shape, a norm has the same bits.
//
// Level 0 squares float32 elements exactly in double. Each level takes groups of 1024 values: lane l of 128 adds the
// values l, l + 128, ..., l + 896 in that order (absent values are zero), then the lanes are folded in halves,
// l += l + 64, 32, ..., 1. The sums of the groups are the next level's values, until one is left.
#pragma once

#include <cstddef>

#include "math/host_device.hpp"

namespace score_sde {

inline constexpr size_t kSumGroup = 1024;
inline constexpr size_t kSumLanes = 128;

HD size_t sumGroups(size_t values) { return (values + kSumGroup - 1) / kSumGroup; }

/// The norm as the reference's float32 arithmetic sees it: the sum rounds to float32 first, so it over- and underflows
/// alike.
HD float normOf(double sumOfSquares) { return std::sqrt(static_cast<float>(sumOfSquares)); }

}  // namespace score_sde
