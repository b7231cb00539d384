#include "binding/async_call.hpp"

#include <condition_variable>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "binding/args.hpp"
#include "binding/memory.hpp"
#include "threads/wait.hpp"

namespace score_sde::binding {

/// The calls of one JS environment: the main thread's, or a worker_threads worker's.
class AsyncCalls {
 public:
  /// Shared with the calls: the environment may deliver its last call, and end, before that call's worker has left
  /// finished().
  using Shared = std::shared_ptr<AsyncCalls>;
  static const Shared& of(Napi::Env env) { return *env.GetInstanceData<Shared>(); }

  explicit AsyncCalls(Napi::Env env) : env_(env) {
    const Napi::String name = Napi::String::New(env, "score-sde");
    // As handles of Node.js have it: tools that tell what keeps a process alive (jest --detectOpenHandles) ask it.
    const Napi::Object resource = Napi::Object::New(env);
    resource.Set("hasRef", Napi::Function::New(env, hasRef, "hasRef", this));
    if (napi_create_threadsafe_function(env, nullptr, resource, name, 0, 1, nullptr, nullptr, this, onFinished,
                                        &done_) != napi_ok ||
        napi_unref_threadsafe_function(env, done_) != napi_ok)
      fail(env, Status::error("ERR_MEMORY", "no way back from other threads can be had"));
  }

