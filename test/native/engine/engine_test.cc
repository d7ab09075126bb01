// What the engine does with single requests and small crowds, on the fake model, step by step.
#include <cmath>
#include <string>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

class EngineTest : public EngineFixture {};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineTest, testing::Values(0, 1));

TEST_P(EngineTest, AnswersOneRequest) {
  make();
  const Request request = submit(request_of(1, prompt_of(5), 6));
  run();
  expect_finished(request);
  EXPECT_EQ(log_[1].started_turn, 1);
  EXPECT_EQ(log_[1].token_turns.front(), 1 + lag()) << "the last prefill chunk samples at once";
  EXPECT_EQ(log_[1].ended_turn, 6 + lag());
  expect_all_free();
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.steps, 6);
  EXPECT_EQ(stats.prompt_tokens, 5);
  EXPECT_EQ(stats.output_tokens, 6);
  EXPECT_EQ(stats.finished, 1);
  ASSERT_EQ(stats.recent_steps.size(), 6u);
  EXPECT_EQ(stats.recent_steps[0].prefill_tokens, 5);
  EXPECT_EQ(stats.recent_steps[1].decode_tokens, 1);
  EXPECT_EQ(stats.recent_steps[1].prefill_tokens, 0);
}

TEST_P(EngineTest, DoesNothingWhenIdle) {
  make();
  EXPECT_FALSE(step());
  EXPECT_EQ(model_->num_forwards, 0);
  EXPECT_EQ(notified_, 0);
}

TEST_P(EngineTest, StopTokenIsTheLastReported) {
  make();
  Request request = request_of(1, prompt_of(5), 20);
  const Ints alone = expected_alone(request, {}, options_.limits).tokens;
  request.sampling.stop_token_ids = {alone[3], 96};
  submit(request);
  run();
  expect_finished(request);
  EXPECT_EQ(log_[1].reason, FinishReason::kStopToken);
  EXPECT_LE(log_[1].tokens.size(), 4u);
}

TEST_P(EngineTest, WithoutAMaximumTheContextEndsIt) {
  make();
  const Request request = submit(request_of(1, prompt_of(5), 0));
  run();
  expect_finished(request);
  EXPECT_EQ(log_[1].reason, FinishReason::kContext);
  EXPECT_EQ(log_[1].tokens.size(), 59u);
}

TEST_P(EngineTest, WithoutAMaximumTheFullPoolEndsIt) {
  options_.limits.num_pages = 5;  // 20 positions
  make();
  const Request request = submit(request_of(1, prompt_of(5), 0));
  run();
  EXPECT_EQ(log_[1].ending, Ending::kFinished);
  EXPECT_EQ(log_[1].reason, FinishReason::kPool);
  ASSERT_EQ(log_[1].tokens.size(), 16u) << "20 stored and one that needs no room";
  Ints alone = expected_alone(request, {}, options_.limits).tokens;
  alone.resize(16);
  EXPECT_EQ(log_[1].tokens, alone);
  expect_all_free();
}

TEST_P(EngineTest, PrefillsInChunksBesideDecodes) {
  make({.max_batch_tokens = 8, .max_sequences = 4});
  const Request first = submit(request_of(1, prompt_of(4), 20));
  step();
  const Request second = submit(request_of(2, prompt_of(30, 5), 5));
  run();
  expect_finished(first);
  expect_finished(second);
  // 30 tokens at 7 a step beside the decode: 5 steps; the first stream never waits.
  EXPECT_EQ(log_[2].token_turns.front(), 6 + lag());
  for (size_t i = 1; i < log_[1].token_turns.size(); ++i) {
    EXPECT_EQ(log_[1].token_turns[i], log_[1].token_turns[i - 1] + 1);
  }
  EXPECT_EQ(model_->num_rows, 4 + 19 + 30 + 4) << "nothing is computed twice";
}

