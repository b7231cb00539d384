// Tensor memory on the CPU: 64-byte aligned, an ArrayBuffer in JS.
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
constexpr size_t kMaxBytes = size_t{1} << 32;  // the longest array of Node 20; a longer one ends the process

/// Memory from malloc, with room for the alignment. memalign would make the heap grow with every tensor: a block that
/// it frees does not fit its next request of the same size.
struct Block {
  explicit Block(size_t bytes) : base(std::malloc(bytes + kAlignment)) {}
  ~Block() { std::free(base); }
  void* data() const {
    return static_cast<char*>(base) + (kAlignment - reinterpret_cast<uintptr_t>(base) % kAlignment);
  }
  void* const base;
};

std::mutex mutex;
/// The blocks of buffers that are neither detached nor collected, by address.
std::unordered_map<const void*, std::shared_ptr<Block>>& blocks() {
  static auto* const map = new std::unordered_map<const void*, std::shared_ptr<Block>>();
  return *map;
}

/// Removes a block from blocks(). It is freed once no call holds it.
void removeBlock(const void* data) {
  std::shared_ptr<Block> block;
  const std::lock_guard lock(mutex);
  if (const auto found = blocks().find(data); found != blocks().end()) {
    block = std::move(found->second);
    blocks().erase(found);
  }
}

/// Node calls this when a buffer is collected, at the earliest in the event loop's next turn. If the buffer was
/// detached before, its address may be that of another block by now.
void onCollected(napi_env, void* data, void* hint) {
  const std::unique_ptr<std::weak_ptr<Block>> block(static_cast<std::weak_ptr<Block>*>(hint));
  if (!block->expired()) removeBlock(data);
}

/// allocate(bytes): an ArrayBuffer with undefined content.
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
  const napi_status status = napi_create_external_arraybuffer(env, data, bytes, onCollected, hint, &buffer);
  if (status == napi_ok) return Napi::Value(env, buffer);
  onCollected(env, data, hint);
  // A runtime with the V8 memory cage allows no memory from outside it.
  if (status == napi_no_external_buffers_allowed) return Napi::ArrayBuffer::New(env, bytes);
  fail(env, Status::error("ERR_MEMORY", "no ArrayBuffer of " + std::to_string(bytes) + " bytes"));
}

/// detach(buffer): frees the memory now. Views of the buffer become empty.
Napi::Value detach(const Napi::CallbackInfo& info) {
  if (!info[0].IsArrayBuffer()) fail(info.Env(), Status::error("ERR_NATIVE", "expected an ArrayBuffer"));
  Napi::ArrayBuffer buffer = info[0].As<Napi::ArrayBuffer>();
  const void* const data = buffer.Data();
  buffer.Detach();
  removeBlock(data);
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
