// Calls that run on the pool and settle a promise on the thread of their environment.
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
  static Napi::Promise start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held);

 protected:
  /// On a worker.
  virtual Status execute() = 0;
  /// On the environment's thread, after an execute that went well.
  virtual Napi::Value result(Napi::Env env) = 0;

 private:
  friend class AsyncCalls;
  void run() final;
  void settle(Napi::Env env);

  AsyncCalls* home_ = nullptr;
  Status status_;
  Napi::Reference<Napi::Array> held_;
  std::vector<std::shared_ptr<void>> shares_;
  std::unique_ptr<Napi::Promise::Deferred> deferred_;
};

/// Prepares an environment for asynchronous calls.
void initAsyncCalls(Napi::Env env);

}  // namespace score_sde::binding
