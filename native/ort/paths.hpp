// Paths and their text, which is UTF-8 on every system.
#pragma once

#include <filesystem>
#include <string>

namespace score_sde::ort {

inline std::filesystem::path pathOf(const std::string& utf8) { return {std::u8string(utf8.begin(), utf8.end())}; }

inline std::string utf8Of(const std::filesystem::path& path) {
  const std::u8string text = path.u8string();
  return {text.begin(), text.end()};
}

}  // namespace score_sde::ort
