// Words of Philox for a tile of counters, by the fastest means of an instruction set.
#pragma once

#include <algorithm>
#include <cstring>

#include "cpu/multiversion.hpp"
#include "math/philox.hpp"

namespace score_sde::cpu {

// Words first, into the first-level cache, then Box-Muller with whatever is done to the normals: each of the two loops
// vectorises well, one loop would not.
inline constexpr int kTile = 64, kSmallTile = 16;

/// The words of a tile in the order of the elements: pair p of normals comes from radius[p] and angle[p].
struct TileWords {
  alignas(64) uint32_t radius[2 * kTile], angle[2 * kTile];
};

/// The keys of the rounds, each as often as the widest lanes take it, in the low half of 64 bits; above is rubbish.
struct RoundKeys {
  static constexpr int kEach = 8;
  alignas(64) uint64_t x[kPhiloxRounds][kEach], z[kPhiloxRounds][kEach];

  HD explicit RoundKeys(uint64_t key) {
    for (int i = 0; i < kEach; ++i) {
      x[0][i] = key;
      z[0][i] = key >> 32;
    }
    for (int r = 1; r < kPhiloxRounds; ++r)
      for (int i = 0; i < kEach; ++i) {
        x[r][i] = x[r - 1][i] + kPhiloxWeyl0;
        z[r][i] = z[r - 1][i] + kPhiloxWeyl1;
      }
  }
};

/// Four interleaved chains hide the latency of the rounds' multiplications.
struct Portable {
  template <int Tile>
  HD static void words(TileWords& out, uint64_t counter, const RoundKeys& keys) {
    constexpr int kChains = 4, span = Tile / kChains;
    for (int j = 0; j < span; ++j) {
      Words c[kChains];
#pragma GCC unroll 4
      for (int s = 0; s < kChains; ++s) {
        const uint64_t x = counter + static_cast<uint64_t>(j + s * span);
        c[s] = {static_cast<uint32_t>(x), static_cast<uint32_t>(x >> 32), 0, 0};
      }
#pragma GCC unroll 10
      for (int r = 0; r < kPhiloxRounds; ++r) {
        const auto k0 = static_cast<uint32_t>(keys.x[r][0]), k1 = static_cast<uint32_t>(keys.z[r][0]);
#pragma GCC unroll 4
        for (int s = 0; s < kChains; ++s) c[s] = philoxRound(c[s], k0, k1);
      }
#pragma GCC unroll 4
      for (int s = 0; s < kChains; ++s) {
        const int pair = 2 * (j + s * span);
        out.radius[pair] = c[s].x;
        out.angle[pair] = c[s].y;
        out.radius[pair + 1] = c[s].z;
        out.angle[pair + 1] = c[s].w;
      }
    }
  }
};

#if MULTIVERSION_X86
typedef uint64_t Lanes256 __attribute__((vector_size(32)));
typedef uint64_t Lanes512 __attribute__((vector_size(64)));

/// One counter to a 64-bit lane. vpmuludq multiplies the low halves alone, so rubbish above them does no harm, the high
/// word of a product takes a shift, and nothing is ever shuffled: 1.5 times the speed of what the compiler makes of
/// 32-bit lanes. It has no such operation in its portable vectors, hence the one line of assembly.
template <class Lanes, int Chains>
struct WideLanes {
  static constexpr int kLanes = sizeof(Lanes) / sizeof(uint64_t);

  HD static void multiply(Lanes& product, const Lanes& a, const Lanes& b) {
    asm("vpmuludq %2, %1, %0" : "=v"(product) : "v"(a), "vm"(b));
  }

  template <int Tile>
  HD static void words(TileWords& out, uint64_t counter, const RoundKeys& keys) {
    constexpr int kChains = std::min(Chains, Tile / kLanes);
    constexpr uint64_t kLow = 0xffffffff;
    Lanes lane;
    for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<uint64_t>(i);
    const Lanes m0 = Lanes{} + kPhiloxM0, m1 = Lanes{} + kPhiloxM1;
    for (int at = 0; at < Tile; at += kLanes * kChains) {
      Lanes x[kChains], y[kChains], z[kChains], w[kChains];
#pragma GCC unroll 8
      for (int s = 0; s < kChains; ++s) {
        x[s] = lane + (counter + static_cast<uint64_t>(at + s * kLanes));
        y[s] = x[s] >> 32;
        z[s] = w[s] = Lanes{};
      }
#pragma GCC unroll 10
      for (int r = 0; r < kPhiloxRounds; ++r) {
        Lanes k0, k1;
        std::memcpy(&k0, keys.x[r], sizeof k0);
        std::memcpy(&k1, keys.z[r], sizeof k1);
#pragma GCC unroll 8
        for (int s = 0; s < kChains; ++s) {
          Lanes p0, p1;
          multiply(p0, x[s], m0);
          multiply(p1, z[s], m1);
          x[s] = (p1 >> 32) ^ y[s] ^ k0;
          y[s] = p1;
          z[s] = (p0 >> 32) ^ w[s] ^ k1;
          w[s] = p0;
        }
      }
#pragma GCC unroll 8
      for (int s = 0; s < kChains; ++s) {
        const Lanes radius = (x[s] & kLow) | (z[s] << 32), angle = (y[s] & kLow) | (w[s] << 32);
        std::memcpy(out.radius + 2 * (at + s * kLanes), &radius, sizeof radius);
        std::memcpy(out.angle + 2 * (at + s * kLanes), &angle, sizeof angle);
      }
    }
  }
};

using Lanes4 = WideLanes<Lanes256, 4>;
using Lanes8 = WideLanes<Lanes512, 8>;
#endif

}  // namespace score_sde::cpu
