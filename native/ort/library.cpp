#include "ort/library.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "ort/paths.hpp"
#include "ort/session.hpp"

namespace score_sde::ort {
namespace {

struct OrtApiBase {
  const void* (*getApi)(uint32_t version);
  const char* (*getVersionString)();
};

constexpr const char* kRemedy = "; install onnxruntime-node 1.22 or later, or name another library with libraryPath";

Status broken(const std::string& path, const std::string& why) {
  return Status::error("ERR_MODEL", path + " is not a usable ONNX Runtime: " + why + kRemedy);
}

// Libraries are never closed: sessions of other threads may run in them.
#if defined(_WIN32)
using Module = HMODULE;
constexpr const char* kNames[] = {"onnxruntime.dll"};
Module loaded(const char* name) { return GetModuleHandleA(name); }
Module open(const std::string& path, std::string& why) {
  const Module module = LoadLibraryExW(pathOf(path).c_str(), nullptr, LOAD_WITH_ALTERED_SEARCH_PATH);
  if (module == nullptr) why = "error " + std::to_string(GetLastError());
  return module;
}
void* symbol(Module module, const char* name) { return reinterpret_cast<void*>(GetProcAddress(module, name)); }
std::string placeOf(void*, Module module) {
  wchar_t name[32768];
  const DWORD length = GetModuleFileNameW(module, name, 32768);
  return utf8Of(std::wstring(name, length));
}
#else
using Module = void*;
#if defined(__APPLE__)
constexpr const char* kNames[] = {"libonnxruntime.1.dylib", "@rpath/libonnxruntime.1.dylib"};
#else
constexpr const char* kNames[] = {"libonnxruntime.so.1"};
#endif
Module loaded(const char* name) { return dlopen(name, RTLD_NOW | RTLD_NOLOAD); }
Module open(const std::string& path, std::string& why) {
  const Module module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) why = dlerror();
  return module;
}
void* symbol(Module module, const char* name) { return dlsym(module, name); }
std::string placeOf(void* function, Module) {
  Dl_info info;
  return dladdr(function, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "";
}
#endif

/// Whether a version such as "1.30.0" has the table of kApiVersion.
bool isRecent(const std::string& version) {
  char* end = nullptr;
  const long major = std::strtol(version.c_str(), &end, 10);
  if (end == version.c_str() || *end != '.') return false;
  return major > 1 || (major == 1 && std::strtol(end + 1, nullptr, 10) >= static_cast<long>(kApiVersion));
}

/// A version, such as "1.29.0", between two zero bytes of a file: `wanted` if the file has it, else the first one, else
/// "".
std::string versionIn(std::istream& file, const std::string& wanted) {
  std::string piece(size_t{1} << 20, '\0'), text, first;
  bool begun = false;  // a zero was read, and only digits and dots after it
  while (file.read(piece.data(), static_cast<std::streamsize>(piece.size())), file.gcount() > 0) {
    for (std::streamsize i = 0; i < file.gcount(); ++i) {
      const char c = piece[static_cast<size_t>(i)];
      if (c == '\0') {
        int dots = 0;
        for (const char t : text) dots += t == '.' ? 1 : 0;
        if (begun && dots == 2 && text.front() != '.' && text.back() != '.') {
          if (text == wanted) return text;
          if (first.empty()) first = text;
        }
        begun = true;
        text.clear();
      } else if (begun && (c == '.' || (c >= '0' && c <= '9')) && text.size() < 16) {
        text += c;
      } else {
        begun = false;
      }
    }
  }
  return first;
}

}  // namespace

Status checkCudaProvider(const Library& library) {
#if defined(_WIN32)
  constexpr const char* kName = "onnxruntime_providers_cuda.dll";
#else
  constexpr const char* kName = "libonnxruntime_providers_cuda.so";
#endif
  const auto unavailable = [&](const std::string& why) {
    return Status::error("ERR_CUDA_UNAVAILABLE", "the CUDA provider of ONNX Runtime " + library.version + " " + why);
  };
  const std::filesystem::path path = pathOf(library.path).replace_filename(kName);
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return unavailable(
        "is not there: " + utf8Of(path) +
        " cannot be read; onnxruntime-node fetches it when it is installed on Linux, unless told to skip that");
  const std::string version = versionIn(file, library.version);
  if (!version.empty() && version != library.version)
    return unavailable("cannot be used: " + utf8Of(path) + " is of version " + version);
  return {};
}

Status openLibrary(const std::string& path, bool shared, const Library** library) {
  static std::mutex mutex;
  static auto* const libraries = new std::map<const void*, std::unique_ptr<Library>>();
  const std::lock_guard lock(mutex);

  Module module = nullptr;
  if (shared)
    for (const char* const name : kNames)
      if (module == nullptr) module = loaded(name);
  std::string why;
  if (module == nullptr && path.empty()) return Status::error("ERR_MODEL", std::string("no ONNX Runtime") + kRemedy);
  if (module == nullptr) module = open(path, why);
  if (module == nullptr) return broken(path, why);
  void* const entry = symbol(module, "OrtGetApiBase");
  if (entry == nullptr) return broken(path, "it has no OrtGetApiBase");

  const auto* const base = reinterpret_cast<const OrtApiBase* (*)()>(entry)();
  if (base == nullptr || base->getApi == nullptr || base->getVersionString == nullptr)
    return broken(path, "it has an OrtGetApiBase that is none");
  std::unique_ptr<Library>& known = (*libraries)[base];
  if (known == nullptr) {
    auto opened = std::make_unique<Library>();
    opened->path = placeOf(entry, module);
    const char* const version = base->getVersionString();
    opened->version = version == nullptr ? "" : version;
    if (!isRecent(opened->version))
      return broken(opened->path, "its version is " + opened->version + ", and 1.18 is needed");
    const void* const table = base->getApi(kApiVersion);
    if (table == nullptr) return broken(opened->path, "it has no interface of version " + std::to_string(kApiVersion));
    opened->api = Api(table);
    if (!opened->api.isComplete()) return broken(opened->path, "its interface has gaps");
    // ONNX Runtime has one environment a process. The first CreateEnv, perhaps onnxruntime-node's, sets its log level.
    if (const Status status = opened->api.check(opened->api(CreateEnv, kError, "score-sde", &opened->env));
        !status.ok())
      return broken(opened->path, status.message);
    if (const Status status = selfTest(*opened); !status.ok()) return broken(opened->path, status.message);
    known = std::move(opened);
  }
  *library = known.get();
  return {};
}

}  // namespace score_sde::ort
