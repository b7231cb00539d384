#include "cpu/thread_pool.hpp"

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

#include "cpu/wait.hpp"

namespace score_sde::cpu {
namespace {

constexpr int kMaxThreads = 1024;

/// The pool that a thread is a worker of.
thread_local ThreadPool* home = nullptr;

/// CPUs that one folder of a cgroup hierarchy (v2 or v1) allows; infinite where it sets no quota.
double cgroupQuota(const std::string& folder) {
  double quota = 0, period = 0;
  if (std::ifstream v2(folder + "/cpu.max"); !(v2 >> quota >> period)) {  // "max" is no number
    std::ifstream q(folder + "/cpu.cfs_quota_us"), p(folder + "/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) return HUGE_VAL;
  }
  return quota > 0 && period > 0 ? quota / period : HUGE_VAL;
}

/// The least quota from this process's own cgroup up to the root of what it sees: in a container, often the root alone.
double cgroupCpus() {
  double cpus = HUGE_VAL;
  std::ifstream lines("/proc/self/cgroup");  // id:controllers:/path, no controllers in v2
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

/// Asks the scheduler for the longest time slices, for this thread and those that it starts: a thread that wakes with
/// an ordinary one, an event loop, then goes first, and no share of the processor is lost. Since Linux 6.12; elsewhere
/// nothing changes, and nothing depends on it.
void preferLongSlices() {
#if defined(__linux__)
  struct {  // sched_setattr(2), whose wrapper younger C libraries have
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

ThreadPool& ThreadPool::instance() {
  static ThreadPool* const pool = new ThreadPool(defaultThreads());
  return *pool;
}

ThreadPool* ThreadPool::current() { return home; }

int ThreadPool::tasks() {
  std::lock_guard lock(mutex_);
  return running_;
}

void ThreadPool::setThreads(int count) {
  std::lock_guard lock(mutex_);
  threads_.store(std::clamp(count, 1, kMaxThreads), std::memory_order_relaxed);
  employForTasks();  // more of those that wait may run now
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

ThreadPool::Job* ThreadPool::openJob() {
  for (Job* job : jobs_)
    if (job->helpers > 0 && !job->finished.load(std::memory_order_relaxed)) return job;
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
    // Where no more threads are to be had, those there are and this one do the work.
    employ(job.helpers + (home == this ? 1 : 0));
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
  return announce(task, lock);
}

bool ThreadPool::submitFirst(Task& task) {
  std::unique_lock lock(mutex_);
  tasks_.push_front(&task);
  return announce(task, lock);
}

bool ThreadPool::announce(const Task& task, std::unique_lock<std::mutex>& lock) {
  if (home == this && tasks_.size() == 1) return true;  // this thread goes on with it
  employForTasks();
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

void ThreadPool::employForTasks() { employ(std::min<int>(threads(), running_ + static_cast<int>(tasks_.size()))); }

void ThreadPool::employ(int workers) {
  try {
    while (workers_ < workers) {
      std::thread([this] { serve(); }).detach();
      ++workers_;
    }
  } catch (const std::system_error&) {
  }
}

void ThreadPool::serve() {
  home = this;
  preferLongSlices();
  std::unique_lock lock(mutex_);
  for (;;) {
    Job* job = nullptr;
    waitFor(wake_, lock, [&] { return (job = openJob()) != nullptr || mayBegin(); });
    if (job != nullptr) {  // what is begun comes first
      --job->helpers;
      ++job->active;
      const auto share = static_cast<size_t>(++job->joined);
      if (mayBegin()) wake_.notify_one();  // this thread may have been woken for a task
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

}  // namespace score_sde::cpu
