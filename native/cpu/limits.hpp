// What this machine can do at most, for the benchmark to compare with.
#pragma once

#include <cstddef>

#include "core/params.hpp"

namespace score_sde::cpu {

/// Bytes a second of STREAM's copy (c = a) and triad (a = b + s c) over float32 arrays of that length, on as many
/// threads as the pool has: the best of several passes, counting what the code reads and writes.
struct StreamRate {
  double copy, triad;
};
StreamRate streamRate(size_t elements);

/// Normals a second, drawn into the first-level cache and thrown away: philox on all threads, torch on one.
double normalRate(Noise::Kind kind);

}  // namespace score_sde::cpu