  /// Takes ownership of the call, unless it cannot begin.
  Status start(std::unique_ptr<AsyncCall>& call, const Order& order) {
    bool waits = false;
    {
      std::lock_guard lock(mutex_);
      if (isOver_) return Status::error("ERR_STATE", "the environment is at its end");
      ++running_;
      for (size_t i = 1; i < order.size(); ++i) {
        const auto before = calls_.find(order[i]);
        if (before == calls_.end() || before->second->ended_) continue;
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
    // The event loop stays alive while there are calls.
    if (calls_.empty()) napi_ref_threadsafe_function(env_, done_);
    call->number_ = order.empty() ? nextCallNumber() : order[0];
    calls_.emplace(call->number_, call.get());
    napi_add_env_cleanup_hook(env_, cleanUp, call.release());
    return {};
  }

  /// Ends a call, begins its followers, and has its promise resolved. On the call's worker; for a call that never
  /// began, on the environment's thread.
  void finished(AsyncCall* call) {
    std::vector<AsyncCall*> ended{call}, ready, deliveries;
    for (size_t next = 0; next < ended.size(); ready.clear()) {
      {
        std::lock_guard lock(mutex_);
        for (; next < ended.size(); ++next) {
          AsyncCall* const each = ended[next];
          each->ended_ = true;
          AsyncCall* kernel = nullptr;
          for (AsyncCall* const follower : each->followers_) {
            if (--follower->awaited_ > 0) continue;
            (follower->cancelled_ ? ended : ready).push_back(follower);
            if (!follower->cancelled_ && follower->continuesAfter(*each)) kernel = follower;
          }
          if (kernel == nullptr) {
            deliveries.push_back(each);
          } else {
            kernel->predecessor_ = each;
          }
        }
      }
      for (AsyncCall* const follower : ready) {
        if (Status status = follower->begin(); !status.ok()) {
          follower->status_ = std::move(status);
          ended.push_back(follower);
        }
      }
    }
    if (deliveries.empty()) return;
    // After everything else, and without the lock: the event loop's thread may preempt this one as soon as it is woken.
    size_t delivered = 0;
    for (AsyncCall* const each : deliveries) {
      delivered += each->predecessor_ == nullptr ? 1 : 2;
      napi_call_threadsafe_function(done_, each, napi_tsfn_nonblocking);
    }
    std::lock_guard lock(mutex_);
    running_ -= delivered;
    idle_.notify_all();
  }

  /// Makes a call that waits for others end with this status once they have ended. False for a call that waits for
  /// none.
  bool cancelWaiting(AsyncCall* call, const Status& status) {
    std::lock_guard lock(mutex_);
    if (call->awaited_ == 0) return false;
    call->cancelled_ = true;
    call->status_ = status;
    return true;
  }

 private:
  static Napi::Value hasRef(const Napi::CallbackInfo& info) {
    return Napi::Boolean::New(info.Env(), !static_cast<AsyncCalls*>(info.Data())->calls_.empty());
  }

  static void onFinished(napi_env env, napi_value, void* context, void* data) {
    if (env == nullptr) return;  // the environment has ended, and cleanUp() has deleted the call
    auto* const calls = static_cast<AsyncCalls*>(context);
    auto* const call = static_cast<AsyncCall*>(data);
    if (call->predecessor_ != nullptr) calls->deliver(call->predecessor_);
    calls->deliver(call);
  }

  void deliver(AsyncCall* ended) {
    const std::unique_ptr<AsyncCall> call(ended);
    napi_remove_env_cleanup_hook(env_, cleanUp, ended);
    calls_.erase(call->number_);
    if (calls_.empty()) napi_unref_threadsafe_function(env_, done_);
    try {
      call->resolveOrReject(env_);
    } catch (const Napi::Error&) {
      // The environment is being torn down: its promises have no listeners any more.
    }
  }

  /// Called once for each call that is not delivered when the environment ends. The environment's memory is freed next,
  /// so this waits until no call works on it.
  static void cleanUp(void* data) {
    const std::unique_ptr<AsyncCall> call(static_cast<AsyncCall*>(data));
    const Shared calls = call->calls_;
    for (const auto& [number, waiting] : std::exchange(calls->calls_, {})) waiting->cancel({});
    {
      std::unique_lock lock(calls->mutex_);
      calls->isOver_ = true;
      waitFor(calls->idle_, lock, [&] { return calls->running_ == 0; });
    }
    const Napi::HandleScope scope(calls->env_);
    call->abandoned();
  }

  const napi_env env_;
  napi_threadsafe_function done_ = nullptr;
  std::unordered_map<int64_t, AsyncCall*> calls_;  // not delivered, by number; only the environment's thread uses it
  std::mutex mutex_;
  std::condition_variable idle_;
  size_t running_ = 0;   // calls that finished() has not handed to the event loop
  bool isOver_ = false;  // the environment has begun to end: no call would be delivered any more
};

int64_t nextCallNumber() {
  static std::atomic<int64_t> last{0};
  return ++last;
}

Napi::Promise AsyncCall::start(Napi::Env env, std::unique_ptr<AsyncCall> call, Napi::Array held, ThreadPool* pool,
                               const Order& order) {
  call->pool_ = pool;
  call->held_ = Napi::Persistent(held);
  for (uint32_t i = 0; i < held.Length(); ++i)
    call->shares_.push_back(shareMemory(held.Get(i).As<Napi::TypedArray>().ArrayBuffer().Data()));
  call->deferred_ = std::make_unique<Napi::Promise::Deferred>(env);
  const Napi::Promise promise = call->deferred_->Promise();
  const AsyncCalls::Shared calls = call->calls_ = AsyncCalls::of(env);
  if (const Status status = calls->start(call, order); !status.ok()) {
    call->deferred_->Resolve(env.Undefined());  // frees the deferred; the promise is not returned
    fail(env, status);
  }
  return promise;
}

bool AsyncCall::continuesAfter(const AsyncCall& run) {
  if (pool_ == nullptr && run.pool_ != nullptr) continuesOn_ = ThreadPool::current();
  return continuesOn_ != nullptr;
}

Status AsyncCall::begin() {
  ThreadPool* const pool = continuesOn_ != nullptr ? continuesOn_ : pool_ != nullptr ? pool_ : &ThreadPool::instance();
  queued_ = pool;
  const bool queued = continuesOn_ != nullptr ? pool->submitFirst(*this) : pool->submit(*this);
  return queued ? Status{} : Status::error("ERR_MEMORY", "no thread can be had");
}

void AsyncCall::end(Status status) {
  const std::shared_ptr<AsyncCalls> calls = calls_;
  status_ = std::move(status);
  calls->finished(this);
}

void AsyncCall::cancel(const Status& status) {
  if (calls_->cancelWaiting(this, status)) return;
  if (ThreadPool* const pool = queued_; pool != nullptr && pool->withdraw(*this)) {
    end(status);
  } else {
    interrupt();
  }
}

void AsyncCall::resolveOrReject(Napi::Env env) {
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
