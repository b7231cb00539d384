// Calls that run on a thread pool, and then resolve or reject a promise on the thread of their JS environment.
#pragma once

#include <napi.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/status.hpp"
#include "threads/thread_pool.hpp"

namespace score_sde::binding {

class AsyncCalls;

/// The number of a call, then the numbers of the calls that it must wait for. Empty for a call that no other call can
/// wait for.
using Order = std::vector<int64_t>;

/// A number that no other call of the process has.
int64_t nextCallNumber();

class AsyncCall : public Task {
 public:
  /// Queues a call, which begins when the calls that it waits for have ended. `held` are the typed arrays that it uses.
  /// Without a `pool` it runs on the kernels' pool, or, if it waited for a network's run, on the thread of that run.
  static Napi::Promise start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held,
                             ThreadPool* pool = nullptr, const Order& order = {});

  /// Cancels a call. One that no worker has begun ends with this status, after the calls that it waits for. One that
  /// has begun is interrupted.
  void cancel(const Status& status);

 protected:
  /// Makes the call run: called once, on the environment's thread, or on the thread that ended the last call it waits
  /// for.
  virtual Status begin();
  /// The work, on a worker thread.
  virtual Status execute() = 0;
  /// The promise's value: on the environment's thread, after execute() has returned ok.
  virtual Napi::Value result(Napi::Env env) = 0;
  /// In place of result(), where the environment ends before the promise is resolved: on its thread, after execute()
  /// has returned. The call is deleted next.
  virtual void abandoned() {}
  /// On the environment's thread, while execute() may be at work: makes execute() return soon.
  virtual void interrupt() {}
  /// Ends a call whose begin() leads to no execute(). The call may be deleted before this returns.
  void end(Status status);

 private:
  friend class AsyncCalls;
  void run() final { end(execute()); }
  /// Whether this call, a kernel, continues on this thread, on which `run`, a network's run, has ended. A kernel is
  /// short compared with the runs that wait for the thread.
  bool continuesAfter(const AsyncCall& run);
  void resolveOrReject(Napi::Env env);

  std::shared_ptr<AsyncCalls> calls_;  // those of the environment
  int64_t number_ = 0;
  // Guarded by the mutex of calls_.
  bool ended_ = false, cancelled_ = false;
  size_t awaited_ = 0;                 // calls that it waits for and that have not ended
  std::vector<AsyncCall*> followers_;  // calls that wait for it
  AsyncCall* predecessor_ =
      nullptr;  // its promise is resolved just before this call's, in the same turn of the event loop

  ThreadPool* pool_ = nullptr;
  ThreadPool* continuesOn_ = nullptr;         // the pool whose worker continues with it
  std::atomic<ThreadPool*> queued_{nullptr};  // the pool that it was submitted to
  Status status_;
  Napi::Reference<Napi::Array> held_;
  std::vector<std::shared_ptr<void>> shares_;
  std::unique_ptr<Napi::Promise::Deferred> deferred_;
};

/// Prepares an environment for asynchronous calls.
void initAsyncCalls(Napi::Env env);

}  // namespace score_sde::binding
