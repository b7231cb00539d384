// Device memory, in files that another process can open, and pinned memory, from malloc. EMULATED_MEMORY limits the bytes
// of a device. What lies before or behind a block is not to be touched: AddressSanitizer sees to that.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "emulator/captures.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(start, bytes)
#endif

namespace emulator {

constexpr int kDevices = 2;
constexpr size_t kPage = 4096;
inline thread_local int device = 0;

struct Allocation {
  size_t bytes;
  int device;
  int file;        // -1: pinned memory
  ino_t inode;     // of the file
  int opened = 0;  // how often, where it is another process's
};

struct Heap {
  std::mutex mutex;
  std::map<uintptr_t, Allocation> blocks;
  size_t used[kDevices] = {};

  /** The block in which p lies, or the end. */
  auto around(const void* p) {
    const auto at = reinterpret_cast<uintptr_t>(p);
    auto found = blocks.upper_bound(at);
    return found == blocks.begin() || at >= (--found)->first + found->second.bytes ? blocks.end() : found;
  }
};
inline Heap& heap() {
  static auto* const heap = new Heap();
  return *heap;
}

inline size_t memoryLimit() {
  const char* text = std::getenv("EMULATED_MEMORY");
  return text == nullptr ? size_t{1} << 32 : std::strtoull(text, nullptr, 10);
}

inline size_t pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

/** A file's bytes between two pages that cannot be touched; null where there is no room. */
inline void* map(int file, size_t bytes) {
  const size_t size = pages(bytes);
  void* const all = mmap(nullptr, size + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return nullptr;
  char* const p = static_cast<char*>(all) + kPage;
  if (mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
    munmap(all, size + 2 * kPage);
    return nullptr;
  }
  ASAN_POISON_MEMORY_REGION(p + bytes, size - bytes);
  return p;
}

inline void unmap(void* p, const Allocation& block) {
  ASAN_UNPOISON_MEMORY_REGION(p, pages(block.bytes));
  munmap(static_cast<char*>(p) - kPage, pages(block.bytes) + 2 * kPage);
  close(block.file);
}

inline cudaError_t allocate(void** out, size_t bytes) {
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  if (bytes > memoryLimit() || h.used[device] > memoryLimit() - bytes) return cudaErrorMemoryAllocation;
  const int file = memfd_create("emulated", MFD_CLOEXEC);
  if (file < 0) return cudaErrorMemoryAllocation;
  struct stat status;
  void* const p = ftruncate(file, static_cast<off_t>(pages(bytes))) == 0 && fstat(file, &status) == 0 && bytes > 0
                      ? map(file, bytes)
                      : nullptr;
  if (p == nullptr) return close(file), cudaErrorMemoryAllocation;
  std::memset(p, 0xa5, bytes);  // nobody may rely on zeros
  h.used[device] += bytes;
  h.blocks[reinterpret_cast<uintptr_t>(p)] = {bytes, device, file, status.st_ino};
  *out = p;
  return cudaSuccess;
}

inline cudaError_t allocatePinned(void** out, size_t bytes) {
  void* const p = std::malloc(bytes);
  if (p == nullptr) return cudaErrorMemoryAllocation;
  std::memset(p, 0xa5, bytes);
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  h.blocks[reinterpret_cast<uintptr_t>(p)] = {bytes, device, -1, 0};
  *out = p;
  return cudaSuccess;
}

inline cudaError_t release(void* p) {
  if (p == nullptr) return cudaSuccess;
  Heap& h = heap();
  const std::lock_guard lock(h.mutex);
  const auto found = h.blocks.find(reinterpret_cast<uintptr_t>(p));
  if (found == h.blocks.end() || found->second.opened > 0) return cudaErrorInvalidValue;
  if (found->second.file < 0) {
    std::free(p);
  } else {
    h.used[found->second.device] -= found->second.bytes;
    unmap(p, found->second);
  }
  h.blocks.erase(found);
  return cudaSuccess;
}

/** What a handle holds: where the file of a block is to be found while its process has it. */
struct Handle {
  char magic[8];
  int process, file, device;
  ino_t inode;
  size_t bytes;
};
constexpr char kMagic[8] = "emulate";

}  // namespace emulator

template <class T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  EMULATED_UNSAFE;
  return emulator::allocate(reinterpret_cast<void**>(p), bytes);
}
template <class T>
cudaError_t cudaMallocHost(T** p, size_t bytes) {
  EMULATED_UNSAFE;
  return emulator::allocatePinned(reinterpret_cast<void**>(p), bytes);
}
inline cudaError_t cudaFree(void* p) {
  EMULATED_UNSAFE;
  return emulator::release(p);
}
inline cudaError_t cudaFreeHost(void* p) {
  EMULATED_UNSAFE;
  return emulator::release(p);
}

inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  EMULATED_CALL;
  emulator::Heap& h = emulator::heap();
  const std::lock_guard lock(h.mutex);
  const auto found = h.around(p);
  *a = {};
  if (found == h.blocks.end()) return cudaSuccess;
  a->type = found->second.file < 0 ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
  a->device = found->second.device;
  a->devicePointer = a->hostPointer = const_cast<void*>(p);
  return cudaSuccess;
}

inline cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t* handle, void* p) {
  EMULATED_CALL;
  emulator::Heap& h = emulator::heap();
  const std::lock_guard lock(h.mutex);
  const auto found = h.blocks.find(reinterpret_cast<uintptr_t>(p));
  if (found == h.blocks.end() || found->second.file < 0 || found->second.opened > 0) return cudaErrorInvalidValue;
  const emulator::Allocation& block = found->second;
  emulator::Handle given{{}, getpid(), block.file, block.device, block.inode, block.bytes};
  std::memcpy(given.magic, emulator::kMagic, sizeof given.magic);
  static_assert(sizeof given <= sizeof *handle);
  *handle = {};
  std::memcpy(handle, &given, sizeof given);
  return cudaSuccess;
}

/** The same block is opened once; its second handle is the first one's again. */
inline cudaError_t cudaIpcOpenMemHandle(void** p, cudaIpcMemHandle_t handle, unsigned) {
  EMULATED_CALL;
  emulator::Handle given;
  std::memcpy(&given, &handle, sizeof given);
  if (std::memcmp(given.magic, emulator::kMagic, sizeof given.magic) != 0) return cudaErrorInvalidResourceHandle;
  if (given.process == getpid()) return cudaErrorDeviceUninitialized;
  emulator::Heap& h = emulator::heap();
  const std::lock_guard lock(h.mutex);
  for (auto& [at, block] : h.blocks)
    if (block.opened > 0 && block.inode == given.inode)
      return ++block.opened, *p = reinterpret_cast<void*>(at), cudaSuccess;
  const std::string path = "/proc/" + std::to_string(given.process) + "/fd/" + std::to_string(given.file);
  const int file = open(path.c_str(), O_RDWR | O_CLOEXEC);
  struct stat status;
  if (file < 0) return cudaErrorInvalidResourceHandle;
  *p = fstat(file, &status) == 0 && status.st_ino == given.inode ? emulator::map(file, given.bytes) : nullptr;
  if (*p == nullptr) return close(file), cudaErrorInvalidResourceHandle;
  h.blocks[reinterpret_cast<uintptr_t>(*p)] = {given.bytes, given.device, file, given.inode, 1};
  return cudaSuccess;
}

inline cudaError_t cudaIpcCloseMemHandle(void* p) {
  EMULATED_CALL;
  emulator::Heap& h = emulator::heap();
  const std::lock_guard lock(h.mutex);
  const auto found = h.blocks.find(reinterpret_cast<uintptr_t>(p));
  if (found == h.blocks.end() || found->second.opened == 0) return cudaErrorInvalidValue;
  if (--found->second.opened > 0) return cudaSuccess;
  emulator::unmap(p, found->second);
  h.blocks.erase(found);
  return cudaSuccess;
}

/** Of the driver's functions there is one. */
inline cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                                    cudaDriverEntryPointQueryResult*) {
  EMULATED_CALL;
  const auto range = +[](uintptr_t* base, size_t* bytes, uintptr_t p) {
    emulator::Heap& h = emulator::heap();
    const std::lock_guard lock(h.mutex);
    const auto found = h.around(reinterpret_cast<void*>(p));
    if (found == h.blocks.end()) return 1;
    *base = found->first;
    *bytes = found->second.bytes;
    return 0;
  };
  *function = std::strcmp(name, "cuMemGetAddressRange") == 0 ? reinterpret_cast<void*>(range) : nullptr;
  return cudaSuccess;
}
