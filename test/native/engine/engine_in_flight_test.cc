// What may happen to a sequence while a step that samples it runs: it stops, is cancelled, is
// preempted, the step fails. The fake model notices whatever is given away too early.
#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>
#include <thread>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

class EngineInFlightTest : public EngineFixture {
 protected:
  // A request that stops by a stop token at output `outputs`, which no earlier one is.
  Request stopping_request(int32_t id, int32_t outputs) {
    for (uint64_t seed = 1;; ++seed) {
      Request request = request_of(id, prompt_of(5, id), 30);
      request.sampling.seed = seed;
      const Ints alone = expected_alone(request, {}, options_.limits).tokens;
      const int32_t stop = alone[outputs - 1];
      if (std::find(alone.begin(), alone.end(), stop) - alone.begin() != outputs - 1) continue;
      request.sampling.stop_token_ids = {stop};
      return request;
    }
  }

  int32_t told_decodes() const {
    const std::vector<EngineStats::Step> steps = engine_->stats().recent_steps;
    return std::accumulate(steps.begin(), steps.end(), 0,
                           [](int32_t sum, const auto& step) { return sum + step.decode_tokens; });
  }
};

INSTANTIATE_TEST_SUITE_P(OneAhead, EngineInFlightTest, testing::Values(1));

TEST_P(EngineInFlightTest, AStepIsSubmittedBeforeTheOneBeforeIsCollected) {
  make();
  int64_t least_ahead = 1000;
  model_->on_collect = [&](const StepPlan& plan) {
    if (plan.step < 20) least_ahead = std::min(least_ahead, model_->num_forwards - plan.step);
  };
  const Request request = submit(request_of(1, prompt_of(5), 20));
  run();
  expect_finished(request);
  EXPECT_EQ(least_ahead, 1);
}

TEST_P(EngineInFlightTest, AnEndByLengthIsKnownBeforehand) {
  make();
  const Request shorter = submit(request_of(1, prompt_of(5), 6));
  run();
  expect_finished(shorter);
  EXPECT_EQ(model_->num_rows, 5 + 5) << "nothing is computed past the end";
  const Request one = submit(request_of(2, prompt_of(5, 1), 1));
  run();
  expect_finished(one);
  EXPECT_EQ(model_->num_rows, 10 + 5);
  const Request to_the_end = submit(request_of(3, prompt_of(5, 2), 0));
  run();
  expect_finished(to_the_end);
  EXPECT_EQ(model_->num_rows, 15 + 63) << "the last token of the context is never computed";
}

// Its place is taken while its last token is in flight.
TEST_P(EngineInFlightTest, WhoEndsMakesPlaceAtOnce) {
  make({.max_batch_tokens = 8, .max_sequences = 1});
  const Request first = submit(request_of(1, prompt_of(3), 4));
  const Request second = submit(request_of(2, prompt_of(3), 4));
  run();
  expect_finished(first);
  expect_finished(second);
  EXPECT_EQ(log_[2].started_turn, 5);
  EXPECT_EQ(log_[1].ended_turn, 5);
  EXPECT_EQ(engine_->stats().steps, 8);
}

TEST_P(EngineInFlightTest, WhatFollowsAStopTokenIsDiscarded) {
  make();
  const Request request = submit(stopping_request(1, 4));
  run();
  expect_finished(request);
  EXPECT_EQ(log_[1].tokens.size(), 4u);
  EXPECT_EQ(model_->num_forwards, 5) << "one more was in flight";
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.output_tokens, 4);
  EXPECT_EQ(stats.steps, 5);
  EXPECT_EQ(told_decodes(), 3) << "it is not counted";
  expect_all_free();
}

TEST_P(EngineInFlightTest, PagesOfWhoStoppedRetireWithTheStepThatReadsThem) {
  make();
  const Request request = submit(stopping_request(1, 2));
  const Request other = submit(request_of(2, prompt_of(5), 20));
  while (log_[1].ending == Ending::kOpen) ASSERT_TRUE(step());
  EXPECT_EQ(engine_->stats().pages.retiring, 1);
  EXPECT_EQ(engine_->stats().pages.cold, 1) << "its full block";
  step();
  EXPECT_EQ(engine_->stats().pages.retiring, 0);
  run();
  expect_finished(request);
  expect_finished(other);
}

TEST_P(EngineInFlightTest, ATokenInFlightIsNotThatOfTheNextRequestWithItsId) {
  make();
  const Request first = submit(stopping_request(1, 3));
  const Request other = submit(request_of(2, prompt_of(5), 20));
  while (log_[1].ending == Ending::kOpen) ASSERT_TRUE(step());
  expect_finished(first);
  ASSERT_GT(model_->num_forwards, model_->num_collects) << "a step with request 1 in flight";
  log_.requests.erase(1);
  const Request again = submit(request_of(1, prompt_of(2, 50), 5));
  run();
  expect_finished(again);
  expect_finished(other);
}

TEST_P(EngineInFlightTest, CancelledInFlight) {
  make();
  submit(request_of(1, prompt_of(5), 20));
  const Request other = submit(request_of(2, prompt_of(5, 3), 8));
  submit(request_of(3, prompt_of(5, 4), 1));  // its last token is in flight
  step();
  engine_->cancel(1);
  engine_->cancel(3);
  step();
  EXPECT_EQ(log_[1].ending, Ending::kAborted);
  EXPECT_EQ(log_[3].ending, Ending::kAborted);
  EXPECT_EQ(log_[2].tokens.size(), 1u);
  run();
  expect_finished(other);
  EXPECT_TRUE(log_[1].tokens.empty());
  EXPECT_EQ(engine_->stats().output_tokens, 8);
  expect_all_free();
}

