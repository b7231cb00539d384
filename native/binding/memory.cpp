// Tensor memory: 64-byte aligned, seen by JS as an ArrayBuffer.
#include "binding/memory.hpp"

#include <napi.h>

#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "binding/args.hpp"
#include "binding/exports.hpp"

namespace score_sde::binding {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMaxBytes = size_t{1} << 32;  // the longest array of Node 20, which ends the process over a longer one

/// From malloc, with room to align it: what memalign gives back does not fit the next request of the same size, so that
/// the heap would grow with every tensor.
struct Block {
  explicit Block(size_t bytes) : base(std::malloc(bytes + kAlignment)) {}
  ~Block() { std::free(base); }
  void* data() const {
    return static_cast<char*>(base) + (kAlignment - reinterpret_cast<uintptr_t>(base) % kAlignment);
  }
  void* const base;
};

std::mutex mutex;
/// The blocks of buffers that are neither detached nor collected, by their data.
std::unordered_map<const void*, std::shared_ptr<Block>>& blocks() {
  static auto* const map = new std::unordered_map<const void*, std::shared_ptr<Block>>();
  return *map;
}

/// Takes a block off the list; it is freed once nothing works on it.
void forget(const void* data) {
  std::shared_ptr<Block> block;
  const std::lock_guard lock(mutex);
  if (const auto found = blocks().find(data); found != blocks().end()) {
    block = std::move(found->second);
    blocks().erase(found);
  }
}

/// Node's own end of a buffer, no sooner than the event loop's next turn. It may have been detached, and its address be
/// another block's by now.
void release(napi_env, void* data, void* hint) {
  const std::unique_ptr<std::weak_ptr<Block>> block(static_cast<std::weak_ptr<Block>*>(hint));
  if (!block->expired()) forget(data);
}

/// allocate(bytes): an ArrayBuffer, not cleared.
Napi::Value allocate(const Napi::CallbackInfo& info) {
  Args args(info);
  const size_t bytes = args.count();
  const Napi::Env env = info.Env();
  if (bytes > kMaxBytes)
    fail(env, Status::error("ERR_MEMORY", "no array can have " + std::to_string(bytes) + " bytes"));
  auto block = std::make_shared<Block>(bytes);
  if (block->base == nullptr)
    fail(env, Status::error("ERR_MEMORY", "no memory for " + std::to_string(bytes) + " bytes"));
  void* const data = block->data();
  auto* const hint = new std::weak_ptr<Block>(block);
  {
    const std::lock_guard lock(mutex);
    blocks()[data] = std::move(block);
  }
  napi_value buffer = nullptr;
  const napi_status status = napi_create_external_arraybuffer(env, data, bytes, release, hint, &buffer);
  if (status == napi_ok) return Napi::Value(env, buffer);
  release(env, data, hint);
  // A runtime that keeps all array buffers in a cage of its own allows no other memory.
  if (status == napi_no_external_buffers_allowed) return Napi::ArrayBuffer::New(env, bytes);
  fail(env, Status::error("ERR_MEMORY", "no ArrayBuffer of " + std::to_string(bytes) + " bytes"));
}

/// detach(buffer): gives the memory back now; every view of it is empty from then on.
Napi::Value detach(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) fail(info.Env(), Status::error("ERR_NATIVE", "expected an ArrayBuffer"));
  Napi::ArrayBuffer buffer = info[0].As<Napi::ArrayBuffer>();
  const void* const data = buffer.Data();
  buffer.Detach();
  forget(data);
  return info.Env().Undefined();
}

}  // namespace

std::shared_ptr<void> shareMemory(const void* data) {
  const std::lock_guard lock(mutex);
  const auto found = blocks().find(data);
  return found == blocks().end() ? nullptr : found->second;
}

void exportMemory(Exports& exports) {
  exports.add("allocate", allocate);
  exports.add("detach", detach);
}

}  // namespace score_sde::binding
