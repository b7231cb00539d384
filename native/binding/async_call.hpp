// Calls that run on a pool and settle a promise on the thread of their environment.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "core/status.hpp"
#include "cpu/thread_pool.hpp"

namespace score_sde::binding {

class AsyncCalls;

class AsyncCall : public cpu::Task {
 public:
  /// Queues a call. `held` are the typed arrays that it uses.
  static Napi::Promise start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held,
                             cpu::ThreadPool& pool = cpu::ThreadPool::instance());

  /// Ends a call that no worker has begun, with this status; else lets it know that nobody waits for it.
  void cancel(const Status& status);

 protected:
  /// On the environment's thread: sees to it that the call runs, once.
  virtual Status begin();
  /// On a worker.
  virtual Status execute() = 0;
  /// On the environment's thread, after an execute that went well.
  virtual Napi::Value result(Napi::Env env) = 0;
  /// On the environment's thread while execute may be at work: it should come to an end.
  virtual void interrupt() {}

 private:
  friend class AsyncCalls;
  void run() final;
  void settle(Napi::Env env);

  std::shared_ptr<AsyncCalls> home_;
  cpu::ThreadPool* pool_ = nullptr;
  Status status_;
  Napi::Reference<Napi::Array> held_;
  std::vector<std::shared_ptr<void>> shares_;
  std::unique_ptr<Napi::Promise::Deferred> deferred_;
};

/// Prepares an environment for asynchronous calls.
void initAsyncCalls(Napi::Env env);

}  // namespace score_sde::binding
