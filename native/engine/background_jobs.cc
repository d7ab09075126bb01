// One mutex, one condition; jobs run outside of both.
#include "engine/background_jobs.h"

#ifdef __linux__
#include <sys/resource.h>
#include <unistd.h>
#endif

#include <system_error>
#include <utility>

namespace lorax {

bool BackgroundJobs::post(std::function<void()> job) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return false;
    const bool short_of_threads = static_cast<int>(jobs_.size()) >= idle_;
    if (short_of_threads && static_cast<int>(threads_.size()) < max_threads_) {
      try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        if (threads_.empty()) throw;  // else those that there are do it
      }
    }
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
  return true;
}

void BackgroundJobs::stop() {
  std::vector<std::thread> threads;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void BackgroundJobs::work() {
#ifdef __linux__
  // On Linux that is the thread's alone, and of those it starts.
  if (yields_) setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10);
#endif
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    --idle_;
    if (jobs_.empty()) return;
    std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    job = nullptr;  // what it captured goes before the lock is taken again
    lock.lock();
  }
}

}  // namespace lorax
