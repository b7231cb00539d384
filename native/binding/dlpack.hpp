// The structures of DLPack 1.0 (https://dmlc.github.io/dlpack) that dense tensors on CUDA devices need. Layout and
// numbers are the specification's.
#pragma once

#include <cstdint>

namespace score_sde::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUInt = 1, kFloat = 2, kBfloat = 4 };
inline constexpr uint32_t kMajor = 1, kMinor = 0;
inline constexpr uint64_t kReadOnly = 1;

struct Device {
  DeviceType type;
  int32_t id;
};

struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; before DLPack 1.2 null for a dense tensor
  uint64_t byteOffset;
};

struct ManagedTensorVersioned {
  struct {
    uint32_t major, minor;
  } version;
  void* context;
  void (*deleter)(ManagedTensorVersioned* self);
  uint64_t flags;
  Tensor tensor;
};

}  // namespace score_sde::dlpack
