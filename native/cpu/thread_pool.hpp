// Persistent threads, shared by every JS environment in the process. Any number of callers run jobs at once; each takes
// part in its own, so a job finishes even when all workers are busy elsewhere.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <list>
#include <mutex>
#include <type_traits>
#include <vector>

namespace score_sde::cpu {

/// Work that nobody waits for in place. It may call forRange.
class Task {
 public:
  virtual ~Task() = default;
  virtual void run() = 0;
};

/// A pool is never destroyed: its threads outlive every environment, and the process may exit while they sleep.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) : threads_(threads) {}

  /// That of the kernels.
  static ThreadPool& instance();
  /// That of this thread; null where it is a worker of none.
  static ThreadPool* current();

  /// Threads that a job may use, the caller's included.
  int threads() const { return threads_.load(std::memory_order_relaxed); }
  void setThreads(int count);
  /// Tasks at work.
  int tasks();
  /// What the machine grants this process: affinity, cgroup quota, SCORE_SDE_NUM_THREADS.
  static int defaultThreads();

  /// Calls task(begin, end) over [0, count) in pieces of at most `grain`; on the caller's thread alone when one piece
  /// does.
  template <class Task>
  void forRange(size_t count, size_t grain, Task&& task) {
    if (count <= grain || threads() == 1) {
      if (count > 0) task(size_t{0}, count);
      return;
    }
    using Plain = std::remove_reference_t<Task>;
    run(
        count, grain, [](void* context, size_t begin, size_t end) { (*static_cast<Plain*>(context))(begin, end); },
        &task);
  }

  /// Runs a task on a worker, after those submitted before it have begun; no more of them at once than threads. False
  /// where no thread can be had. The task must live until it has run. A worker's own task submits when its work
  /// is done: where no other waits, the worker goes on with what it has submitted.
  bool submit(Task& task);
  /// The same before all others that wait.
  bool submitFirst(Task& task);
  /// Takes back a task that no worker has begun; false where one has.
  bool withdraw(Task& task);

 private:
  /// A contiguous share of a job, so that a thread finds in its caches what it worked on in the call before.
  struct Share {
    alignas(64) std::atomic<size_t> next;  // start of the next piece
    size_t end;
  };

  struct Job {
    void (*call)(void*, size_t, size_t);
    void* context;
    size_t grain;
    std::vector<Share> shares;
    int helpers;                        // workers that may still join
    int joined = 0;                     // workers that have
    int active = 0;                     // workers at it
    std::atomic<bool> finished{false};  // every piece is taken
    /// Takes the pieces of share `first`, then what is left of the others'.
    void work(size_t first);
  };

  void run(size_t count, size_t grain, void (*call)(void*, size_t, size_t), void* context);
  bool announce(const Task& task, std::unique_lock<std::mutex>& lock);  // that it waits
  void employ(int workers);                                             // at least so many, where they can be had
  void employForTasks();
  /// Whether a task waits that a worker may begin.
  bool mayBegin() const { return !tasks_.empty() && running_ < threads(); }
  void serve();
  Job* openJob();

  std::atomic<int> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::list<Job*> jobs_;
  std::deque<Task*> tasks_;
  int workers_ = 0;
  int running_ = 0;  // tasks
};

}  // namespace score_sde::cpu
