#include <algorithm>
#include <cstring>

#include "cpu/kernels.hpp"
#include "cpu/multiversion.hpp"
#include "math/normal.hpp"
#include "math/philox.hpp"

namespace score_sde::cpu {
namespace {

// Words first, into the first-level cache, then Box-Muller: each of the two loops vectorises well, one loop would not.
// Four interleaved streams hide the latency of the rounds' multiplications.
constexpr int kTile = 64, kSmallTile = 16;
constexpr int kStreams = 4;

template <int Tile>
HD void words(uint32_t (&w)[4][kTile], uint64_t counter, uint64_t key) {
  constexpr int span = Tile / kStreams;
  const uint32_t low = static_cast<uint32_t>(counter), high = static_cast<uint32_t>(counter >> 32);
  for (int j = 0; j < span; ++j) {
    Words c[kStreams];
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const uint32_t x = low + static_cast<uint32_t>(j + s * span);
      c[s] = {x, high + (x < low), 0, 0};
    }
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma GCC unroll 10
    for (int r = 0; r < kPhiloxRounds; ++r) {
#pragma GCC unroll 4
      for (int s = 0; s < kStreams; ++s) c[s] = philoxRound(c[s], k0, k1);
      k0 += kPhiloxWeyl0;
      k1 += kPhiloxWeyl1;
    }
#pragma GCC unroll 4
    for (int s = 0; s < kStreams; ++s) {
      const int i = j + s * span;
      w[0][i] = c[s].x;
      w[1][i] = c[s].y;
      w[2][i] = c[s].z;
      w[3][i] = c[s].w;
    }
  }
}

template <int Tile>
HD void tile(float* __restrict out, uint64_t counter, uint64_t key) {
  alignas(64) uint32_t w[4][kTile];
  words<Tile>(w, counter, key);
  for (int j = 0; j < Tile; ++j) {
    const Pair a = boxMuller(w[0][j], w[1][j]), b = boxMuller(w[2][j], w[3][j]);
    out[4 * j] = a.first;
    out[4 * j + 1] = a.second;
    out[4 * j + 2] = b.first;
    out[4 * j + 3] = b.second;
  }
}

MULTIVERSION void fill(float* out, size_t counters, uint64_t counter, uint64_t key) {
  size_t done = 0;
  for (; done + kTile <= counters; done += kTile) tile<kTile>(out + 4 * done, counter + done, key);
  alignas(64) float rest[4 * kSmallTile];
  for (; done < counters; done += kSmallTile) {
    tile<kSmallTile>(rest, counter + done, key);
    std::memcpy(out + 4 * done, rest, std::min<size_t>(counters - done, kSmallTile) * 4 * sizeof(float));
  }
}

}  // namespace

void philoxNormals(float* out, size_t counters, uint64_t counter, uint64_t key) { fill(out, counters, counter, key); }

}  // namespace score_sde::cpu