TEST_P(EngineTest, FirstTokensAreToldBeforeTheOthersOfTheirStep) {
  make();
  for (int32_t id = 1; id <= 3; ++id) submit(request_of(id, prompt_of(5, id), 10));
  step();
  step();
  submit(request_of(4, prompt_of(5, 4), 10));
  while (log_[4].tokens.empty()) ASSERT_TRUE(step());
  EXPECT_EQ(log_.told, (Ints{4, 1, 2, 3}));
  step();
  EXPECT_EQ(log_.told, (Ints{1, 2, 3, 4}));
  run();
}

TEST_P(EngineTest, PreemptionRecomputesAndEmitsNothingTwice) {
  options_.limits.num_pages = 10;
  make();
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 4; ++id) {
    Request request = request_of(id, prompt_of(6, id), 20);
    request.sampling.repetition_penalty = 1.1f;
    request.sampling.num_logprobs = 2;
    requests.push_back(submit(request));
  }
  run();
  EXPECT_GT(engine_->stats().preemptions, 0);
  for (const Request& request : requests) {
    expect_finished(request);
    EXPECT_EQ(log_[request.id].logprobs.size(), 20u);
  }
  EXPECT_EQ(engine_->stats().output_tokens, 80);
  EXPECT_EQ(engine_->stats().prompt_tokens, 24);
  expect_all_free();
}

TEST_P(EngineTest, ReportsLogprobs) {
  make();
  Request request = request_of(1, prompt_of(3), 3);
  request.sampling.num_logprobs = 2;
  submit(request);
  Request bare = request_of(2, prompt_of(4), 3);
  bare.sampling.num_logprobs = 0;
  submit(bare);
  run();
  expect_finished(request);
  const RequestLog& log = log_[1];
  ASSERT_EQ(log.logprobs.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(log.logprobs[i], -static_cast<float>(log.tokens[i]));
    EXPECT_EQ(log.top_tokens[i], (Ints{log.tokens[i], (log.tokens[i] + 1) % 97}));
    EXPECT_EQ(log.top_logprobs[i], (std::vector<float>{0.0f, -1.0f}));
  }
  EXPECT_EQ(log_[2].logprobs.size(), 3u);
  EXPECT_TRUE(log_[2].top_tokens[0].empty());
}

TEST_P(EngineTest, RefusesWhatCanNeverFitWithTheNumbers) {
  options_.limits.num_pages = 8;  // 32 positions of a context of 64
  make();
  const int32_t adapter = engine_->add_adapter(fake_adapter("a", 4));
  submit(request_of(1, prompt_of(60), 5));
  submit(request_of(2, prompt_of(64), 0));
  submit(request_of(3, prompt_of(30), 4));
  submit(request_of(4, prompt_of(10), 8, adapter));
  submit(request_of(5, prompt_of(33), 0));
  const Request fits = submit(request_of(6, prompt_of(30), 3));
  const Request fits_too = submit(request_of(7, prompt_of(10), 7, adapter));
  run();
  EXPECT_EQ(log_[1].failure.code, "CONTEXT_TOO_LONG");
  EXPECT_EQ(number(log_[1].failure, "promptTokens"), 60);
  EXPECT_EQ(number(log_[1].failure, "maxOutputTokens"), 5);
  EXPECT_EQ(number(log_[1].failure, "contextTokens"), 64);
  EXPECT_NE(log_[1].failure.message.find("64"), std::string::npos);
  EXPECT_EQ(log_[2].failure.code, "CONTEXT_TOO_LONG");
  EXPECT_EQ(log_[2].failure.data.count("maxOutputTokens"), 0u);
  EXPECT_EQ(log_[3].failure.code, "POOL_EXHAUSTED");
  EXPECT_EQ(number(log_[3].failure, "kvPages"), 9);
  EXPECT_EQ(number(log_[3].failure, "poolPages"), 8);
  EXPECT_EQ(log_[4].failure.code, "POOL_EXHAUSTED");
  EXPECT_EQ(number(log_[4].failure, "kvPages"), 5);
  EXPECT_EQ(number(log_[4].failure, "adapterPages"), 4);
  EXPECT_EQ(log_[5].failure.code, "POOL_EXHAUSTED");
  for (int32_t id = 1; id <= 5; ++id) EXPECT_EQ(log_[id].ended_turn, 1) << "refused at once";
  expect_finished(fits);
  expect_finished(fits_too, "a");
  EXPECT_EQ(engine_->stats().failed, 5);
}

