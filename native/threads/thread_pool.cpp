#include "threads/thread_pool.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "threads/wait.hpp"

namespace score_sde {
namespace {

constexpr int kMaxThreads = 1024;

/// The pool that this thread is a worker of.
thread_local ThreadPool* ownPool = nullptr;

/// The process's pools, once they are known.
std::atomic<Pools*> inUse{nullptr};

/// The CPUs that one folder of a cgroup hierarchy (v2 or v1) allows; infinity if it sets no quota.
double cgroupQuota(const std::string& folder) {
  double quota = 0, period = 0;
  if (std::ifstream v2(folder + "/cpu.max"); !(v2 >> quota >> period)) {  // "max" is no number
    std::ifstream q(folder + "/cpu.cfs_quota_us"), p(folder + "/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) return HUGE_VAL;
  }
  return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

/// The least quota from this process's cgroup up to the root. A container often sees the root only.
double cgroupCpus() {
  double cpus = HUGE_VAL;
  std::ifstream lines("/proc/self/cgroup");  // id:controllers:/path; v2 has no controllers
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && (',' + controllers + ',').find(",cpu,") == std::string::npos) continue;
    const std::string root = controllers.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    for (std::string path = line.substr(second + 1);; path.erase(path.rfind('/'))) {
      cpus = std::min(cpus, cgroupQuota(root + path));
      if (path.find('/') == std::string::npos) break;
    }
  }
  return cpus;
}

int availableCpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
#endif
  return std::max(static_cast<int>(std::min<double>(cpus, std::ceil(cgroupCpus()))), 1);
}

/// Asks for long time slices, for this thread and those that it starts. The scheduler then lets a waking thread with an
/// ordinary slice, such as an event loop's, preempt them. Their share of CPU time stays the same. Linux 6.12 and later;
/// no effect elsewhere.
void preferLongSlices() {
#if defined(__linux__)
  struct {  // of sched_setattr(2): older C libraries do not declare it
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t slice, deadline, period;  // nanoseconds
  } attributes = {};
  if (sched_getscheduler(0) != SCHED_OTHER) return;
  attributes.size = sizeof attributes;
  attributes.policy = SCHED_OTHER;
  attributes.nice = getpriority(PRIO_PROCESS, 0);
  attributes.slice = 100'000'000;
  syscall(SYS_sched_setattr, 0, &attributes, 0);
#endif
}

}  // namespace

int ThreadPool::defaultThreads() {
  if (const char* text = std::getenv("SCORE_SDE_NUM_THREADS")) {
    char* end = nullptr;
    const long wanted = std::strtol(text, &end, 10);
    if (end != text && *end == '\0' && wanted >= 1 && wanted <= kMaxThreads) return static_cast<int>(wanted);
  }
  return availableCpus();
}

Pools& Pools::ofProcess() {
  if (Pools* const pools = inUse.load(std::memory_order_acquire)) return *pools;
  const int threads = ThreadPool::defaultThreads();
  static auto* const own = new Pools{new ThreadPool(threads), new ThreadPool(std::max(2, threads)), new ThreadPool(2)};
  share(*own);
  return *inUse.load(std::memory_order_acquire);
}

void Pools::share(Pools& others) {
  Pools* none = nullptr;
  inUse.compare_exchange_strong(none, &others, std::memory_order_acq_rel);
}

ThreadPool& ThreadPool::instance() { return *Pools::ofProcess().kernels; }

ThreadPool* ThreadPool::current() { return instance().workersPool(); }

ThreadPool* ThreadPool::workersPool() const { return ownPool; }

int ThreadPool::runningTasks() {
  std::lock_guard lock(mutex_);
  return running_;
}

void ThreadPool::setThreads(int count) {
  std::lock_guard lock(mutex_);
  threads_.store(std::clamp(count, 1, kMaxThreads), std::memory_order_relaxed);
  ensureWorkersForTasks();  // more of the waiting tasks may run now
  wake_.notify_all();
}

