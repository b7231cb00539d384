// Below the binding nothing throws: a function that can fail returns a Status.
#pragma once

#include <string>
#include <utility>

namespace score_sde {

struct Status {
  const char* code = nullptr;  // a stable code such as "ERR_RANGE"; null when all is well
  std::string message;

  static Status error(const char* code, std::string message) { return {code, std::move(message)}; }
  bool ok() const { return code == nullptr; }
};

}  // namespace score_sde

/// In functions that return a Status: goes on only where it is well.
#define TRY_STATUS(expression)                                 \
  if (::score_sde::Status tried = (expression); !tried.ok()) { \
    return tried;                                              \
  }
