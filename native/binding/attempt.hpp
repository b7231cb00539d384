// Code below the binding throws nothing itself. The standard library throws there when memory runs out.
#pragma once

#include <exception>
#include <new>
#include <stdexcept>

#include "core/status.hpp"

namespace score_sde::binding {

/// The Status that work() returns, or the Status of what it throws: ERR_MEMORY, or ERR_NATIVE for any other exception.
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
