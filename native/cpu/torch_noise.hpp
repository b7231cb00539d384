// The normals of torch streams, piece by piece.
#pragma once

#include <algorithm>
#include <mutex>
#include <vector>

#include "cpu/kernels.hpp"
#include "cpu/torch_stream.hpp"
#include "threads/thread_pool.hpp"

namespace score_sde::cpu {

/// A draw that any number of threads work at: they make the words of its pieces in turn, and the normals side by side.
class SharedDraw {
 public:
  static constexpr size_t kPiece = 8 * kBlock;  // what a second-level cache holds beside the operands

  /// The values lie in `into`, memory for all of them, where it is not null. One thread alone takes no lock.
  SharedDraw(TorchState& state, size_t count, Dtype type, float* into, bool isShared)
      : draw_(state, count, type), count_(count), into_(into), isShared_(isShared) {}

  /// Takes part until no piece is left: consume(at, count, values) for each of this thread's.
  template <class Consume>
  void work(const Consume& consume) {
    alignas(64) float room[kPiece + TorchDraw::kTransform];
    for (;;) {
      size_t at = 0;
      TorchDraw::Piece piece;
      {
        std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
        if (isShared_) lock.lock();
        if (begun_ == count_) return;
        at = begun_;
        const size_t count = draw_.pieceOf(kPiece);
        piece = draw_.begin(into_ == nullptr ? room : into_ + at, count, isShared_);
        begun_ += count;
      }
      draw_.finish(piece);
      consume(at, piece.count, piece.values);
    }
  }

 private:
  TorchDraw draw_;
  std::mutex mutex_;  // of the draw's words, and begun_
  const size_t count_;
  size_t begun_ = 0;
  float* const into_;
  const bool isShared_;
};

/// Whether every generator stands in the list once. The draws of one that stands there more often follow one another.
inline bool areDistinct(std::vector<TorchState*> states) {
  std::sort(states.begin(), states.end());
  return std::adjacent_find(states.begin(), states.end()) == states.end();
}

/// Draws the torch streams of a batch: consume(at, count, values) over all of [0, size) of the batch, in pieces. The
/// values lie in `into`, the batch's memory, where it is not null.
template <class Consume>
void drawTorch(const Noise& noise, Shape shape, float* into, const Consume& consume) {
  ThreadPool& pool = ThreadPool::instance();
  const size_t streams = noise.torch.size(), each = shape.size() / streams;
  const size_t threads = static_cast<size_t>(pool.threads());
  const auto drawOf = [&](size_t s, bool isShared) {
    return SharedDraw(*noise.torch[s], each, noise.type, into == nullptr ? nullptr : into + s * each, isShared);
  };
  const auto there = [&](size_t s) {
    return [&consume, first = s * each](size_t at, size_t count, const float* values) {
      consume(first + at, count, values);
    };
  };
  if (streams > 1 && streams >= threads && areDistinct(noise.torch)) {
    pool.forRange(streams, 1, [&](size_t begin, size_t end) {
      for (size_t s = begin; s < end; ++s) drawOf(s, false).work(there(s));
    });
    return;
  }
  const size_t helped =
      each <= kAlone * kBlock ? 1 : std::min(threads, (each + SharedDraw::kPiece - 1) / SharedDraw::kPiece);
  for (size_t s = 0; s < streams; ++s) {
    SharedDraw draw = drawOf(s, helped > 1);
    pool.forRange(helped, 1, [&](size_t, size_t) { draw.work(there(s)); });
  }
}

}  // namespace score_sde::cpu
