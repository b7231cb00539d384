#include "cpu/thread_pool.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <system_error>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

namespace score_sde::cpu {
namespace {

constexpr int kMaxThreads = 1024;

/// CPUs of the container's quota (cgroup v2, else v1), rounded up; 0 when there is none.
int cgroupCpus() {
  double quota = 0, period = 0;
  std::string first;
  if (std::ifstream v2("/sys/fs/cgroup/cpu.max"); v2 >> first >> period) {
    if (first == "max") return 0;
    quota = std::atof(first.c_str());
  } else {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) return 0;
  }
  return quota > 0 && period > 0 ? static_cast<int>(std::ceil(quota / period)) : 0;
}

int availableCpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
#endif
  if (const int quota = cgroupCpus(); quota > 0) cpus = std::min(cpus, quota);
  return std::max(cpus, 1);
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
  // Never destroyed: its threads outlive every environment, and the process may exit while they sleep.
  static ThreadPool* const pool = new ThreadPool();
  return *pool;
}

ThreadPool::ThreadPool() : threads_(defaultThreads()) {}

void ThreadPool::setThreads(int count) { threads_.store(std::clamp(count, 1, kMaxThreads), std::memory_order_relaxed); }

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
    employ(job.helpers);  // where no more threads are to be had, those there are and this one do the work
    jobs_.push_back(&job);
  }
  if (job.helpers == 1) {
    wake_.notify_one();
  } else {
    wake_.notify_all();
  }
  job.work(0);
  std::unique_lock lock(mutex_);
  jobs_.remove(&job);
  idle_.wait(lock, [&] { return job.active == 0; });
}

bool ThreadPool::submit(Task& task) {
  std::lock_guard lock(mutex_);
  employ(std::min<int>(threads(), running_ + static_cast<int>(tasks_.size()) + 1));
  if (workers_ == 0) return false;
  tasks_.push_back(&task);
  wake_.notify_one();
  return true;
}

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
  std::unique_lock lock(mutex_);
  for (;;) {
    Job* job = nullptr;
    wake_.wait(lock, [&] { return (job = openJob()) != nullptr || (!tasks_.empty() && running_ < threads()); });
    if (job != nullptr) {  // what is begun comes first
      --job->helpers;
      ++job->active;
      const auto share = static_cast<size_t>(++job->joined);
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
