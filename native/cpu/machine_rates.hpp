// The highest rates that this machine reaches, for the benchmark to compare the kernels with.
#pragma once

#include <cstddef>

#include "core/params.hpp"
#include "core/status.hpp"

namespace score_sde::cpu {

/// Bytes a second, read and written, of STREAM's copy (c = a) and triad (a = b + s c) over float32 arrays of
/// `elements`: the best of several passes on one thread and on all of the pool's.
struct StreamRate {
  double copy = 0.0, triad = 0.0;
};
/// ERR_MEMORY where there is none for the arrays.
Status streamRate(size_t elements, StreamRate& rate);

/// Normals a second, drawn into the first-level cache: philox on all threads, torch on one.
double normalRate(Noise::Kind kind);

}  // namespace score_sde::cpu
