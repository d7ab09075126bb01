// Requests that are embedded, on the fake model: alone and in a crowd, in chunks, preempted,
// aborted, refused; each ends once, with the vector it has alone.
#include <cmath>
#include <string>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

constexpr Pooling kPoolings[] = {Pooling::kMean, Pooling::kLast, Pooling::kCls};

TEST(Embedding, IsTheMeanAndHasLengthOneWhenAskedFor) {
  std::vector<float> out;
  EXPECT_TRUE(make_embedding(std::vector<float>{6, 8, 0}, 2, false, &out));
  EXPECT_EQ(out, (std::vector<float>{3, 4, 0}));
  EXPECT_TRUE(make_embedding(std::vector<float>{6, 8, 0}, 2, true, &out));
  EXPECT_EQ(out, (std::vector<float>{0.6f, 0.8f, 0}));
  EXPECT_TRUE(make_embedding(std::vector<float>{0, 0}, 3, true, &out));
  EXPECT_EQ(out, (std::vector<float>{0, 0}));
  EXPECT_TRUE(make_embedding(std::vector<float>{3e38f, 3e38f}, 1, true, &out));
  EXPECT_FLOAT_EQ(out[0], std::sqrt(0.5f)) << "squares do not overflow";
  EXPECT_FALSE(make_embedding(std::vector<float>{1, NAN}, 1, true, &out));
  EXPECT_FALSE(make_embedding(std::vector<float>{1, INFINITY}, 1, false, &out));
}

class EngineEmbeddingTest : public EngineFixture {};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EngineEmbeddingTest, testing::Values(0, 1));

TEST_P(EngineEmbeddingTest, EmbedsOnePrompt) {
  for (const Pooling pooling : kPoolings) {
    for (const bool normalize : {false, true}) {
      for (const int32_t length : {1, 2, 7}) {
        log_.requests.clear();
        turn_ = 0;
        make();
        const Request request = submit(embedding_of(1, prompt_of(length), pooling, -1, normalize));
        run();
        expect_embedded(request);
        EXPECT_EQ(log_[1].started_turn, 1);
        EXPECT_EQ(log_[1].ended_turn, 1 + lag());
        expect_all_free();
        const EngineStats stats = engine_->stats();
        EXPECT_EQ(stats.steps, 1);
        EXPECT_EQ(stats.finished, 1);
        EXPECT_EQ(stats.output_tokens, 0);
        ASSERT_EQ(stats.recent_steps.size(), 1u);
        EXPECT_EQ(stats.recent_steps[0].decode_tokens, 0);
      }
    }
  }
}

TEST_P(EngineEmbeddingTest, TheWholeContextMayBeEmbedded) {
  options_.limits.num_pages = 16;  // 64 positions: none to spare
  make();
  const Request request = submit(embedding_of(1, prompt_of(64)));
  run();
  expect_embedded(request);
  expect_all_free();
}

// A decoder's first token sees nothing behind it.
TEST_P(EngineEmbeddingTest, TheFirstTokenAloneIsComputedForCls) {
  make();
  const Request request = submit(embedding_of(1, prompt_of(40), Pooling::kCls));
  run();
  expect_embedded(request);
  EXPECT_EQ(model_->num_rows, 1);
}

TEST_P(EngineEmbeddingTest, ChunksChangeNothing) {
  for (const Pooling pooling : kPoolings) {
    for (const int32_t budget : {2, 3, 5, 16}) {
      log_.requests.clear();
      make({.max_batch_tokens = budget});
      const Request request = submit(embedding_of(1, prompt_of(21), pooling));
      run();
      expect_embedded(request);
      EXPECT_EQ(model_->num_forwards, pooling == Pooling::kCls ? 1 : (21 + budget - 1) / budget);
    }
  }
}

// One batch of everything: decodes that never wait, prefills in chunks, embeddings with adapters.
TEST_P(EngineEmbeddingTest, SharesStepsWithThoseWhoGenerate) {
  make({.max_batch_tokens = 12, .max_sequences = 6});
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  const Request stream = submit(request_of(1, prompt_of(4), 30));
  step();
  std::vector<Request> requests;
  for (int32_t id = 2; id <= 13; ++id) {
    const bool adapted = id % 2 == 0;
    requests.push_back(
        submit(id % 4 == 3
                   ? request_of(id, prompt_of(9 + id, id), 5, adapted ? a : -1)
                   : embedding_of(id, prompt_of(3 + id, id), kPoolings[id % 3], adapted ? a : -1)));
  }
  run();
  expect_finished(stream);
  for (const Request& request : requests) {
    const std::string adapter = request.adapters.empty() ? "" : "a";
    if (request.embedding) {
      expect_embedded(request, adapter);
    } else {
      expect_finished(request, adapter);
    }
  }
  for (size_t i = 1; i < log_[1].token_turns.size(); ++i) {
    EXPECT_EQ(log_[1].token_turns[i], log_[1].token_turns[i - 1] + 1) << "the stream waited";
  }
  EXPECT_EQ(engine_->stats().output_tokens, 30 + 5 * 3);
  expect_all_free();
}

TEST_P(EngineEmbeddingTest, APreemptedOneStartsAnew) {
  options_.limits.num_pages = 16;
  make({.max_batch_tokens = 4});
  const Request stream = submit(request_of(1, prompt_of(4), 40));
  step();
  const Request mean = submit(embedding_of(2, prompt_of(50, 1)));
  run();
  EXPECT_GT(engine_->stats().preemptions, 0);
  expect_finished(stream);
  expect_embedded(mean);
  EXPECT_GT(model_->num_rows, 4 + 39 + 50) << "some of it was computed twice";
  expect_all_free();
}

