// See thread_pool.h.
#include "cpu/thread_pool.h"

#include <cassert>
#include <system_error>
#include <utility>

namespace lorax::cpu {
namespace {

// Iterations of a waiting loop; a pause is 10 to 50 ns.
constexpr int kSpins = 2000;  // then yield: the other threads of this process share the cores
constexpr int kYields = 200;  // then sleep
constexpr uint64_t kNext = 0xffffffffu;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

bool has_task(uint64_t ticket) { return (ticket & kNext) < (ticket >> 32); }

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) helpers_.emplace_back([this, i] { help(i); });
  } catch (const std::system_error&) {
    // The system gives no more threads: go on with those there are.
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ThreadPool::run_erased(int64_t count, void* context, Function function) {
  assert(count < (int64_t{1} << 31));
  if (count <= 0) return;
  if (count == 1 || helpers_.empty()) {
    for (int64_t i = 0; i < count; ++i) function(context, i, 0);
    return;
  }
  function_ = function;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  // Sequentially consistent with the sleeper's count and its second look: one of the two sees the
  // other.
  ticket_.store(static_cast<uint64_t>(count) << 32);
  if (sleepers_.load() > 0) {
    {
      std::lock_guard lock(mutex_);
    }
    wake_.notify_all();
  }
  while (run_one(0)) {
  }
  for (int spins = 0; done_.load(std::memory_order_acquire) != count; ++spins) {
    if (spins < kSpins) {
      pause();
      continue;
    }
    // Whoever has the last task was put aside in the middle of it: this core is free for others.
    std::unique_lock lock(mutex_);
    caller_sleeps_.store(true);
    ended_.wait(lock, [&] { return done_.load() == count; });
    caller_sleeps_.store(false);
  }
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(error_, nullptr));
  }
}

void ThreadPool::call(int64_t index, int thread) {
  try {
    function_(context_, index, thread);
  } catch (...) {
    // done_ hands it over, as all that tasks write.
    if (!failed_.exchange(true, std::memory_order_relaxed)) error_ = std::current_exception();
  }
}

bool ThreadPool::run_one(int thread) {
  if (!has_task(ticket_.load(std::memory_order_acquire))) return false;
  const uint64_t ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
  if (!has_task(ticket)) return false;
  call(static_cast<int64_t>(ticket & kNext), thread);
  // Sequentially consistent with the caller's flag and its second look, as with the sleepers above.
  const bool last = done_.fetch_add(1) + 1 == static_cast<int64_t>(ticket >> 32);
  if (last && caller_sleeps_.load()) {
    {
      std::lock_guard lock(mutex_);
    }
    ended_.notify_one();
  }
  return true;
}

void ThreadPool::help(int thread) {
  int idle = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    if (run_one(thread)) {
      idle = 0;
    } else if (idle < kSpins) {
      ++idle;
      pause();
    } else if (idle < kSpins + kYields) {
      ++idle;
      std::this_thread::yield();
    } else {
      std::unique_lock lock(mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return stop_.load() || has_task(ticket_.load()); });
      sleepers_.fetch_sub(1);
      idle = 0;
    }
  }
}

}  // namespace lorax::cpu
