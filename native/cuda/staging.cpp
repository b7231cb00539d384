#include "cuda/staging.hpp"

#include <algorithm>
#include <cstring>

#include "cuda/capture.hpp"
#include "cuda/check.hpp"

namespace score_sde::cuda {

Staging::~Staging() {
  const OnDevice here(device_);
  const Relaxed relaxed;
  for (Piece& piece : pieces_) {
    if (piece.free != nullptr) cudaEventDestroy(piece.free);
    if (piece.data != nullptr) cudaFreeHost(piece.data);
  }
}

/// The piece whose turn it is, once nothing uses it.
Status Staging::next(Piece*& out) {
  const Relaxed relaxed;
  TRY_STATUS(relaxed.status());
  Piece& piece = pieces_[turn_++ % pieces_.size()];
  if (piece.free == nullptr)
    TRY_CUDA(cudaEventCreateWithFlags, &piece.free, cudaEventDisableTiming | cudaEventBlockingSync);
  if (piece.data == nullptr) TRY_CUDA(cudaMallocHost, &piece.data, bytes_);
  TRY_CUDA(cudaEventSynchronize, piece.free);
  out = &piece;
  return {};
}

Status Staging::enqueue(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, Piece& piece) {
  TRY_CUDA(cudaMemcpyAsync, to, from, bytes, kind, stream_);
  Status recorded = checked(cudaEventRecord(piece.free, stream_), "cudaEventRecord");
  if (!recorded.ok()) cudaStreamSynchronize(stream_);  // nothing else would tell when the piece is free
  return recorded;
}

Status Staging::upload(void* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  TRY_ON_DEVICE(device_);
  for (size_t at = 0; at < bytes; at += bytes_) {
    const size_t count = std::min(bytes_, bytes - at);
    Piece* piece = nullptr;
    TRY_STATUS(next(piece));
    std::memcpy(piece->data, static_cast<const char*>(from) + at, count);
    TRY_STATUS(enqueue(static_cast<char*>(to) + at, piece->data, count, cudaMemcpyHostToDevice, *piece));
  }
  return {};
}

Status Staging::download(void* to, const void* from, size_t bytes) {
  const std::lock_guard lock(mutex_);
  TRY_ON_DEVICE(device_);
  Piece* before = nullptr;  // copied while the next one is on its way
  size_t beforeAt = 0, beforeCount = 0;
  const auto finish = [&]() -> Status {
    if (before == nullptr) return {};
    TRY_CUDA(cudaEventSynchronize, before->free);
    std::memcpy(static_cast<char*>(to) + beforeAt, before->data, beforeCount);
    return {};
  };
  for (size_t at = 0; at < bytes; at += bytes_) {
    const size_t count = std::min(bytes_, bytes - at);
    Piece* piece = nullptr;
    TRY_STATUS(next(piece));
    TRY_STATUS(enqueue(piece->data, static_cast<const char*>(from) + at, count, cudaMemcpyDeviceToHost, *piece));
    TRY_STATUS(finish());
    before = piece;
    beforeAt = at;
    beforeCount = count;
  }
  return finish();
}

}  // namespace score_sde::cuda
