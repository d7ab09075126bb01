// A few threads for what blocks: reading and packing files, compiling grammars.
//
// Jobs begin in the order they were posted; threads start when there is work. Every posted job
// runs, also after stop() was asked for: a job looks whether anybody waits for it still, and ends
// early. Owned by who posts.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace lorax {

class BackgroundJobs {
 public:
  // `yields`: others' threads go first, as far as the system knows how.
  explicit BackgroundJobs(int max_threads, bool yields = false)
      : max_threads_(max_threads), yields_(yields) {}
  ~BackgroundJobs() { stop(); }
  BackgroundJobs(const BackgroundJobs&) = delete;
  BackgroundJobs& operator=(const BackgroundJobs&) = delete;

  // False after stop(). Throws, with nothing posted, when the system has no thread at all to give.
  // A job must not throw.
  bool post(std::function<void()> job);

  // Lets every posted job run, then joins. Not from a job. Idempotent.
  void stop();

 private:
  void work();

  const int max_threads_;
  const bool yields_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::vector<std::thread> threads_;
  int idle_ = 0;
  bool stopping_ = false;
};

}  // namespace lorax