TEST_P(EngineInFlightTest, APreemptedSequenceKeepsItsTokenInFlight) {
  options_.limits.num_pages = 6;
  make();
  const Request oldest = submit(request_of(1, prompt_of(6), 14));
  Request newest = request_of(2, prompt_of(7, 3), 12);
  newest.sampling.repetition_penalty = 1.2f;
  submit(newest);
  while (engine_->stats().preemptions == 0) ASSERT_TRUE(step());
  ASSERT_FALSE(log_[2].token_turns.empty());
  EXPECT_EQ(log_[2].token_turns.back(), turn_) << "the token came with its preemption";
  const size_t kept = log_[2].tokens.size();
  const int64_t rows = model_->num_rows;
  run();
  expect_finished(oldest);
  expect_finished(newest);
  EXPECT_EQ(engine_->stats().output_tokens, 26);
  const int64_t left = static_cast<int64_t>(14 - log_[1].tokens.size());
  EXPECT_GE(model_->num_rows - rows, static_cast<int64_t>(7 + kept) + left)
      << "all of it is computed again";
  expect_all_free();
}

TEST_P(EngineInFlightTest, PenaltiesCountTheTokenThatIsNotKnownYet) {
  options_.limits.vocab_size = 5;  // so that tokens come again
  make();
  int32_t num_unknown = 0;
  model_->on_forward = [&](const StepPlan& plan) {
    for (const SampleRow& row : plan.samples) num_unknown += row.unknown_token >= 0;
  };
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 4; ++id) {
    Request request = request_of(id, {id, 0}, 25);
    if (id == 1) request.sampling.repetition_penalty = 1.3f;
    if (id == 2) request.sampling.frequency_penalty = 0.5f;
    if (id == 3) request.sampling.presence_penalty = -0.5f;
    if (id == 4) request.prompt = {0};
    requests.push_back(submit(request));
  }
  run();
  for (const Request& request : requests) expect_finished(request);
  EXPECT_EQ(num_unknown, 3 * 24) << "of each but the first token, where there is a penalty";
}

TEST_P(EngineInFlightTest, AnAdapterInFlightOutlivesItsEviction) {
  options_.limits.num_pages = 10;
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 5));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 6));
  submit(request_of(1, prompt_of(3), 9, a));
  step();
  engine_->cancel(1);
  const Request other = submit(request_of(2, prompt_of(3), 9, b));
  run();
  expect_finished(other, "b");
  EXPECT_EQ(engine_->stats().adapter_evictions, 1);
  engine_->cancel(2);
  const Request last = submit(request_of(3, prompt_of(3), 9, a));
  step();
  step();
  engine_->remove_adapter(a);
  engine_->cancel(3);
  step();
  EXPECT_EQ(log_[3].ending, Ending::kAborted);
  run();
  EXPECT_EQ(engine_->adapters().size(), 1u);
  const EngineStats::Pages pages = engine_->stats().pages;
  EXPECT_EQ(pages.free + pages.cold + pages.adapter, 10);
}

TEST_P(EngineInFlightTest, AStepThatFailsEndsTheEngineAndTheStepAfterIt) {
  for (const bool all_fail : {false, true}) {
    SCOPED_TRACE(all_fail ? "the step after fails too" : "the step after is sound");
    log_.requests.clear();
    make({.max_batch_tokens = 8, .max_sequences = 2});
    const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
    model_->on_collect = [&](const StepPlan& plan) {
      if (plan.step == 3 || (all_fail && plan.step > 3)) {
        throw Error("ENGINE_LOST", "cudaEventSynchronize failed",
                    {{"call", "cudaEventSynchronize"}, {"recoverable", false}});
      }
    };
    for (int32_t id = 1; id <= 3; ++id) submit(request_of(id, prompt_of(3), 9, id == 1 ? a : -1));
    run();
    EXPECT_EQ(model_->num_forwards, 4);
    EXPECT_EQ(model_->num_collects, 4) << "the step after is waited for";
    for (int32_t id = 1; id <= 3; ++id) {
      EXPECT_EQ(log_[id].failure.code, "ENGINE_LOST");
      EXPECT_EQ(log_[id].tokens.size(), id <= 2 ? 2u : 0u);
      const ErrorData& data = log_[id].failure.data;
      EXPECT_EQ(std::get<bool>(data.at("recoverable")), false);
      EXPECT_EQ(std::get<std::string>(data.at("cause")), "cudaEventSynchronize failed");
      EXPECT_EQ(log_[id].failure.message.find("create a new one"), std::string::npos);
    }
    expect_all_free();
    EXPECT_EQ(engine_->stats().failed, 3);
  }
}

TEST_P(EngineInFlightTest, UnusableLogitsWithTheNextTokenInFlight) {
  make();
  model_->unusable_seed = 2;
  const Request sound = submit(request_of(1, prompt_of(3), 5));
  submit(request_of(2, prompt_of(3), 5));
  run();
  expect_finished(sound);
  EXPECT_EQ(log_[2].failure.code, "MODEL_INVALID");
  EXPECT_TRUE(log_[2].tokens.empty());
  expect_all_free();
}

TEST_P(EngineInFlightTest, StepsTakeTheTimeBetweenTheirEnds) {
  make();
  model_->on_collect = [](const StepPlan&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  };
  submit(request_of(1, prompt_of(3), 10));
  const auto begin = std::chrono::steady_clock::now();
  run();
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(
      std::chrono::steady_clock::now() - begin);
  int64_t told_us = 0;
  for (const EngineStats::Step& step : engine_->stats().recent_steps) {
    EXPECT_GE(step.us, 1900);
    told_us += step.us;
  }
  EXPECT_EQ(engine_->stats().recent_steps.size(), 10u);
  EXPECT_LE(told_us, us.count()) << "no time is counted twice";
}

}  // namespace
}  // namespace lorax
