// The engine on its own thread: submissions, cancels and adapters from several threads at once, and
// a stop in the middle. Clean under ThreadSanitizer.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <random>
#include <thread>

#include "engine/engine.h"
#include "engine/event_log.h"
#include "engine/expected_alone.h"
#include "engine/fake_model.h"

namespace lorax {
namespace {

// The sink: told by the engine thread, takes on its own, as the worker does.
class Sink {
 public:
  void notify() {
    {
      const std::lock_guard lock(mutex_);
      told_ = true;
    }
    changed_.notify_one();
  }

  // Takes events until `done` says so or the time is over.
  template <typename Done>
  bool collect(Engine& engine, EventLog* log, Done done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!done(*log)) {
      {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_until(lock, deadline, [&] { return told_; })) return false;
        told_ = false;
      }
      log->add(engine.take_events());
    }
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool told_ = false;
};

int64_t num_ended(const EventLog& log) {
  int64_t count = 0;
  for (const auto& [id, request] : log.requests) count += request.ending != Ending::kOpen;
  return count;
}

Request random_request(std::mt19937& random, int32_t id, int32_t adapter) {
  Request request;
  request.id = id;
  request.prompt.resize(1 + random() % 20);
  for (int32_t& token : request.prompt) token = static_cast<int32_t>(random() % 97);
  if (adapter >= 0) request.adapters = {{adapter, 1.0f}};
  request.sampling.max_output_tokens = 1 + static_cast<int32_t>(random() % 20);
  request.sampling.seed = random();
  return request;
}

// The parameter: steps_ahead.
class EngineThreadsTest : public testing::TestWithParam<int32_t> {
 protected:
  EngineThreadsTest() {
    options_.steps_ahead = GetParam();
    options_.limits.num_pages = 30;
    engine_ = std::make_unique<Engine>(
        std::make_unique<FakeModel>(options_),
        EngineLimits{.max_batch_tokens = 32, .max_queued = 100000, .max_sequences = 8},
        [this] { sink_.notify(); });
  }

  FakeModelOptions options_;
  Sink sink_;
  std::unique_ptr<Engine> engine_;
  EventLog log_;
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineThreadsTest, testing::Values(0, 1));

TEST_P(EngineThreadsTest, ManyThreadsSubmitAndCancel) {
  constexpr int32_t kThreads = 4, kEach = 250;
  engine_->start();
  engine_->start();  // once is enough
  const int32_t shared = engine_->add_adapter(fake_adapter("shared", 3));
  std::vector<std::map<int32_t, Request>> requests(kThreads);
  std::vector<std::map<int32_t, std::vector<std::string>>> names(kThreads);
  std::atomic<bool> done = false;
  std::vector<std::thread> threads;
  for (int32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      std::string own_name = "own" + std::to_string(t);
      int32_t own = engine_->add_adapter(fake_adapter(own_name, 2));
      for (int32_t i = 0; i < kEach; ++i) {
        const int32_t id = 1 + t + i * kThreads;
        const int32_t which = static_cast<int32_t>(random() % 4);
        Request request = random_request(random, id, which == 1 ? shared : which == 2 ? own : -1);
        names[t][id] = {which == 1 ? "shared" : own_name};
        if (which == 3) {
          request.adapters = {{own, 0.5f}, {shared, 1.5f}};  // taken in order of their handles
          names[t][id] = {"shared", own_name};
        }
        requests[t][id] = request;
        engine_->submit(std::move(request));
        if (random() % 4 == 0) {
          engine_->cancel(static_cast<int32_t>(1 + random() % (kThreads * kEach)));
        }
        if (i % 50 == 49) {
          engine_->remove_adapter(own);
          own_name += "'";
          own = engine_->add_adapter(fake_adapter(own_name, 1 + i % 4));
        }
      }
    });
  }
  threads.emplace_back([&] {
    while (!done) {
      const EngineStats stats = engine_->stats();
      EXPECT_EQ(stats.pages.free + stats.pages.kv + stats.pages.cold + stats.pages.adapter +
                    stats.pages.retiring,
                30);
      EXPECT_LE(engine_->adapters().size(), 100u);
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(sink_.collect(*engine_, &log_,
                            [](const EventLog& log) { return num_ended(log) == kThreads * kEach; }))
      << "only " << num_ended(log_) << " requests ended";
  done = true;
  for (std::thread& thread : threads) thread.join();

  int32_t finished = 0;
  for (int32_t t = 0; t < kThreads; ++t) {
    for (const auto& [id, request] : requests[t]) {
      const RequestLog& log = log_[id];
      ASSERT_NE(log.ending, Ending::kFailed) << log.failure.message;
      Request taken = request;
      if (taken.adapters.size() == 2) std::swap(taken.adapters[0], taken.adapters[1]);
      std::vector<int32_t> alone = expected_alone(taken, names[t][id], options_.limits).tokens;
      if (log.ending == Ending::kAborted) {
        alone.resize(log.tokens.size());
      } else {
        ++finished;
      }
      ASSERT_EQ(log.tokens, alone) << "request " << id;
    }
  }
  EXPECT_GT(finished, kThreads * kEach / 2);
  engine_->stop();
  engine_->check_invariants();
  EXPECT_EQ(engine_->stats().pages.kv, 0);
}

TEST_P(EngineThreadsTest, AnIdleEngineSleepsAndWakes) {
  engine_->start();
  std::mt19937 random(1);
  for (int32_t id = 1; id <= 50; ++id) {
    engine_->submit(random_request(random, id, -1));
    ASSERT_TRUE(
        sink_.collect(*engine_, &log_, [&](const EventLog& log) { return num_ended(log) == id; }));
    if (id % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  const int64_t steps = engine_->stats().steps;
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(engine_->stats().steps, steps) << "an idle engine computes nothing";
}

// Stopped while others submit: what was accepted ends exactly once, what was not is thrown.
TEST_P(EngineThreadsTest, StopsMidFlight) {
  engine_->start();
  std::atomic<int64_t> accepted = 0;
  std::vector<std::thread> threads;
  for (int32_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int32_t i = 0;; ++i) {
        const int32_t id = 1 + t + 3 * i;
        try {
          engine_->submit(random_request(random, id, -1));
          ++accepted;
          engine_->cancel(1 + static_cast<int32_t>(random() % static_cast<uint32_t>(id)));
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), "DISPOSED");
          return;
        }
        if (i % 20 == 0) std::this_thread::yield();
      }
    });
  }
  EXPECT_TRUE(
      sink_.collect(*engine_, &log_, [](const EventLog& log) { return num_ended(log) > 100; }));
  std::thread other([&] { engine_->stop(); });
  engine_->stop();
  other.join();
  for (std::thread& thread : threads) thread.join();
  log_.add(engine_->take_events());
  EXPECT_EQ(num_ended(log_), accepted);
  engine_->check_invariants();
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.finished + stats.aborted + stats.failed, accepted);
  EXPECT_EQ(stats.pages.free + stats.pages.cold, 30);
}

TEST(EngineThreads, FiftyEnginesComeAndGo) {
  for (int32_t i = 0; i < 50; ++i) {
    FakeModelOptions options;
    options.steps_ahead = i % 3 == 0 ? 0 : 1;
    Engine engine(std::make_unique<FakeModel>(options), {}, [] {});
    engine.start();
    std::mt19937 random(static_cast<uint32_t>(i));
    for (int32_t id = 1; id <= i % 5; ++id) engine.submit(random_request(random, id, -1));
    if (i % 2 == 0) engine.stop();
  }
}

}  // namespace
}  // namespace lorax
