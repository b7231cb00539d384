#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

namespace score_sde {

/// Waits until ready() is true. Uses wait_for(), not wait(): GCC 12 compiles wait() to a symbol that the C++ library of
/// GCC 11 does not have, and present systems have that library.
template <class Ready>
void waitFor(std::condition_variable& notified, std::unique_lock<std::mutex>& lock, const Ready& ready) {
  while (!ready()) notified.wait_for(lock, std::chrono::hours(1));
}

}  // namespace score_sde
