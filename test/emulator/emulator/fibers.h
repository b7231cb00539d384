// Blocks of CUDA threads on OS threads.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "emulator/types.h"

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {

constexpr size_t kStack = 1 << 15, kMaxThreads = 1024;

#if defined(__x86_64__)
// swapcontext makes two system calls; this saves the registers that a call keeps, and changes stacks.
struct Context {
  void* top = nullptr;
};
extern "C" void emulatorSwitch(Context* from, Context* to);
asm(R"(
.text
.weak emulatorSwitch
.hidden emulatorSwitch
.type emulatorSwitch, @function
emulatorSwitch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulatorSwitch, .-emulatorSwitch
)");
inline void prepare(Context& c, char* stack, void (*entry)()) {
  auto* top = reinterpret_cast<void**>(stack + kStack - 64);
  *--top = nullptr;  // keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  c.top = top;
}
#else
struct Context {
  ucontext_t context;
};
inline void emulatorSwitch(Context* from, Context* to) { swapcontext(&from->context, &to->context); }
inline void prepare(Context& c, char* stack, void (*entry)()) {
  getcontext(&c.context);
  c.context.uc_stack.ss_sp = stack;
  c.context.uc_stack.ss_size = kStack;
  makecontext(&c.context, entry, 0);
}
#endif

/** A barrier for `size` fibers of one block. */
struct Meeting {
  unsigned size = 0, here = 0, round = 0;
  uint64_t slot[32] = {};
};

struct Fiber {
  Context context;
  unsigned rank = 0;
  bool done = false;
  bool hasFenced = false;  // since the block's last barrier
  bool holdsTicket = false;  // without a fence since it took one
};

/** The block that this OS thread runs. */
struct Block {
  std::barrier<>* others = nullptr;  // the other blocks of a launch that runs together
  std::vector<Fiber> fibers;
  std::vector<Meeting> warps;
  Meeting all;
  Context scheduler;
  Fiber* running = nullptr;
  const std::function<void()>* body = nullptr;
  char* stacks = nullptr;

  ~Block() {
    if (stacks != nullptr) munmap(stacks, kStack * (kMaxThreads + 1));
  }
};
inline thread_local Block block;

inline unsigned lane() { return block.running->rank % 32; }
inline void yield() { emulatorSwitch(&block.running->context, &block.scheduler); }

/** Waits for the whole meeting; the last to come runs `last` first. */
template <class F>
void meet(Meeting& m, F last) {
  const unsigned round = m.round;
  if (++m.here == m.size) {
    last();
    m.here = 0;
    ++m.round;
  } else {
    while (m.round == round) yield();
  }
}

inline void forbid(bool wrong, const char* what) {
  if (!wrong) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}
inline void meetBlock() {
  forbid(block.running->holdsTicket, "a thread took a ticket, and no fence orders it before the block's barrier");
  meet(block.all, [] {});
  block.running->hasFenced = false;
}
inline void fence() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  block.running->hasFenced = true;
  block.running->holdsTicket = false;
}
/** Of a counter by which blocks find out which is the last. The writes of a block come before it by the block's barrier
    and then a fence of the thread that takes it. */
inline void takeTicket() {
  forbid(!block.running->hasFenced, "a thread takes a ticket, and no fence of its own orders the block's writes before");
  block.running->holdsTicket = true;
}
/** The last thread of each block waits for the other blocks on behalf of all. */
inline void meetGrid() {
  meet(block.all, [] { block.others->arrive_and_wait(); });
}

/** What lane `from` of this warp passed. */
template <class T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  Meeting& w = block.warps[block.running->rank / 32];
  std::memcpy(&w.slot[lane()], &value, sizeof value);
  meet(w, [] {});
  if (from < w.size) std::memcpy(&value, &w.slot[from], sizeof value);
  meet(w, [] {});
  return value;
}

inline void enter() {
  (*block.body)();
  block.running->done = true;
  for (;;) yield();
}

inline void runBlock(unsigned size) {
  Block& b = block;
  // Stacks end at different places of their pages, or all tops would share a few lines of the cache.
  if (b.stacks == nullptr)
    b.stacks = static_cast<char*>(
        mmap(nullptr, kStack * (kMaxThreads + 1), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  b.fibers.resize(size);
  b.warps.assign((size + 31) / 32, {});
  b.all = {};
  b.all.size = size;
  for (unsigned i = 0; i < size; ++i) {
    Fiber& f = b.fibers[i];
    f.rank = i;
    f.done = f.hasFenced = f.holdsTicket = false;
    ++b.warps[i / 32].size;
    prepare(f.context, b.stacks + (i + 1) * kStack - i % 61 * 192, enter);
  }
  for (bool busy = true; busy;) {
    busy = false;
    for (Fiber& f : b.fibers) {
      if (f.done) continue;
      b.running = &f;
      threadIdx.x = f.rank;
      emulatorSwitch(&b.scheduler, &f.context);
      busy |= !f.done;
    }
  }
}

/** OS threads that stay, for their stacks' sake. */
class Crew {
 public:
  /** Runs work() on `count` threads and waits for them. */
  void run(size_t count, const std::function<void()>& work) {
    std::lock_guard one(whole_);
    std::unique_lock lock(mutex_);
    for (; threads_ < count; ++threads_) std::thread([this, index = threads_] { serve(index); }).detach();
    work_ = &work;
    wanted_ = left_ = count;
    ++round_;
    wake_.notify_all();
    idle_.wait(lock, [&] { return left_ == 0; });
  }
  static Crew& instance() {
    static auto* const crew = new Crew();
    return *crew;
  }

 private:
  void serve(size_t index) {
    std::unique_lock lock(mutex_);
    for (uint64_t seen = 0;;) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      if (index >= wanted_) continue;
      const auto& work = *work_;
      lock.unlock();
      work();
      lock.lock();
      if (--left_ == 0) idle_.notify_all();
    }
  }

  std::mutex whole_, mutex_;
  std::condition_variable wake_, idle_;
  const std::function<void()>* work_ = nullptr;
  size_t threads_ = 0, wanted_ = 0, left_ = 0;
  uint64_t round_ = 0;
};

inline void launch(dim3 grid, unsigned size, bool together, const std::function<void()>& body) {
  const unsigned count = grid.x * grid.y * grid.z;
  const size_t threads = together ? count : std::min(count, 2u);
  std::barrier<> all(static_cast<std::ptrdiff_t>(threads));
  std::atomic<unsigned> next{0};
  Crew::instance().run(threads, [&] {
    gridDim = grid;
    blockDim.x = size;
    block.others = together ? &all : nullptr;
    block.body = &body;
    for (unsigned i; (i = next++) < count;) {
      blockIdx = {i % grid.x, i / grid.x % grid.y, i / grid.x / grid.y};
      runBlock(size);
      if (together) break;
    }
  });
}

}  // namespace emulator