TEST_P(EngineTest, ExtremeNumbersAreRefusedNotOverflowed) {
  make();
  submit(request_of(1, prompt_of(60), 2147483647));
  run();
  EXPECT_EQ(log_[1].failure.code, "CONTEXT_TOO_LONG");
}

TEST_P(EngineTest, RefusesMalformedRequests) {
  make();
  submit(request_of(1, {}, 5));
  submit(request_of(2, {3, 97}, 5));
  submit(request_of(3, {3, -1}, 5));
  Request request = request_of(4, {3}, 5);
  request.sampling.temperature = NAN;
  submit(request);
  submit(request_of(5, {3}, 5, 77));
  run();
  for (int32_t id = 1; id <= 4; ++id) EXPECT_EQ(log_[id].failure.code, "INVALID_OPTIONS");
  EXPECT_EQ(number(log_[2].failure, "index"), 1);
  EXPECT_EQ(number(log_[2].failure, "token"), 97);
  EXPECT_EQ(std::get<std::string>(log_[4].failure.data.at("field")), "temperature");
  EXPECT_EQ(log_[5].failure.code, "ADAPTER_NOT_FOUND");
  EXPECT_EQ(number(log_[5].failure, "adapter"), 77);
}

TEST_P(EngineTest, AnIdIsOpenOnce) {
  make();
  submit(request_of(1, prompt_of(3), 2));
  EXPECT_THROW(submit(request_of(1, prompt_of(3), 2)), Error);
  EXPECT_THROW(submit(request_of(0, prompt_of(3), 2)), Error);
  run();
  EXPECT_EQ(log_[1].ending, Ending::kFinished);
  log_.requests.clear();
  const Request again = submit(request_of(1, prompt_of(3), 2));
  run();
  expect_finished(again);
}

TEST_P(EngineTest, AFullQueueRefusesTheNewest) {
  make({.max_batch_tokens = 8, .max_queued = 2, .max_sequences = 2});
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 6; ++id) requests.push_back(submit(request_of(id, prompt_of(3), 4)));
  run();
  for (int32_t id = 1; id <= 4; ++id) expect_finished(requests[id - 1]);
  for (int32_t id = 5; id <= 6; ++id) {
    EXPECT_EQ(log_[id].failure.code, "QUEUE_FULL");
    EXPECT_EQ(number(log_[id].failure, "waiting"), id == 5 ? 2 : 3);
    EXPECT_EQ(number(log_[id].failure, "running"), 2);
    EXPECT_EQ(number(log_[id].failure, "maxQueued"), 2);
  }
}

TEST_P(EngineTest, WithNoQueueWhatRunsAtOnceIsServed) {
  make({.max_queued = 0});
  const Request request = submit(request_of(1, prompt_of(3), 4));
  run();
  expect_finished(request);
}

