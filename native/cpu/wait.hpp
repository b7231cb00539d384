#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace score_sde::cpu {

/// Waits for a notification after which `ready` holds. Not by wait(): compiled by GCC 12 it would need the C++ library
/// of GCC 12, and there are systems of today with that of GCC 11.
template <class Ready>
void waitFor(std::condition_variable& notified, std::unique_lock<std::mutex>& lock, const Ready& ready) {
  while (!ready()) notified.wait_for(lock, std::chrono::hours(1));
}

}  // namespace score_sde::cpu
