// Deadlines on the fake model: who cannot meet one is told at once, who runs ends with what it has,
// nobody else notices. Speeds are the fake's own figures, so nothing here depends on the machine's.
#include <chrono>
#include <thread>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

constexpr int64_t kSecond = 1'000'000'000;  // ns

class EngineDeadlinesTest : public EngineFixture {
 protected:
  EngineDeadlinesTest() {
    options_.limits.num_pages = 200;
    options_.costs.token_ns = 0;  // unless a test says otherwise: nothing is known of its speed
  }

  Request due(Request request, int64_t deadline_ms) {
    request.deadline_ms = deadline_ms;
    return submit(std::move(request));
  }

  static void pass(int64_t milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  }

  void expect_late(int32_t id) {
    EXPECT_EQ(log_[id].ending, Ending::kFailed) << id;
    EXPECT_EQ(log_[id].failure.code, "DEADLINE_EXCEEDED") << log_[id].failure.message;
  }
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineDeadlinesTest, testing::Values(0, 1));

TEST_P(EngineDeadlinesTest, OneThatCannotBeMetIsRefusedAtOnceAndSaysWhenToTryAgain) {
  options_.costs.token_ns = kSecond;
  make({.max_batch_tokens = 16, .max_sequences = 4});
  due(request_of(1, prompt_of(10), 6), 8'000);
  const Request met = due(request_of(2, prompt_of(10, 1), 6), 3'600'000);
  step();
  expect_late(1);
  EXPECT_FALSE(log_[1].started);
  EXPECT_EQ(log_[1].ended_turn, 1) << "in the turn that saw it";
  EXPECT_EQ(number(log_[1].failure, "deadlineMs"), 8'000);
  EXPECT_EQ(number(log_[1].failure, "estimatedMs"), 10'000) << "ten tokens, a second each";
  EXPECT_NEAR(number(log_[1].failure, "retryAfterMs"), 2'000, 500);
  run();
  expect_finished(met);
  expect_all_free();
}

// Whose turn comes first is counted, and nobody else.
TEST_P(EngineDeadlinesTest, WhatIsAheadInTheQueueCounts) {
  options_.costs.token_ns = kSecond;
  make({.max_batch_tokens = 16, .max_sequences = 2});
  for (int32_t id = 1; id <= 20; ++id) {
    Request request = request_of(id, prompt_of(8, id), 6);
    request.tenant = "flood";
    submit(request);
  }
  for (int32_t id = 100; id <= 101; ++id) {
    Request request = request_of(id, prompt_of(8, id), 6);
    request.tenant = id == 100 ? "flood" : "quiet";
    due(request, 60'000);
  }
  step();
  expect_late(100);
  EXPECT_GE(number(log_[100].failure, "estimatedMs"), 20 * 8 * 1000);
  EXPECT_EQ(log_[101].ending, Ending::kOpen) << "it is second in the queue";
  run();
  EXPECT_EQ(log_[101].ending, Ending::kFinished);
}

TEST_P(EngineDeadlinesTest, APromptThatTheCacheHasIsNoWork) {
  options_.costs.token_ns = kSecond;
  make({.max_batch_tokens = 64});
  submit(request_of(1, prompt_of(33), 2));
  run();
  const Request again = due(request_of(2, prompt_of(33), 2), 10'000);
  run();
  expect_finished(again);
  EXPECT_EQ(log_[2].cached_tokens, 32);
  due(request_of(3, prompt_of(33, 5), 2), 10'000);
  run();
  expect_late(3);
}

TEST_P(EngineDeadlinesTest, WithoutMeasurementsNobodyIsRefusedEarly) {
  make({.max_batch_tokens = 16, .max_sequences = 1});
  submit(request_of(1, prompt_of(8), 30));
  const Request request = due(request_of(2, prompt_of(8, 1), 6), 60'000);
  run();
  expect_finished(request);
}

// Those before it take long for their places, whatever their tokens cost.
TEST_P(EngineDeadlinesTest, TheTimeThatPlacesTakeIsMeasured) {
  make({.max_batch_tokens = 16, .max_sequences = 1});
  for (int32_t id = 1; id <= 4; ++id) submit(request_of(id, prompt_of(8, id), 10));
  while (log_[3].ending == Ending::kOpen) {
    pass(3);
    step();
  }
  // About 30 ms for each by now. Twenty before it: 600 ms.
  for (int32_t id = 10; id < 30; ++id) submit(request_of(id, prompt_of(8, id), 2));
  due(request_of(50, prompt_of(8, 50), 2), 200);
  step();
  expect_late(50);
  EXPECT_GT(number(log_[50].failure, "estimatedMs"), 200);
  run();
  EXPECT_EQ(log_[29].ending, Ending::kFinished);
}

TEST_P(EngineDeadlinesTest, OneThatPassesInTheQueueEndsTheWait) {
  make({.max_batch_tokens = 16, .max_sequences = 1});
  const Request first = submit(request_of(1, prompt_of(8), 30));
  due(request_of(2, prompt_of(8, 1), 6), 20);
  const Request last = submit(request_of(3, prompt_of(8, 2), 6));
  step();
  EXPECT_EQ(log_[2].ending, Ending::kOpen);
  pass(21);
  step();
  expect_late(2);
  EXPECT_FALSE(log_[2].started);
  EXPECT_GE(number(log_[2].failure, "waitedMs"), 20);
  EXPECT_EQ(number(log_[2].failure, "outputTokens"), 0);
  run();
  expect_finished(first);
  expect_finished(last);
  expect_all_free();
}

TEST_P(EngineDeadlinesTest, OneThatIsOverAlreadyNeverStarts) {
  make();
  due(request_of(1, prompt_of(8), 6), 0);
  due(request_of(2, prompt_of(8), 6), -5);
  due(embedding_of(3, prompt_of(8)), 0);
  run();
  for (int32_t id = 1; id <= 3; ++id) {
    expect_late(id);
    EXPECT_FALSE(log_[id].started);
  }
  EXPECT_EQ(engine_->stats().steps, 0);
}

TEST_P(EngineDeadlinesTest, WhoRunsEndsWithWhatItHas) {
  make({.max_batch_tokens = 16});
  const Request cut = due(request_of(1, prompt_of(8), 50), 50);
  const Request other = submit(request_of(2, prompt_of(8, 1), 50));
  while (log_[1].tokens.size() < 5) ASSERT_TRUE(step());
  pass(51);
  run();
  const Ints alone = expected_alone(cut, {""}, options_.limits).tokens;
  EXPECT_EQ(log_[1].ending, Ending::kFinished);
  EXPECT_EQ(log_[1].reason, FinishReason::kDeadline);
  ASSERT_LT(log_[1].tokens.size(), alone.size());
  EXPECT_EQ(log_[1].tokens, Ints(alone.begin(), alone.begin() + log_[1].tokens.size()));
  expect_finished(other);
  expect_all_free();
  EXPECT_EQ(engine_->stats().finished, 2);
}

// In the middle of its prompt there is nothing to end with.
TEST_P(EngineDeadlinesTest, APromptThatIsCutFails) {
  make({.max_batch_tokens = 4});
  due(request_of(1, prompt_of(40), 6), 30);
  due(embedding_of(2, prompt_of(40)), 30);
  step();
  pass(31);
  run();
  expect_late(1);
  expect_late(2);
  EXPECT_TRUE(log_[1].started);
  EXPECT_TRUE(log_[1].tokens.empty());
  expect_all_free();
}

TEST_P(EngineDeadlinesTest, AFullQueueSaysWhenToTryAgain) {
  make({.max_batch_tokens = 16, .max_queued = 4, .max_sequences = 1});
  for (int32_t id = 1; id <= 9; ++id) submit(request_of(id, prompt_of(8, id), 6));
  step();
  EXPECT_EQ(log_[9].failure.code, "QUEUE_FULL");
  EXPECT_FALSE(log_[9].failure.data.contains("retryAfterMs")) << "nothing was measured yet";
  for (int32_t i = 0; i < 14; ++i) {
    pass(2);
    step();
  }
  for (int32_t id = 20; id <= 29; ++id) submit(request_of(id, prompt_of(8, id), 6));
  step();
  std::vector<double> retries;
  for (int32_t id = 20; id <= 29; ++id) {
    if (log_[id].failure.code == "QUEUE_FULL") {
      retries.push_back(number(log_[id].failure, "retryAfterMs"));
    }
  }
  ASSERT_GE(retries.size(), 5);
  std::ranges::sort(retries);
  EXPECT_GE(retries.front(), 10) << "one is admitted every six turns or so, of 2 ms";
  for (size_t i = 1; i < retries.size(); ++i) {
    EXPECT_GE(retries[i], retries[i - 1] + 10) << "one after the other";
  }
}

}  // namespace
}  // namespace lorax