void ThreadPool::Job::work(size_t first) {
  for (size_t i = 0; i < shares.size(); ++i) {
    Share& share = shares[(first + i) % shares.size()];
    for (;;) {
      const size_t begin = share.next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= share.end) break;
      call(context, begin, std::min(begin + grain, share.end));
    }
  }
  finished.store(true, std::memory_order_relaxed);
}

ThreadPool::Job* ThreadPool::jobToJoin() {
  for (Job* job : jobs_)
    if (job->openings > 0 && !job->finished.load(std::memory_order_relaxed)) return job;
  return nullptr;
}

void ThreadPool::run(size_t count, size_t grain, void (*call)(void*, size_t, size_t), void* context) {
  const size_t pieces = (count + grain - 1) / grain;
  const size_t parts = std::min<size_t>(pieces, static_cast<size_t>(threads()));
  Job job{call, context, grain, std::vector<Share>(parts), static_cast<int>(parts) - 1};
  for (size_t i = 0; i < parts; ++i) {
    job.shares[i].next.store(pieces * i / parts * grain, std::memory_order_relaxed);
    job.shares[i].end = std::min(pieces * (i + 1) / parts * grain, count);
  }
  {
    std::lock_guard lock(mutex_);
    // If the system allows no more threads, fewer do the work.
    ensureWorkers(job.openings + (ownPool == this ? 1 : 0));
    jobs_.push_back(&job);
  }
  if (parts == 2) {
    wake_.notify_one();
  } else {
    wake_.notify_all();
  }
  job.work(0);
  std::unique_lock lock(mutex_);
  jobs_.remove(&job);
  waitFor(idle_, lock, [&] { return job.active == 0; });
}

bool ThreadPool::submit(Task& task) {
  std::unique_lock lock(mutex_);
  tasks_.push_back(&task);
  return wakeFor(task, lock);
}

bool ThreadPool::submitFirst(Task& task) {
  std::unique_lock lock(mutex_);
  tasks_.push_front(&task);
  return wakeFor(task, lock);
}

bool ThreadPool::wakeFor(const Task& task, std::unique_lock<std::mutex>& lock) {
  if (ownPool == this && tasks_.size() == 1) return true;  // this worker runs it next
  ensureWorkersForTasks();
  if (workers_ == 0) {
    std::erase(tasks_, &task);
    return false;
  }
  lock.unlock();
  wake_.notify_one();
  return true;
}

bool ThreadPool::withdraw(Task& task) {
  std::lock_guard lock(mutex_);
  return std::erase(tasks_, &task) > 0;
}

void ThreadPool::ensureWorkersForTasks() {
  ensureWorkers(std::min<int>(threads(), running_ + static_cast<int>(tasks_.size())));
}

void ThreadPool::ensureWorkers(int workers) {
  try {
    while (workers_ < workers) {
      std::thread([this] { workerLoop(); }).detach();
      ++workers_;
    }
  } catch (const std::system_error&) {
  }
}

void ThreadPool::workerLoop() {
  ownPool = this;
  preferLongSlices();
  std::unique_lock lock(mutex_);
  for (;;) {
    Job* job = nullptr;
    waitFor(wake_, lock, [&] { return (job = jobToJoin()) != nullptr || mayBeginTask(); });
    if (job != nullptr) {  // jobs have begun: they come before tasks
      --job->openings;
      ++job->active;
      const auto share = static_cast<size_t>(++job->joined);
      if (mayBeginTask()) wake_.notify_one();  // the notification that woke this thread may have been for a task
      lock.unlock();
      job->work(share);
      lock.lock();
      if (--job->active == 0) idle_.notify_all();
    } else {
      Task* const task = tasks_.front();
      tasks_.pop_front();
      ++running_;
      lock.unlock();
      task->run();
      lock.lock();
      --running_;
    }
  }
}

}  // namespace score_sde
