// The highest rates that this machine reaches, for the benchmark to compare the kernels with.
#pragma once

#include <cstddef>

#include "core/params.hpp"

namespace score_sde::cpu {

/// Bytes a second, read and written, of STREAM's copy (c = a) and triad (a = b + s c) over float32 arrays of
/// `elements`: the best of several passes on one thread and on all of the pool's.
struct StreamRate {
  double copy, triad;
};
StreamRate streamRate(size_t elements);

/// Normals a second, drawn into the first-level cache: philox on all threads, torch on one.
double normalRate(Noise::Kind kind);

}  // namespace score_sde::cpu
