// One operation being enqueued: the memory that its kernels use, and its rows' records.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "cuda/backend.hpp"
#include "cuda/capture.hpp"
#include "cuda/check.hpp"
#include "cuda/kernels/rows.cuh"

namespace score_sde::cuda {

class StreamOperation {
 public:
  explicit StreamOperation(CudaBackend& backend) : backend_(backend) {}

  /// Memory for the operation's kernels; that of a captured graph stays.
  template <class T>
  Status scratch(size_t count, T*& out) {
    std::shared_ptr<Buffer> buffer;
    TRY_STATUS(backend_.pool_->allocate(count * sizeof(T), buffer));
    out = static_cast<T*>(buffer->data);
    bool captured = false;
    TRY_STATUS(isCapturing(backend_.stream_, captured));
    (captured ? backend_.captured_ : held_).push_back(std::move(buffer));
    return {};
  }

  /// The records and streams of a batch's rows. Those that lie in device memory stay there; the others travel with the
  /// launch where they are few, else ahead of it to memory of the device.
  Status rows(const std::vector<RowStep>& steps, const RowStep* device, size_t deviceRows, const Noise& noise,
              Rows& out) {
    const size_t streams = noise.kind == Noise::Kind::Philox && noise.device == nullptr ? noise.philox.size() : 0;
    const size_t records = device == nullptr ? steps.size() : 0;
    const size_t streamBytes = streams * sizeof(PhiloxStream), bytes = streamBytes + records * sizeof(RowStep);
    out.steps = device;
    out.streams = noise.device;
    out.stepBytes = (device == nullptr ? steps.size() : deviceRows) > 1 ? sizeof(RowStep) : 0;
    const bool eachStream = noise.kind == Noise::Kind::Philox && noise.streams() > 1;
    out.streamBytes = eachStream ? sizeof(PhiloxStream) : 0;
    const auto pack = [&](unsigned char* to) {
      if (streams > 0) std::memcpy(to, noise.philox.data(), streamBytes);
      for (size_t i = 0; i < records; ++i) {
        RowStep record = steps[i];
        if (!eachStream) record.phase = steps[0].phase;
        std::memcpy(to + streamBytes + i * sizeof record, &record, sizeof record);
      }
    };
    if (bytes <= sizeof out.few) {
      out.stepsAt = static_cast<uint32_t>(streamBytes);
      pack(out.few);
      return {};
    }
    bool captured = false;
    TRY_STATUS(isCapturing(backend_.stream_, captured));
    if (captured)
      return Status::error("ERR_STATE", "a graph takes more than " + std::to_string(sizeof out.few) +
                                            " bytes of rows from device memory alone: host memory would be gone when "
                                            "it is replayed");
    std::vector<unsigned char> packed(bytes);
    pack(packed.data());
    unsigned char* to = nullptr;
    TRY_STATUS(scratch(bytes, to));
    if (streams > 0) out.streams = reinterpret_cast<const PhiloxStream*>(to);
    if (records > 0) out.steps = reinterpret_cast<const RowStep*>(to + streamBytes);
    return backend_.staging_.upload(to, packed.data(), bytes);
  }

 private:
  CudaBackend& backend_;
  std::vector<std::shared_ptr<Buffer>> held_;  // goes back to the pool when all is enqueued
};

}  // namespace score_sde::cuda
