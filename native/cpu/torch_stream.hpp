// torch's CPU generator: MT19937 and the algorithm of torch.randn, bit for bit (docs/parity.md).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"
#include "core/params.hpp"

namespace score_sde {

/// The 5056 bytes of torch.Generator.get_state(): the whole state of a generator.
struct TorchState {
  uint64_t seed;
  int32_t left;  // words until the next twist, plus 1
  int32_t seeded;
  uint64_t next;        // position of the next word
  uint64_t state[624];  // low 32 bits used
  double normalX;
  double normalY;  // the second half of the last pair of a small draw
  double normalRho;
  int32_t normalIsValid;  // whether normalY is the next normal
  int32_t padding;
  float nextFloatNormal;
  uint8_t nextFloatNormalIsValid;
  uint8_t tail[3];
};
static_assert(sizeof(TorchState) == 5056);

/// torch.Generator().manual_seed(seed)
void torchSeed(TorchState& state, uint64_t seed);

/// Whether a state's position and its count of words left are in range and agree.
bool torchStateIsSound(const TorchState& state);

namespace cpu {

/// One call of torch.randn for `count` elements, drawn in pieces. The destructor writes the new state.
///
/// Only the generator's words follow one from another. begin() makes those of a piece; finish() makes normals of them,
/// of any piece that has begun, on any thread.
class TorchDraw {
 public:
  static constexpr size_t kTransform = 16;  // elements that torch transforms together

  struct Piece {
    float* values = nullptr;  // the bits of words, or uniforms; then normals
    size_t count = 0;
    bool isRaw = true;               // whether `values` are the bits of words
    uint32_t last[kTransform] = {};  // the words of the last 16 elements of a draw, where 16 does not divide its size
  };

  TorchDraw(TorchState& state, size_t count, Dtype type);
  ~TorchDraw();
  TorchDraw(const TorchDraw&) = delete;
  TorchDraw& operator=(const TorchDraw&) = delete;

  /// The elements of the next piece, given the `wanted` number, a multiple of 16. The last piece has up to 15 more,
  /// because a piece has at least 16.
  size_t pieceOf(size_t wanted) const;
  /// The words of the next `count` elements, to lie in `values`. `count` must be a result of pieceOf. Where nobody
  /// waits for the next words, float32 uniforms are made of them in the same pass, unless they are to be left `raw`.
  Piece begin(float* values, size_t count, bool raw);
  /// The normals of a piece, rounded to the draw's type, as float32.
  void finish(Piece& piece) const;

 private:
  uint32_t word();
  double uniformDouble();
  float smallNormal();
  void words(void* out, size_t count, bool raw);

  TorchState& state_;
  size_t left_;  // elements not drawn yet
  const bool empty_, small_;
  const Dtype type_;
  size_t position_;  // index of the next word in words_
  alignas(64) uint32_t words_[624];
};

}  // namespace cpu
}  // namespace score_sde
