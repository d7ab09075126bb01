// Every task once, whatever the threads and their sleep; what tasks wrote is seen after run().
#include "cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
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

TEST(ThreadPool, JoinsAtOnceWhetherSpinningOrAsleep) {
  for (int i = 0; i < 50; ++i) {
    ThreadPool pool(3);
    if (i % 2 == 0) pool.run(5, [](int64_t, int) {});
    if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(3));
  }
}

}  // namespace
}  // namespace lorax::cpu
