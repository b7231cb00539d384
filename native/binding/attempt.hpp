// Below the binding nothing throws, but for the standard library where memory ends.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "core/status.hpp"

namespace score_sde::binding {

/// What work() returns, or what it threw as a Status: ERR_MEMORY, or ERR_NATIVE for what nobody expects.
template <class Work>
Status attempt(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return Status::error("ERR_MEMORY", "not enough memory");
  } catch (const std::length_error&) {
    return Status::error("ERR_MEMORY", "more than any memory could hold");
  } catch (const std::exception& error) {
    return Status::error("ERR_NATIVE", error.what());
  }
}

}  // namespace score_sde::binding
