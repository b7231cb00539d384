// What the comparison of the backends has in common: memory on the host and on the device, and what is found different.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cpu/backend.hpp"
#include "cuda/device.hpp"
#include "math/half.hpp"

namespace score_sde::parity {

inline constexpr Dtype kTypes[] = {Dtype::Float32, Dtype::Float16, Dtype::Bfloat16};
inline const char* const kNames[] = {"float32", "float16", "bfloat16"};

inline std::shared_ptr<cuda::Context> context;
inline size_t compared = 0;
inline std::string label;

inline void check(const Status& status) {
  if (status.ok()) return;
  std::printf("%s: %s %s\n", label.c_str(), status.code, status.message.c_str());
  std::exit(1);
}

[[noreturn]] inline void fail(const std::string& what) {
  std::printf("%s: %s\n", label.c_str(), what.c_str());
  std::exit(1);
}

/// Of what is enqueued: a download waits for its copy alone.
inline void fetch(void* to, const void* from, size_t bytes) {
  context->synchronize();
  check(context->download(to, from, bytes));
}

inline uint32_t nextWord() {
  static uint32_t word = 1;
  word ^= word << 13;
  word ^= word >> 17;
  return word ^= word << 5;
}

/// Elements on the host and on the device; on the device in memory of just that size, `shift` elements from where it
/// would be aligned.
class Memory {
 public:
  Memory(Dtype type, size_t count, size_t shift, bool wild = false) : type_(type), count_(count), shift_(shift) {
    words_.resize(count);
    for (uint32_t& word : words_) {
      const uint32_t any = nextWord();
      const float value = floatOf((any & 0x807fffffu) | ((117u + (nextWord() & 15u)) << 23));
      const uint32_t bits = wild ? any : bitsOf(value);
      word = type == Dtype::Float32   ? bits
             : type == Dtype::Float16 ? floatToFloat16(floatOf(bits))
                                      : floatToBfloat16(floatOf(bits));
    }
    // Not from the pool, whose blocks are larger: an access beyond is to be seen.
    if (cudaMalloc(&base_, (count + shift) * sizeOf(type)) != cudaSuccess) std::exit(2);
    if (type == Dtype::Float32) {
      host_.assign(reinterpret_cast<uint8_t*>(words_.data()), reinterpret_cast<uint8_t*>(words_.data() + count));
    } else {
      std::vector<uint16_t> halves(words_.begin(), words_.end());
      host_.assign(reinterpret_cast<uint8_t*>(halves.data()), reinterpret_cast<uint8_t*>(halves.data() + count));
    }
    check(context->upload(device().data, host_.data(), host_.size()));
  }
  ~Memory() { cudaFree(base_); }
  Memory(const Memory&) = delete;

  View host() { return {host_.data(), type_}; }
  View device() { return {static_cast<char*>(base_) + shift_ * sizeOf(type_), type_}; }

  /// NaN equals NaN, unless `exact`: which one an operation passes on is the processor's choice.
  void compare(bool exact = false) {
    std::vector<uint8_t> found(host_.size());
    fetch(found.data(), device().data, found.size());
    for (size_t i = 0; i < count_; ++i) {
      const uint32_t a = at(host_, i), b = at(found, i);
      if (a == b || (!exact && isNan(a) && isNan(b))) continue;
      std::printf("%s: element %zu is %08x on the CPU and %08x on the device\n", label.c_str(), i, a, b);
      std::exit(1);
    }
    compared += count_;
  }

 private:
  uint32_t at(const std::vector<uint8_t>& bytes, size_t i) const {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data() + i * sizeOf(type_), sizeOf(type_));
    return value;
  }
  bool isNan(uint32_t bits) const {
    const float value = type_ == Dtype::Float32   ? floatOf(bits)
                        : type_ == Dtype::Float16 ? float16ToFloat(static_cast<uint16_t>(bits))
                                                  : bfloat16ToFloat(static_cast<uint16_t>(bits));
    return value != value;
  }

  const Dtype type_;
  const size_t count_, shift_;
  std::vector<uint32_t> words_;
  std::vector<uint8_t> host_;
  void* base_ = nullptr;
};

enum class Place { Host, Device };

inline View in(Memory& memory, Place place) { return place == Place::Host ? memory.host() : memory.device(); }
inline Backend& on(Place place) { return place == Place::Host ? cpu::backend() : context->backend(); }

/// A list in the device's memory.
template <class T>
class Uploaded {
 public:
  explicit Uploaded(const std::vector<T>& values) : count_(values.size()) {
    if (cudaMalloc(&data_, count_ * sizeof(T)) != cudaSuccess) std::exit(2);
    set(values);
  }
  ~Uploaded() { cudaFree(data_); }
  Uploaded(const Uploaded&) = delete;
  void set(const std::vector<T>& values) { check(context->upload(data_, values.data(), count_ * sizeof(T))); }
  std::vector<T> values() const {
    std::vector<T> found(count_);
    fetch(found.data(), data_, count_ * sizeof(T));
    return found;
  }
  T* data() const { return data_; }

 private:
  const size_t count_;
  T* data_ = nullptr;
};

/// Where the device notes the rows that are not finite, beside what the CPU says.
class Marked {
 public:
  explicit Marked(size_t rows) : words_(std::vector<uint32_t>(rows, UINT32_MAX)) {}
  FiniteMark mark() const { return {words_.data(), 7}; }
  void compare(const std::vector<uint32_t>& bad) {
    const std::vector<uint32_t> seen = words_.values();
    std::vector<uint32_t> expected(seen.size(), UINT32_MAX);
    for (const uint32_t row : bad) expected[row] = 7;
    for (size_t row = 0; row < seen.size(); ++row)
      if (seen[row] != expected[row])
        fail("row " + std::to_string(row) + "'s mark is " + std::to_string(seen[row]) + " and should be " +
             std::to_string(expected[row]));
  }

 private:
  Uploaded<uint32_t> words_;
};

}  // namespace score_sde::parity