TEST_P(EngineTest, CancelsInEveryState) {
  options_.limits.num_pages = 11;
  make({.max_batch_tokens = 8, .max_sequences = 3});
  const Request oldest = submit(request_of(1, prompt_of(4), 36));
  const Request other = submit(request_of(2, prompt_of(4, 1), 20));
  submit(request_of(3, prompt_of(20, 2), 3));  // prefills for some steps
  submit(request_of(4, prompt_of(3), 5));      // waits
  step();
  step();
  ASSERT_TRUE(log_[3].started);
  ASSERT_TRUE(log_[3].tokens.empty());
  engine_->cancel(3);   // prefilling
  engine_->cancel(4);   // queued
  engine_->cancel(99);  // unknown
  submit(request_of(5, prompt_of(3), 3));
  engine_->cancel(5);  // never seen by a step
  step();
  EXPECT_EQ(log_[3].ending, Ending::kAborted);
  EXPECT_EQ(log_[4].ending, Ending::kAborted);
  EXPECT_EQ(log_[5].ending, Ending::kAborted);
  while (engine_->stats().preemptions == 0) ASSERT_TRUE(step());
  ASSERT_EQ(log_[2].ending, Ending::kOpen);
  ASSERT_FALSE(log_[2].tokens.empty());
  engine_->cancel(2);  // preempted
  step();
  EXPECT_EQ(log_[2].ending, Ending::kAborted);
  Ints alone = expected_alone(other, {}, options_.limits).tokens;
  alone.resize(log_[2].tokens.size());
  EXPECT_EQ(log_[2].tokens, alone);
  submit(request_of(6, prompt_of(3), 30));
  step();
  engine_->cancel(6);  // decoding
  engine_->cancel(6);
  run();
  EXPECT_EQ(log_[6].ending, Ending::kAborted);
  EXPECT_EQ(log_[6].tokens.size(), lag() == 0 ? 1u : 0u) << "what is in flight is discarded";
  expect_finished(oldest);
  EXPECT_EQ(engine_->stats().aborted, 5);
  expect_all_free();
}

TEST_P(EngineTest, NotifiesOncePerOutboxFull) {
  make();
  submit(request_of(1, prompt_of(3), 5));
  engine_->step();
  EXPECT_EQ(notified_, 1);
  engine_->step();
  engine_->step();
  EXPECT_EQ(notified_, 1) << "what lies there was told already";
  submit(request_of(2, prompt_of(64), 5));
  submit(request_of(3, prompt_of(65), 5));
  engine_->step();
  engine_->submit(request_of(4, {}, 5));
  for (int32_t i = 0; i <= lag(); ++i) engine_->step();
  log_.add(engine_->take_events());  // coalesced, failures numbered across steps
  EXPECT_EQ(log_[1].ending, Ending::kFinished);
  EXPECT_EQ(log_[1].tokens.size(), 5u);
  EXPECT_EQ(number(log_[2].failure, "promptTokens"), 64);
  EXPECT_EQ(number(log_[3].failure, "promptTokens"), 65);
  EXPECT_EQ(log_[4].failure.code, "INVALID_OPTIONS");
  EXPECT_TRUE(engine_->take_events().empty());
  submit(request_of(5, prompt_of(3), 1));
  engine_->step();
  EXPECT_EQ(notified_, 2);
}

TEST_P(EngineTest, AThrowingModelLosesTheEngineLoudly) {
  make({.max_batch_tokens = 8, .max_sequences = 2});
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  submit(request_of(1, prompt_of(3), 9, a));
  submit(request_of(2, prompt_of(3), 9));
  submit(request_of(3, prompt_of(3), 9));  // waits
  step();
  model_->on_forward = [](const StepPlan&) {
    throw Error("MODEL_INVALID", "the disk is gone", {{"file", "x.safetensors"}});
  };
  step();
  EXPECT_EQ(model_->num_forwards, 2);
  for (int32_t id = 1; id <= 3; ++id) {
    EXPECT_EQ(log_[id].failure.code, "ENGINE_LOST");
    EXPECT_EQ(number(log_[id].failure, "step"), 2);
    EXPECT_EQ(std::get<std::string>(log_[id].failure.data.at("cause")), "the disk is gone");
    EXPECT_EQ(std::get<std::string>(log_[id].failure.data.at("causeCode")), "MODEL_INVALID");
    EXPECT_EQ(std::get<std::string>(log_[id].failure.data.at("file")), "x.safetensors");
  }
  EXPECT_EQ(log_[1].tokens.size(), lag() == 0 ? 1u : 0u) << "the step in flight is abandoned";
  submit(request_of(4, prompt_of(3), 9));
  run();
  EXPECT_EQ(log_[4].failure.code, "ENGINE_LOST");
  EXPECT_THROW(engine_->add_adapter(fake_adapter("b", 2)), Error);
  EXPECT_EQ(model_->num_forwards, 2) << "it is not asked again";
  expect_all_free();
  engine_->remove_adapter(a);
  step();
  EXPECT_EQ(engine_->stats().pages.free, 32);
}

