// The threads of the CPU backend: helpers beside the calling thread.
//
// A phase is a number of independent tasks, handed out one by one by an atomic counter. A phase
// ends when its tasks have ended, not when every helper has looked in: a helper that the operating
// system has put aside holds nobody up unless it is in the middle of a task. Who waits for that one
// spins for a moment, then sleeps: the core is free for whatever took the helper's. Between phases
// helpers spin for a moment, then yield, then sleep. One thread calls run() at a time; what a task
// throws, on whichever thread, run() throws once the phase has ended.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace lorax::cpu {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(helpers_.size()) + 1; }

  // task(index, thread) for index in [0, count), thread in [0, size()); returns when all are done.
  // Rethrows the first exception of a task; which of the others have run is not said then.
  template <typename Task>
  void run(int64_t count, Task&& task) {
    using Plain = std::remove_reference_t<Task>;
    run_erased(count, const_cast<void*>(static_cast<const void*>(&task)),
               [](void* context, int64_t index, int thread) {
                 (*static_cast<Plain*>(context))(index, thread);
               });
  }

 private:
  using Function = void (*)(void* context, int64_t index, int thread);

  void run_erased(int64_t count, void* context, Function function);
  bool run_one(int thread);  // false when no task is left
  void call(int64_t index, int thread);
  void help(int thread);

  // count << 32 | next. One word, so that whoever increments it learns which phase it took from.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> done_{0};
  // Written before ticket_ is released, read only by holders of a task that is not done yet.
  alignas(64) Function function_ = nullptr;
  void* context_ = nullptr;
  // Of this phase; error_ belongs to whoever sets failed_ first, then to the caller of run().
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;

  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> caller_sleeps_{false};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;   // helpers: there is work, or stop_
  std::condition_variable ended_;  // the caller of run(): its phase has ended
  std::vector<std::thread> helpers_;
};

}  // namespace lorax::cpu
