#include "binding/async_call.hpp"

#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "binding/args.hpp"
#include "binding/memory.hpp"
#include "cpu/wait.hpp"

namespace score_sde::binding {

/// The calls of one environment: its main thread, or one of worker_threads.
class AsyncCalls {
 public:
  /// Shared: an environment may settle its last call, and end, before the worker of that call has left finished().
  using Shared = std::shared_ptr<AsyncCalls>;
  static const Shared& of(Napi::Env env) { return *env.GetInstanceData<Shared>(); }

  explicit AsyncCalls(Napi::Env env) : env_(env) {
    const Napi::String name = Napi::String::New(env, "score-sde");
    if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, this, settleNext,
                                        &done_) != napi_ok ||
        napi_unref_threadsafe_function(env, done_) != napi_ok)
      fail(env, Status::error("ERR_MEMORY", "no way back from other threads can be had"));
  }

  /// Takes the call, unless it cannot begin.
  Status start(std::unique_ptr<AsyncCall>& call, const Order& order) {
    bool waits = false;
    {
      std::lock_guard lock(mutex_);
      ++running_;
      for (size_t i = 1; i < order.size(); ++i) {
        const auto before = calls_.find(order[i]);
        if (before == calls_.end() || before->second->over_) continue;
        before->second->followers_.push_back(call.get());
        ++call->awaited_;
      }
      waits = call->awaited_ > 0;
    }
    if (!waits) {
      if (Status status = call->begin(); !status.ok()) {
        std::lock_guard lock(mutex_);
        --running_;
        return status;
      }
    }
    // A process stays while calls are under way.
    if (calls_.empty()) napi_ref_threadsafe_function(env_, done_);
    call->number_ = order.empty() ? nextCallNumber() : order[0];
    calls_.emplace(call->number_, call.get());
    napi_add_env_cleanup_hook(env_, drop, call.release());
    return {};
  }

  /// On a worker, the last that it does for a call, but to begin what comes after it; or on the environment's thread,
  /// for one that never began.
  void finished(AsyncCall* call) {
    std::vector<AsyncCall*> over{call}, ready, told;
    for (size_t next = 0; next < over.size(); ready.clear()) {
      {
        std::lock_guard lock(mutex_);
        for (; next < over.size(); ++next) {
          AsyncCall* const ended = over[next];
          ended->over_ = true;
          AsyncCall* kernel = nullptr;
          for (AsyncCall* const follower : ended->followers_) {
            if (--follower->awaited_ > 0) continue;
            (follower->cancelled_ ? over : ready).push_back(follower);
            if (!follower->cancelled_ && follower->goesOnAfter(*ended)) kernel = follower;
          }
          if (kernel == nullptr) {
            told.push_back(ended);
          } else {
            kernel->before_ = ended;
          }
        }
      }
      for (AsyncCall* const follower : ready) {
        if (Status status = follower->begin(); !status.ok()) {
          follower->status_ = std::move(status);
          over.push_back(follower);
        }
      }
    }
    if (told.empty()) return;
    // Last of all, and with no lock: the environment's thread may take this processor at once to hear of it.
    size_t settled = 0;
    for (AsyncCall* const ended : told) {
      settled += ended->before_ == nullptr ? 1 : 2;
      napi_call_threadsafe_function(done_, ended, napi_tsfn_nonblocking);
    }
    std::lock_guard lock(mutex_);
    running_ -= settled;
    idle_.notify_all();
  }

  /// Has a call that waits for others end with this status when they are over; false where it waits for none.
  bool cancelWaiting(AsyncCall* call, const Status& status) {
    std::lock_guard lock(mutex_);
    if (call->awaited_ == 0) return false;
    call->cancelled_ = true;
    call->status_ = status;
    return true;
  }

 private:
  static void settleNext(napi_env env, napi_value, void* context, void* data) {
    if (env == nullptr) return;  // the environment has ended, and drop() deleted the call
    auto* const calls = static_cast<AsyncCalls*>(context);
    auto* const call = static_cast<AsyncCall*>(data);
    if (call->before_ != nullptr) calls->settle(call->before_);
    calls->settle(call);
  }

  void settle(AsyncCall* ended) {
    const std::unique_ptr<AsyncCall> call(ended);
    napi_remove_env_cleanup_hook(env_, drop, ended);
    calls_.erase(call->number_);
    if (calls_.empty()) napi_unref_threadsafe_function(env_, done_);
    try {
      call->settle(env_);
    } catch (const Napi::Error&) {
      // The environment is being torn down: nobody hears of the call any more.
    }
  }

  /// The environment ends with a call unsettled: its memory goes next, so no call may still work on it.
  static void drop(void* data) {
    const std::unique_ptr<AsyncCall> call(static_cast<AsyncCall*>(data));
    const Shared calls = call->home_;
    for (const auto& [number, waiting] : std::exchange(calls->calls_, {})) waiting->cancel({});
    std::unique_lock lock(calls->mutex_);
    cpu::waitFor(calls->idle_, lock, [&] { return calls->running_ == 0; });
  }

  const napi_env env_;
  napi_threadsafe_function done_ = nullptr;
  // Of the environment's thread alone.
  std::unordered_map<int64_t, AsyncCall*> calls_;  // unsettled, by their numbers
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t running_ = 0;  // not over
};

int64_t nextCallNumber() {
  static std::atomic<int64_t> last{0};
  return ++last;
}

Napi::Promise AsyncCall::start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held, cpu::ThreadPool* pool,
                               const Order& order) {
  call->pool_ = pool;
  call->held_ = Napi::Persistent(held);
  for (uint32_t i = 0; i < held.Length(); ++i)
    call->shares_.push_back(shareMemory(held.Get(i).As<Napi::TypedArray>().ArrayBuffer().Data()));
  call->deferred_ = std::make_unique<Napi::Promise::Deferred>(env);
  const Napi::Promise promise = call->deferred_->Promise();
  const AsyncCalls::Shared home = call->home_ = AsyncCalls::of(env);
  if (const Status status = home->start(call, order); !status.ok()) {
    call->deferred_->Resolve(env.Undefined());  // lets go of the promise, which nobody will have
    fail(env, status);
  }
  return promise;
}

bool AsyncCall::goesOnAfter(const AsyncCall& call) {
  if (pool_ == nullptr && call.pool_ != nullptr) goesOn_ = cpu::ThreadPool::current();
  return goesOn_ != nullptr;
}

Status AsyncCall::begin() {
  cpu::ThreadPool* const pool = goesOn_ != nullptr ? goesOn_ : pool_ != nullptr ? pool_ : &cpu::ThreadPool::instance();
  queue_ = pool;
  const bool queued = goesOn_ != nullptr ? pool->submitFirst(*this) : pool->submit(*this);
  return queued ? Status{} : Status::error("ERR_MEMORY", "no thread can be had");
}

void AsyncCall::end(Status status) {
  const std::shared_ptr<AsyncCalls> home = home_;
  status_ = std::move(status);
  home->finished(this);
}

void AsyncCall::cancel(const Status& status) {
  if (home_->cancelWaiting(this, status)) return;
  if (cpu::ThreadPool* const queue = queue_; queue != nullptr && queue->withdraw(*this)) {
    end(status);
  } else {
    interrupt();
  }
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

void initAsyncCalls(Napi::Env env) { env.SetInstanceData(new AsyncCalls::Shared(std::make_shared<AsyncCalls>(env))); }

}  // namespace score_sde::binding
