#include "binding/async_call.hpp"

#include <condition_variable>
#include <mutex>

#include "binding/args.hpp"
#include "binding/memory.hpp"

namespace score_sde::binding {

/// The calls of one environment: its main thread, or one of worker_threads.
class AsyncCalls {
 public:
  static AsyncCalls& of(Napi::Env env) { return *env.GetInstanceData<AsyncCalls>(); }

  explicit AsyncCalls(Napi::Env env) : env_(env) {
    const Napi::String name = Napi::String::New(env, "score-sde");
    napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, settleNext, &done_);
    napi_unref_threadsafe_function(env, done_);
  }

  bool start(std::unique_ptr<AsyncCall> call) {
    call->home_ = this;
    {
      std::lock_guard lock(mutex_);
      ++running_;
    }
    if (!cpu::ThreadPool::instance().submit(*call)) {
      std::lock_guard lock(mutex_);
      --running_;
      return false;
    }
    // A process stays while calls are under way.
    if (unsettled_++ == 0) napi_ref_threadsafe_function(env_, done_);
    napi_add_env_cleanup_hook(env_, drop, call.release());
    return true;
  }

  /// On a worker, the last that it does for a call.
  void finished(AsyncCall* call) {
    std::lock_guard lock(mutex_);
    napi_call_threadsafe_function(done_, call, napi_tsfn_nonblocking);
    --running_;
    idle_.notify_all();
  }

 private:
  static void settleNext(napi_env env, napi_value, void* context, void* data) {
    if (env == nullptr) return;  // the environment has ended, and drop() deleted the call
    napi_remove_env_cleanup_hook(env, drop, data);
    const std::unique_ptr<AsyncCall> call(static_cast<AsyncCall*>(data));
    auto* const calls = static_cast<AsyncCalls*>(context);
    if (--calls->unsettled_ == 0) napi_unref_threadsafe_function(env, calls->done_);
    try {
      call->settle(env);
    } catch (const Napi::Error&) {
      // The environment is being torn down: nobody hears of the call any more.
    }
  }

  /// The environment ends with a call unsettled: its memory goes next, so no call may still work on it.
  static void drop(void* data) {
    const std::unique_ptr<AsyncCall> call(static_cast<AsyncCall*>(data));
    AsyncCalls* const calls = call->home_;
    std::unique_lock lock(calls->mutex_);
    calls->idle_.wait(lock, [&] { return calls->running_ == 0; });
  }

  const napi_env env_;
  napi_threadsafe_function done_ = nullptr;
  size_t unsettled_ = 0;  // of the environment's thread alone
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t running_ = 0;  // queued or on a worker
};

Napi::Promise AsyncCall::start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held) {
  call->held_ = Napi::Persistent(held);
  for (uint32_t i = 0; i < held.Length(); ++i)
    call->shares_.push_back(shareMemory(held.Get(i).As<Napi::TypedArray>().ArrayBuffer().Data()));
  call->deferred_ = std::make_unique<Napi::Promise::Deferred>(env);
  const Napi::Promise promise = call->deferred_->Promise();
  if (!AsyncCalls::of(env).start(std::move(call))) fail(env, Status::error("ERR_MEMORY", "no thread can be had"));
  return promise;
}

void AsyncCall::run() {
  status_ = execute();
  home_->finished(this);
}

void AsyncCall::settle(Napi::Env env) {
  if (status_.ok()) {
    deferred_->Resolve(result(env));
    return;
  }
  try {
    fail(env, status_);
  } catch (const Napi::Error& error) {
    deferred_->Reject(error.Value());
  }
}

void initAsyncCalls(Napi::Env env) { env.SetInstanceData(new AsyncCalls(env)); }

}  // namespace score_sde::binding
