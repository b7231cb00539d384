// Persistent threads, shared by all JS environments of the process and by all copies of the addon in it. Any number of
// callers can run jobs at once. A caller works on its own job, too, so a job ends even if all workers are busy with
// others.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <type_traits>
#include <vector>

namespace score_sde {

/// Work to submit to a pool. run() may call forRange.
class Task {
 public:
  virtual ~Task() = default;
  virtual void run() = 0;
};

/// A pool is never destroyed: its threads outlive every JS environment, and sleep when the process exits. What other
/// copies of the addon call is virtual, so that the code of the copy that made the pool runs: it alone knows the pool's
/// layout and its thread-local variables.
class ThreadPool {
 public:
  explicit ThreadPool(int threads) : threads_(threads) {}
  virtual ~ThreadPool() = default;

  /// The kernels' pool.
  static ThreadPool& instance();
  /// The pool that the calling thread is a worker of, or null.
  static ThreadPool* current();

  /// Threads that a job may use, with the caller's.
  virtual int threads() const { return threads_.load(std::memory_order_relaxed); }
  virtual void setThreads(int count);
  /// Tasks that have begun and not ended.
  virtual int runningTasks();
  /// SCORE_SDE_NUM_THREADS, else the CPUs that affinity and cgroup quota allow.
  static int defaultThreads();

  /// Calls task(begin, end) over [0, count) in pieces of at most `grain`. One piece runs on the caller's thread.
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

  /// Runs a task on a worker, after the tasks submitted before it have begun. At most threads() tasks run at once.
  /// False if there is no worker and none can be started. The task must live until it has run. A task may submit
  /// another one, as the last thing that it does: then its worker runs that one next, unless others wait.
  virtual bool submit(Task& task);
  /// As submit, before all waiting tasks.
  virtual bool submitFirst(Task& task);
  /// Removes a waiting task. False if a worker has begun it.
  virtual bool withdraw(Task& task);

 private:
  /// A contiguous part of a job. A thread gets the same share of equal jobs, so its data may still be in that thread's
  /// caches.
  struct Share {
    alignas(64) std::atomic<size_t> next;  // start of the next piece
    size_t end;
  };

  struct Job {
    void (*call)(void*, size_t, size_t);
    void* context;
    size_t grain;
    std::vector<Share> shares;
    int openings;                       // workers that may still join
    int joined = 0;                     // workers that have joined
    int active = 0;                     // workers that have joined and not left
    std::atomic<bool> finished{false};  // every piece has been begun
    /// Works on the pieces of share `first`, then on the remaining pieces of other shares.
    void work(size_t first);
  };

  /// current(), in the code of the copy of the addon that made the pool.
  virtual ThreadPool* workersPool() const;
  virtual void run(size_t count, size_t grain, void (*call)(void*, size_t, size_t), void* context);
  /// Wakes a worker for a task that was queued. False, and the task removed, if there are no workers.
  bool wakeFor(const Task& task, std::unique_lock<std::mutex>& lock);
  /// Starts workers until there are `workers`, or until the system allows no more.
  void ensureWorkers(int workers);
  void ensureWorkersForTasks();
  /// Whether a worker may begin a waiting task.
  bool mayBeginTask() const { return !tasks_.empty() && running_ < threads(); }
  void workerLoop();
  Job* jobToJoin();

  std::atomic<int> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::list<Job*> jobs_;
  std::deque<Task*> tasks_;
  int workers_ = 0;
  int running_ = 0;  // tasks that have begun and not ended
};

/// The pools of the process.
struct Pools {
  /// The number of this struct's layout and of the virtual functions of Task and ThreadPool: copies of the addon share
  /// pools where it is the same. The name of the pools in lib/native/addon.ts ends with it.
  static constexpr uint32_t kVersion = 1;

  ThreadPool* kernels;
  /// The threads of network runs. They are not the kernels' threads: a run mostly waits for ONNX Runtime's own threads,
  /// and the kernels must not wait for it. As many as cores, so that no more runs hold memory than can proceed; at
  /// least two, so that one long run does not delay all others.
  ThreadPool* runs;
  /// The threads that load networks. Loading takes seconds, and runs must not wait for it.
  ThreadPool* loads;

  /// Those of the first copy of the addon, where share() has given them before the first call; else this copy's.
  static Pools& ofProcess();
  /// Gives the pools of another copy.
  static void share(Pools& others);
};

}  // namespace score_sde
