// Calls that run on a pool and settle a promise on the thread of their environment.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/status.hpp"
#include "cpu/thread_pool.hpp"

namespace score_sde::binding {

class AsyncCalls;

/// The number of a call, and those of the calls that it comes after; nothing for a call that no other comes after.
using Order = std::vector<int64_t>;

/// Numbers no two calls of the process have in common.
int64_t nextCallNumber();

class AsyncCall : public cpu::Task {
 public:
  /// Queues a call, once those that it comes after are over. `held` are the typed arrays that it uses. Without a `pool`
  /// it runs on the kernels', or on the thread that ended a network's call before it.
  static Napi::Promise start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held,
                             cpu::ThreadPool* pool = nullptr, const Order& order = {});

  /// Ends a call that no worker has begun, with this status, in its turn among those on the same memory; lets another
  /// know that nobody waits for it.
  void cancel(const Status& status);

 protected:
  /// Sees to it that the call runs, once: on the environment's thread, or at the end of the call before it.
  virtual Status begin();
  /// On a worker.
  virtual Status execute() = 0;
  /// On the environment's thread, after an execute that went well.
  virtual Napi::Value result(Napi::Env env) = 0;
  /// On the environment's thread while execute may be at work: it should come to an end.
  virtual void interrupt() {}
  /// The last that is done for a call whose begin() leads to no execute().
  void end(Status status);

 private:
  friend class AsyncCalls;
  void run() final { end(execute()); }
  /// Decides, where that call has ended on this thread. A kernel after a network's call goes on at once, on its thread:
  /// it is short beside what waits there.
  bool goesOnAfter(const AsyncCall& call);
  void settle(Napi::Env env);

  std::shared_ptr<AsyncCalls> home_;
  int64_t number_ = 0;
  // Guarded by its home.
  bool over_ = false, cancelled_ = false;
  size_t awaited_ = 0;  // calls before it that are not over
  std::vector<AsyncCall*> followers_;
  AsyncCall* before_ = nullptr;  // which the environment hears of together with this one, and first

  cpu::ThreadPool* pool_ = nullptr;
  cpu::ThreadPool* goesOn_ = nullptr;             // the pool whose worker goes on with it
  std::atomic<cpu::ThreadPool*> queue_{nullptr};  // the pool that it waits for a worker of
  Status status_;
  Napi::Reference<Napi::Array> held_;
  std::vector<std::shared_ptr<void>> shares_;
  std::unique_ptr<Napi::Promise::Deferred> deferred_;
};

/// Prepares an environment for asynchronous calls.
void initAsyncCalls(Napi::Env env);

}  // namespace score_sde::binding
