// Every task once, whatever the threads and their sleep; what tasks wrote is seen after run().
#include "cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace lorax::cpu {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.size(), threads);
    std::vector<int> counts;
    for (int phase = 0; phase < 3000; ++phase) {
      counts.assign(static_cast<size_t>(phase % 37), 0);
      pool.run(static_cast<int64_t>(counts.size()), [&](int64_t i, int thread) {
        ASSERT_GE(thread, 0);
        ASSERT_LT(thread, threads);
        counts[static_cast<size_t>(i)] += 1 + phase;  // plain memory: run() must order it
      });
      for (const int c : counts) ASSERT_EQ(c, 1 + phase);
    }
  }
}

TEST(ThreadPool, WakesSleepingHelpers) {
  ThreadPool pool(4);
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::vector<int64_t> values(64);
    pool.run(64, [&](int64_t i, int) { values[static_cast<size_t>(i)] = i; });
    EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), 64 * 63 / 2);
  }
}

// As long as a helper that the system has put aside keeps its task.
TEST(ThreadPool, SleepsUntilAHelperHasEndedItsTask) {
  ThreadPool pool(3);
  for (int round = 0; round < 20; ++round) {
    std::vector<int> values(3);
    std::atomic<int> begun = 0;
    pool.run(3, [&](int64_t i, int thread) {
      // One task for each thread, and those of the helpers are long.
      ++begun;
      while (begun < 3) std::this_thread::yield();
      if (thread > 0) std::this_thread::sleep_for(std::chrono::milliseconds(2 * thread));
      values[static_cast<size_t>(i)] = round + 1;
    });
    for (const int value : values) EXPECT_EQ(value, round + 1);
  }
}

// Whichever thread it was thrown on; the pool goes on, and nothing of one phase is left in the
// next.
TEST(ThreadPool, ThrowsWhatATaskThrew) {
  for (const int threads : {1, 2, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 200; ++round) {
      const int64_t at_fault = round % 16;
      try {
        pool.run(16, [&](int64_t i, int) {
          if (i == at_fault) throw std::length_error(std::to_string(i));
        });
        FAIL() << "nothing was thrown";
      } catch (const std::length_error& error) {
        EXPECT_EQ(error.what(), std::to_string(at_fault));
      }
      std::atomic<int> count = 0;
      pool.run(16, [&](int64_t, int) { ++count; });
      EXPECT_EQ(count, 16);
    }
  }
}

TEST(ThreadPool, CarriesAnExceptionFromAHelper) {
  ThreadPool pool(2);
  // Both tasks wait for each other, so each has a thread of its own; only the helper's throws.
  std::atomic<int> begun = 0;
  EXPECT_THROW(pool.run(2,
                        [&](int64_t, int thread) {
                          ++begun;
                          while (begun < 2) std::this_thread::yield();
                          if (thread == 1) throw std::bad_alloc();
                        }),
               std::bad_alloc);
}

TEST(ThreadPool, ThrowsOnceWhenEveryTaskThrows) {
  ThreadPool pool(3);
  for (int round = 0; round < 100; ++round) {
    EXPECT_THROW(pool.run(50, [](int64_t, int) { throw std::bad_alloc(); }), std::bad_alloc);
  }
}

TEST(ThreadPool, JoinsAtOnceWhetherSpinningOrAsleep) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(3);
    if (i % 2 == 0) pool.run(5, [](int64_t, int) {});
    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

}  // namespace
}  // namespace lorax::cpu