TEST_P(EngineTest, UnusableLogitsEndOnlyTheirRequest) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  model_->unusable_seed = 2;
  const Request sound = submit(request_of(1, prompt_of(3), 5));
  submit(request_of(2, prompt_of(3), 5, a));
  run();
  expect_finished(sound);
  EXPECT_EQ(log_[2].failure.code, "ADAPTER_INVALID");
  EXPECT_EQ(number(log_[2].failure, "adapter"), a);
  const int32_t b = engine_->add_adapter(fake_adapter("b", 3));
  Request mix = mixed(request_of(5, prompt_of(3), 5), {{b, 0.5f}, {a, 0.5f}});
  mix.sampling.seed = 2;
  submit(mix);
  run();
  EXPECT_EQ(log_[5].failure.code, "ADAPTER_INVALID");
  EXPECT_EQ(std::get<std::string>(log_[5].failure.data.at("adapters")),
            std::to_string(a) + ", " + std::to_string(b));
  Request base = request_of(3, prompt_of(3), 5);
  base.sampling.seed = 2;
  submit(base);
  const Request later = submit(request_of(4, prompt_of(3), 5, a));
  run();
  EXPECT_EQ(log_[3].failure.code, "MODEL_INVALID");
  expect_finished(later, "a");
}

TEST_P(EngineTest, StopEndsEverythingWithDisposed) {
  make({.max_batch_tokens = 8, .max_sequences = 2});
  for (int32_t id = 1; id <= 3; ++id) submit(request_of(id, prompt_of(3), 9));
  step();
  submit(request_of(4, prompt_of(3), 9));  // not drained by any step
  submit(request_of(5, prompt_of(3), 9));
  engine_->cancel(5);
  engine_->stop();
  engine_->stop();
  log_.add(engine_->take_events());
  for (int32_t id = 1; id <= 5; ++id) EXPECT_EQ(log_[id].failure.code, "DISPOSED");
  EXPECT_EQ(log_[1].tokens.size(), lag() == 0 ? 1u : 0u) << "what is in flight is discarded";
  EXPECT_THROW(submit(request_of(6, prompt_of(3), 9)), Error);
  EXPECT_THROW(engine_->cancel(1), Error);
  EXPECT_THROW(engine_->add_adapter(fake_adapter("a", 2)), Error);
  EXPECT_THROW(engine_->start(), Error);
  EXPECT_FALSE(engine_->step());
  expect_all_free();
}

TEST_P(EngineTest, KeepsTheNewestStepsInOrder) {
  options_.limits = {.vocab_size = 97,
                     .context_tokens = 1000,
                     .num_pages = 300,
                     .page_bytes = 1,
                     .block_tokens = 4};
  make();
  submit(request_of(1, prompt_of(7), 400));
  run();
  submit(request_of(2, prompt_of(9, 1), 3));
  run();
  const EngineStats stats = engine_->stats();
  ASSERT_EQ(stats.recent_steps.size(), 256u);
  EXPECT_EQ(stats.recent_steps[253].prefill_tokens, 9);
  for (int32_t i = 0; i < 256; ++i) {
    if (i != 253) {
      EXPECT_EQ(stats.recent_steps[i].decode_tokens, 1);
    }
  }
  EXPECT_EQ(stats.steps, 403);
}

TEST_P(EngineTest, RefusesItsOwnBadLimits) {
  EXPECT_THROW(make({.max_batch_tokens = 0}), Error);
  EXPECT_THROW(make({.max_queued = -1}), Error);
  EXPECT_THROW(make({.max_sequences = 0}), Error);
}

}  // namespace
}  // namespace lorax