TEST_P(EngineEmbeddingTest, CancelsInEveryState) {
  options_.limits.num_pages = 14;
  make({.max_batch_tokens = 8, .max_sequences = 2});
  const Request stream = submit(request_of(1, prompt_of(4), 20));
  submit(embedding_of(2, prompt_of(30)));
  submit(embedding_of(3, prompt_of(30)));
  step();
  ASSERT_TRUE(log_[2].started);
  engine_->cancel(2);  // some of its chunks are computed
  engine_->cancel(3);  // waits
  submit(embedding_of(4, prompt_of(3)));
  engine_->cancel(4);  // never seen by a step
  const Request next = submit(embedding_of(5, prompt_of(5)));
  step();
  for (const int32_t id : {2, 3, 4}) EXPECT_EQ(log_[id].ending, Ending::kAborted) << id;
  run();
  expect_embedded(next);
  expect_finished(stream);
  submit(embedding_of(6, prompt_of(5)));
  step();
  engine_->cancel(6);  // its sum is in flight, or was told
  run();
  EXPECT_EQ(log_[6].ending, lag() == 0 ? Ending::kEmbedded : Ending::kAborted);
  expect_all_free();
}

// A sum in flight is not that of the next request with its id, nor of its slot's next owner.
TEST_P(EngineEmbeddingTest, SumsInFlightStayApart) {
  make({.max_batch_tokens = 8, .max_sequences = 1});
  for (int32_t round = 0; round < 20; ++round) {
    submit(embedding_of(1, prompt_of(8, round)));
    step();
    if (log_[1].ending == Ending::kOpen) engine_->cancel(1);
    while (log_[1].ending == Ending::kOpen) ASSERT_TRUE(step());
    log_.requests.clear();
    const Request again = submit(embedding_of(1, prompt_of(12, 50 + round)));
    run();
    expect_embedded(again);
    log_.requests.clear();
  }
}

TEST_P(EngineEmbeddingTest, RefusesWhatCannotBeEmbedded) {
  options_.limits.num_pages = 8;  // 32 positions of a context of 64
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 4));
  submit(embedding_of(1, {}));
  submit(embedding_of(2, prompt_of(65)));
  submit(embedding_of(3, prompt_of(33)));
  submit(embedding_of(4, prompt_of(17), Pooling::kLast, a));
  submit(embedding_of(5, {3, 97}));
  submit(embedding_of(6, {3}, Pooling::kMean, 77));
  const Request fits = submit(embedding_of(7, prompt_of(32)));
  const Request fits_too = submit(embedding_of(8, prompt_of(16), Pooling::kMean, a));
  run();
  EXPECT_EQ(log_[1].failure.code, "INVALID_OPTIONS");
  EXPECT_EQ(log_[2].failure.code, "CONTEXT_TOO_LONG");
  EXPECT_EQ(log_[2].failure.message,
            "The input has 65 tokens: more than the model's context of 64 tokens.");
  EXPECT_EQ(number(log_[2].failure, "promptTokens"), 65);
  EXPECT_EQ(number(log_[2].failure, "contextTokens"), 64);
  EXPECT_EQ(log_[3].failure.code, "POOL_EXHAUSTED");
  EXPECT_EQ(number(log_[3].failure, "kvPages"), 9);
  EXPECT_EQ(log_[4].failure.code, "POOL_EXHAUSTED");
  EXPECT_EQ(number(log_[4].failure, "adapterPages"), 4);
  EXPECT_EQ(log_[5].failure.code, "INVALID_OPTIONS");
  EXPECT_EQ(log_[6].failure.code, "ADAPTER_NOT_FOUND");
  expect_embedded(fits);
  expect_embedded(fits_too, "a");
}

TEST_P(EngineEmbeddingTest, UnusableStatesEndOnlyTheirRequest) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 3));
  model_->unusable_token = 50;
  submit(embedding_of(1, {1, 50, 2}));
  submit(embedding_of(2, {50}, Pooling::kLast, a));
  const Request sound = submit(embedding_of(3, {1, 50, 2}, Pooling::kLast));
  run();
  EXPECT_EQ(log_[1].failure.code, "MODEL_INVALID");
  EXPECT_EQ(log_[2].failure.code, "ADAPTER_INVALID");
  EXPECT_EQ(number(log_[2].failure, "adapter"), a);
  expect_embedded(sound);
  expect_all_free();
}

TEST_P(EngineEmbeddingTest, StopEndsThemWithDisposed) {
  make({.max_batch_tokens = 8, .max_sequences = 2});
  for (int32_t id = 1; id <= 3; ++id) submit(embedding_of(id, prompt_of(20)));
  step();
  engine_->stop();
  log_.add(engine_->take_events());
  for (int32_t id = 1; id <= 3; ++id) EXPECT_EQ(log_[id].failure.code, "DISPOSED");
  expect_all_free();
}

TEST_P(EngineEmbeddingTest, AModelThatGivesTooFewSumsLosesTheEngine) {
  make();
  model_->on_collect = [](const StepPlan& plan) {
    for (const PooledSpan& pooled : plan.pooled) const_cast<PooledSpan&>(pooled).ends = false;
  };
  submit(embedding_of(1, prompt_of(3)));
  run();
  EXPECT_EQ(log_[1].failure.code, "ENGINE_LOST");
}

}  // namespace
}  // namespace lorax
