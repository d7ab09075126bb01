// An engine over the fake model, stepped by the test, with its events read and its invariants
// checked after every step. The parameter: how many steps the model may run behind the host.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/event_log.h"
#include "engine/expected_alone.h"
#include "engine/fake_model.h"

namespace lorax {

using Ints = std::vector<int32_t>;
using Names = std::vector<std::string>;

inline Ints prompt_of(int32_t length, int32_t salt = 0) {
  Ints prompt(length);
  for (int32_t i = 0; i < length; ++i) prompt[i] = (i * 7 + salt) % 97;
  return prompt;
}

inline Request request_of(int32_t id, Ints prompt, int32_t max_output_tokens,
                          int32_t adapter = -1) {
  Request request;
  request.id = id;
  request.prompt = std::move(prompt);
  if (adapter >= 0) request.adapters = {{adapter, 1.0f}};
  request.sampling.max_output_tokens = max_output_tokens;
  request.sampling.seed = static_cast<uint64_t>(id);
  return request;
}

// With a mix of adapters instead of the one it has.
inline Request mixed(Request request, std::vector<AdapterUse> adapters) {
  request.adapters = std::move(adapters);
  return request;
}

inline Request embedding_of(int32_t id, Ints prompt, Pooling pooling = Pooling::kMean,
                            int32_t adapter = -1, bool normalize = false) {
  Request request;
  request.id = id;
  request.prompt = std::move(prompt);
  if (adapter >= 0) request.adapters = {{adapter, 1.0f}};
  request.embedding = {pooling, normalize};
  return request;
}

inline double number(const Failure& failure, const char* key) {
  return std::get<double>(failure.data.at(key));
}

class EngineFixture : public testing::TestWithParam<int32_t> {
 protected:
  EngineFixture() { options_.steps_ahead = GetParam(); }

  // Turns from a step's submission to its events.
  int32_t lag() const { return GetParam(); }

  void make(EngineLimits limits = {}) {
    auto model = std::make_unique<FakeModel>(options_);
    model_ = model.get();
    engine_ = std::make_unique<Engine>(std::move(model), limits, [this] { ++notified_; });
  }

  bool step() {
    ++model_->num_turns;
    const bool worked = engine_->step();
    engine_->check_invariants();
    log_.add(engine_->take_events(), ++turn_);
    return worked;
  }

  void run() {
    int32_t left = 10000;
    while (step()) ASSERT_GT(--left, 0) << "the engine does not come to rest";
  }

  // Also while adapters are read from disk, by other threads.
  void run_with_readings() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (step() || engine_->stats().running + engine_->stats().waiting > 0) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "the engine does not come to rest";
      std::this_thread::yield();
    }
  }

  Request submit(Request request) {
    engine_->submit(request);
    return request;
  }

  void expect_finished(const Request& request, const std::string& adapter = "") {
    expect_finished(request, Names{adapter});
  }

  // `adapters`: the names of its adapters, ascending by handle.
  void expect_finished(const Request& request, const Names& adapters) {
    const Expected expected = expected_alone(request, adapters, options_.limits);
    const RequestLog& log = log_[request.id];
    EXPECT_EQ(log.ending, Ending::kFinished) << log.failure.message;
    EXPECT_EQ(log.reason, expected.reason);
    EXPECT_EQ(log.tokens, expected.tokens);
  }

  void expect_embedded(const Request& request, const std::string& adapter = "") {
    expect_embedded(request, Names{adapter});
  }

  void expect_embedded(const Request& request, const Names& adapters) {
    const RequestLog& log = log_[request.id];
    EXPECT_EQ(log.ending, Ending::kEmbedded) << log.failure.message;
    EXPECT_EQ(log.embedding, embedding_alone(request, adapters, options_.limits))
        << "request " << request.id;
  }

  // Nobody holds a page; what lies in some is cache.
  void expect_all_free() {
    const EngineStats stats = engine_->stats();
    EXPECT_EQ(stats.pages.kv, 0);
    EXPECT_EQ(stats.pages.retiring, 0);
    EXPECT_EQ(stats.pages.free + stats.pages.cold + stats.pages.adapter, stats.pages.total);
    EXPECT_EQ(stats.running, 0);
    EXPECT_EQ(stats.waiting, 0);
  }

  FakeModelOptions options_;
  FakeModel* model_ = nullptr;  // the engine's
  int32_t notified_ = 0;
  std::unique_ptr<Engine> engine_;
  EventLog log_;
  int64_t turn_ = 0;
};

}  // namespace lorax
