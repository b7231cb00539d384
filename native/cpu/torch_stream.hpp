// torch's CPU generator: MT19937 and the algorithm of torch.randn, bit for bit (docs/parity.md).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.hpp"
#include "core/params.hpp"

namespace score_sde {

/// The 5056 bytes of torch.Generator.get_state(): the generator's whole state, and the only form in which it is kept.
struct TorchState {
  uint64_t seed;
  int32_t left;  // words until the next twist, plus one
  int32_t seeded;
  uint64_t next;        // position of the next word
  uint64_t state[624];  // low 32 bits used
  double normalX;
  double normalY;  // the second half of the last pair of a small draw
  double normalRho;
  int32_t normalIsValid;  // whether normalY is to be used
  int32_t padding;
  float nextFloatNormal;
  uint8_t nextFloatNormalIsValid;
  uint8_t tail[3];
};
static_assert(sizeof(TorchState) == 5056);

/// torch.Generator().manual_seed(seed)
void torchSeed(TorchState& state, uint64_t seed);

/// Whether the positions in it lie in their ranges.
bool torchStateIsSound(const TorchState& state);

namespace cpu {

/// One call of torch.randn for `count` elements, handed out in pieces.
class TorchDraw {
 public:
  static constexpr size_t kTransform = 16;  // elements that are transformed together

  TorchDraw(TorchState& state, size_t count, Dtype type);
  ~TorchDraw();
  TorchDraw(const TorchDraw&) = delete;
  TorchDraw& operator=(const TorchDraw&) = delete;

  /// How many of `wanted` elements (a multiple of 16) the next piece must have: the last one takes up what would be
  /// less than 16.
  size_t pieceOf(size_t wanted) const;
  /// The next `count` normals, in float32 whatever the type they are rounded to; `count` is pieceOf(something).
  void next(float* out, size_t count);

 private:
  uint32_t word();
  double uniformDouble();
  float smallNormal();
  void uniforms(float* out, size_t count);
  void transform(float* values, size_t count);

  TorchState& home_;
  size_t left_;  // elements still to come
  const bool empty_, small_;
  const Dtype type_;
  size_t position_;  // in words_, of the next one
  alignas(64) uint32_t words_[624];
};

}  // namespace cpu
}  // namespace score_sde
