// The face of the CUDA backend: free of CUDA's own headers, so that what uses it compiles without them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/backend.hpp"
#include "core/status.hpp"

namespace score_sde::cuda {

/// Device memory; given back where it came from when the last share in it goes.
class Buffer {
 public:
  Buffer(void* data, size_t bytes, int device) : data(data), bytes(bytes), device(device) {}
  virtual ~Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  /// Whether it is another owner's, and so not to be lent on.
  virtual bool isForeign() const { return false; }

  void* const data;
  const size_t bytes;
  const int device;
};

/// One device as a JS environment uses it: a stream of its own on which all is enqueued, and memory in the order of
/// that stream. For the environment's thread, but for what says otherwise.
class Context {
 public:
  virtual ~Context() = default;

  virtual int device() const = 0;
  /// The operations, enqueued.
  virtual Backend& backend() = 0;

  /// Memory for what is enqueued from now on; not cleared.
  virtual Status allocate(size_t bytes, std::shared_ptr<Buffer>& out) = 0;
  virtual Status fill(void* to, uint8_t byte, size_t bytes) = 0;
  virtual Status copy(void* to, const void* from, size_t bytes) = 0;
  /// From host memory through pinned memory; `from` is free when it returns. On any thread: it waits where the pinned
  /// memory is still in use. ERR_STATE while the stream is captured.
  virtual Status upload(void* to, const void* from, size_t bytes) = 0;
  /// To host memory. On any thread; waits for the copy, not for the stream: what is read must be complete.
  virtual Status download(void* to, const void* from, size_t bytes) = 0;
  /// Words of host memory, UINT32_MAX at first, that kernels can write: the host looks at them without a copy. They are
  /// another's once all that was enqueued before their last share went is done.
  virtual Status words(size_t count, std::shared_ptr<uint32_t>& out) = 0;

  /// Whether the stream is captured into a graph: what is enqueued is then done when that is launched, again and again.
  virtual bool isCaptured() const = 0;
  /// ERR_STATE while the stream is captured: to be asked before anything is enqueued that will be awaited.
  Status awaitable() const {
    if (!isCaptured()) return {};
    return Status::error("ERR_STATE", "the stream is captured, and nothing can be awaited until the capture ends");
  }
  /// Calls done(data, status) on a thread of the driver's once all that is enqueued is done, also where it failed.
  /// ERR_STATE unless awaitable().
  virtual Status notify(void (*done)(void* data, Status status), void* data) = 0;

  /// The stream, and its order against others: what is enqueued next waits for what is on `other` now, or the other
  /// way. ERR_STATE for the legacy default stream while the own one is captured.
  virtual uintptr_t stream() const = 0;
  virtual Status waitFor(uintptr_t other) = 0;
  virtual Status precede(uintptr_t other) = 0;
  /// What is given back from now on is used again after what is on `other` now. On any thread. Waits for nothing, but
  /// for a stream of another device. Nothing is to be waited for where `other` is captured.
  virtual Status reuseAfter(uintptr_t other) = 0;
  /// Makes the device the calling thread's, for libraries that take it from there.
  virtual Status makeCurrent() = 0;
  /// Waits until the device has nothing to do, on any stream: where an order among streams cannot be had.
  virtual void synchronize() = 0;

  /// The device of whose memory a pointer is; ERR_CUDA where it is of none.
  virtual Status inspect(void* data, int& device) = 0;
  /// The 64 bytes by which another process opens the block that begins at `data`.
  virtual Status exportHandle(void* data, uint8_t (&handle)[64]) = 0;
  /// The whole block of another process's, mapped until the last share goes: nothing may be at work on it then.
  virtual Status importHandle(const uint8_t (&handle)[64], std::shared_ptr<Buffer>& out) = 0;

  /// Bytes that tensors hold, and that the pool keeps for the next ones.
  struct Usage {
    size_t used = 0, kept = 0;
  };
  virtual Usage usage() const = 0;
  /// Gives back what the pool keeps, unless the stream is captured; waits for the device.
  virtual Status trim() = 0;
};

/// A context of its own on a device. ERR_CUDA_UNAVAILABLE, ERR_CUDA.
Status open(int device, std::shared_ptr<Context>& out);

}  // namespace score_sde::cuda
