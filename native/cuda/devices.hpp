#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace score_sde::cuda {

struct Device {
  std::string name;
  size_t memory = 0;  // bytes
  int major = 0, minor = 0;
  std::string unusable;  // why nothing is known of it
};

struct Devices {
  std::vector<Device> list;
  std::string unavailable;  // why the list is empty
};

/// The CUDA devices that this build and this machine's driver can use.
Devices devices();

}  // namespace score_sde::cuda
