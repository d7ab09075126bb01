// Prompts that begin alike, on the fake model: what is computed again and what is not, who shares
// with whom, and what goes when pages are wanted. Every answer is the one its request gets alone.
#include <algorithm>
#include <string>

#include "engine/engine_fixture.h"

namespace lorax {
namespace {

class EnginePrefixTest : public EngineFixture {
 protected:
  // What one request adds to the rows computed, run by itself.
  int64_t rows_of(const Request& request, const Names& adapters = {""}) {
    const int64_t before = model_->num_rows;
    submit(request);
    run();
    expect_finished(request, adapters);
    return model_->num_rows - before;
  }

  Request scoped(Request request, const std::string& scope) {
    request.cache_scope = scope;
    return request;
  }

  Ints whole(int32_t id, Ints prompt) {
    const Ints& tokens = log_[id].tokens;
    prompt.insert(prompt.end(), tokens.begin(), tokens.end());
    return prompt;
  }
};

INSTANTIATE_TEST_SUITE_P(StepsAhead, EnginePrefixTest, testing::Values(0, 1));

TEST_P(EnginePrefixTest, TheSecondRequestComputesTheRest) {
  make();
  EXPECT_EQ(rows_of(request_of(1, prompt_of(20), 4)), 20 + 3);
  EXPECT_EQ(log_[1].cached_tokens, 0);
  EXPECT_EQ(rows_of(request_of(2, prompt_of(20), 4)), 4 + 3) << "its last block is computed";
  EXPECT_EQ(log_[2].cached_tokens, 16);
  Ints longer = prompt_of(20);
  longer.push_back(5);
  EXPECT_EQ(rows_of(request_of(3, longer, 4)), 1 + 3);
  EXPECT_EQ(log_[3].cached_tokens, 20);
  Ints differs = prompt_of(20);
  differs[9] = 96;
  EXPECT_EQ(rows_of(request_of(4, differs, 4)), 12 + 3);
  EXPECT_EQ(log_[4].cached_tokens, 8);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.prompt_tokens, 81);
  EXPECT_EQ(stats.cached_tokens, 16 + 20 + 8);
  EXPECT_EQ(stats.prefix_hits, 3);
  EXPECT_EQ(stats.prefix_misses, 1);
  EXPECT_EQ(stats.prefix_evictions, 0);
  // The first's, and what the last two added; but a block whose last token was in flight when its
  // sequence gave up its pages.
  EXPECT_EQ(stats.pages.cold, 5 + 3 + (lag() == 0 ? 1 : 0));
  expect_all_free();
}

TEST_P(EnginePrefixTest, AnswersAreFoundToo) {
  make();
  EXPECT_EQ(rows_of(request_of(1, prompt_of(10), 14)), 23);
  Ints next = whole(1, prompt_of(10));
  next.insert(next.end(), {1, 2, 3});
  EXPECT_EQ(rows_of(request_of(2, next, 4)), 27 - 20 + 3);
  EXPECT_EQ(log_[2].cached_tokens, 20);
}

// While the first still runs, and before its step is over.
TEST_P(EnginePrefixTest, BlocksAreSharedAsSoonAsTheirStepIsSubmitted) {
  make({.max_batch_tokens = 16});
  const Request first = submit(request_of(1, prompt_of(20), 10));
  step();  // 16 tokens
  const Request second = submit(request_of(2, prompt_of(20), 10));
  step();
  EXPECT_EQ(log_[2].cached_tokens, 16);
  EXPECT_EQ(model_->num_rows, 16 + 4 + 4);
  EXPECT_EQ(model_->num_forwards - model_->num_collects, lag());
  run();
  expect_finished(first);
  expect_finished(second);
  expect_all_free();
}

// A crowd that arrives at once: those that come in one step compute it side by side, then keep it
// once.
TEST_P(EnginePrefixTest, ACrowdSharesWhatItHasComputed) {
  options_.limits.num_pages = 64;
  make({.max_batch_tokens = 64, .max_sequences = 16});
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 12; ++id) {
    Ints prompt = prompt_of(24);
    prompt.push_back(id);
    requests.push_back(submit(request_of(id, prompt, 6)));
  }
  step();
  EXPECT_EQ(engine_->stats().running, 3) << "two and a part of another";
  step();
  EXPECT_EQ(engine_->stats().running, 12);
  EXPECT_EQ(engine_->stats().pages.kv, 6 + 12) << "24 tokens once, and a page of each";
  run();
  for (const Request& request : requests) expect_finished(request);
  EXPECT_EQ(engine_->stats().cached_tokens, 9 * 24);
  expect_all_free();
}

TEST_P(EnginePrefixTest, AdaptersWeightsAndScopesKeepApart) {
  options_.limits.num_pages = 128;
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 2));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 2));
  const Ints prompt = prompt_of(21);
  const auto mix = [&](int32_t id, float weight) {
    return mixed(request_of(id, prompt, 4), {{a, weight}, {b, 1.0f}});
  };
  EXPECT_EQ(rows_of(request_of(1, prompt, 4)), 24);
  EXPECT_EQ(rows_of(request_of(2, prompt, 4, a), {"a"}), 24);
  EXPECT_EQ(rows_of(request_of(3, prompt, 4, b), {"b"}), 24);
  EXPECT_EQ(rows_of(mix(4, 0.5f), {"a", "b"}), 24);
  EXPECT_EQ(rows_of(mix(5, 0.25f), {"a", "b"}), 24);
  EXPECT_EQ(rows_of(scoped(request_of(6, prompt, 4), "x")), 24);
  EXPECT_EQ(rows_of(scoped(request_of(7, prompt, 4, a), "x"), {"a"}), 24);
  for (int32_t id = 1; id <= 7; ++id) EXPECT_EQ(log_[id].cached_tokens, 0) << id;
  EXPECT_EQ(rows_of(request_of(11, prompt, 4)), 4);
  EXPECT_EQ(rows_of(request_of(12, prompt, 4, a), {"a"}), 4);
  EXPECT_EQ(rows_of(mix(14, 0.5f), {"a", "b"}), 4);
  EXPECT_EQ(rows_of(scoped(request_of(17, prompt, 4, a), "x"), {"a"}), 4);
}

TEST_P(EnginePrefixTest, ARemovedAdaptersPrefixesGoWithIt) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 2));
  const Request request = request_of(1, prompt_of(20), 4, a);
  rows_of(request, {"a"});
  submit(request_of(2, prompt_of(20), 12, a));
  step();
  engine_->remove_adapter(a);
  step();
  EXPECT_GT(engine_->stats().pages.kv, 0) << "it drains";
  run();
  expect_finished(request_of(2, prompt_of(20), 12, a), "a");
  EXPECT_EQ(engine_->stats().pages.cold, 0);
  EXPECT_EQ(engine_->stats().pages.free, 32);
  const int32_t again = engine_->add_adapter(fake_adapter("other", 2));
  EXPECT_EQ(rows_of(request_of(3, prompt_of(20), 4, again), {"other"}), 23);
}

TEST_P(EnginePrefixTest, APreemptedSequenceFindsItsOwnBlocks) {
  options_.limits.num_pages = 12;
  make();
  std::vector<Request> requests;
  for (int32_t id = 1; id <= 2; ++id) {
    requests.push_back(submit(request_of(id, prompt_of(14, id), 20)));
  }
  while (engine_->stats().preemptions == 0) ASSERT_TRUE(step());
  run();
  for (const Request& request : requests) {
    expect_finished(request);
    EXPECT_EQ(log_[request.id].cached_tokens, 0) << "none of it when it started";
  }
  EXPECT_EQ(engine_->stats().cached_tokens, 0);
  const int64_t again = model_->num_rows - 2 * (14 + 19);
  EXPECT_GT(again, 0);
  EXPECT_LT(again, 14) << "less than its prompt was computed again";
  expect_all_free();
}

TEST_P(EnginePrefixTest, EmbeddingsNeitherReadNorLeavePrefixes) {
  make();
  const Request embedding = submit(embedding_of(1, prompt_of(20)));
  run();
  expect_embedded(embedding);
  EXPECT_EQ(engine_->stats().pages.cold, 0);
  EXPECT_EQ(rows_of(request_of(2, prompt_of(20), 1)), 20);
  const int64_t before = model_->num_rows;
  const Request again = submit(embedding_of(3, prompt_of(20)));
  run();
  expect_embedded(again);
  EXPECT_EQ(model_->num_rows - before, 20);
  EXPECT_EQ(log_[3].cached_tokens, 0);
  EXPECT_EQ(engine_->stats().prefix_hits, 0);
  EXPECT_EQ(engine_->stats().prefix_misses, 1);
}

// With a pool full of cold prefixes nobody waits for a page, also not for a step in flight.
TEST_P(EnginePrefixTest, AFullCacheSlowsNobodyDown) {
  options_.limits.num_pages = 16;
  make();
  for (int32_t id = 1; id <= 6; ++id) rows_of(request_of(id, prompt_of(21, id), 4));
  ASSERT_LE(engine_->stats().pages.free, 1);
  const Request request = submit(request_of(7, prompt_of(5, 50), 50));
  run();
  expect_finished(request);
  EXPECT_EQ(log_[7].started_turn + lag(), log_[7].token_turns.front());
  for (size_t i = 1; i < log_[7].token_turns.size(); ++i) {
    ASSERT_EQ(log_[7].token_turns[i], log_[7].token_turns[i - 1] + 1) << "token " << i;
  }
  EXPECT_GT(engine_->stats().prefix_evictions, 10);
}

// One page each for one use each: what is cheaper to bring back goes.
TEST_P(EnginePrefixTest, PrefixesAndAdaptersCompeteByWhatTheyCost) {
  for (const bool prefixes_cost_more : {true, false}) {
    SCOPED_TRACE(prefixes_cost_more ? "tokens are dear" : "copies are dear");
    log_.requests.clear();
    options_.limits.num_pages = 12;
    options_.costs = {.page_ns = prefixes_cost_more ? 100 : 100000, .token_ns = 1000};
    make();
    const int32_t a = engine_->add_adapter(fake_adapter("a", 4));
    const int32_t b = engine_->add_adapter(fake_adapter("b", 4));
    rows_of(request_of(1, prompt_of(17), 1));           // 4 blocks
    rows_of(request_of(2, prompt_of(3), 1, a), {"a"});  // and an adapter of 4 pages
    rows_of(request_of(3, prompt_of(3), 1, b), {"b"});  // 4 pages more, and one to run
    const std::vector<AdapterStatus> statuses = engine_->adapters();
    EXPECT_TRUE(statuses[1].resident);
    EXPECT_EQ(statuses[0].resident, !prefixes_cost_more);
    EXPECT_EQ(engine_->stats().pages.cold, prefixes_cost_more ? 4 : 3);
    EXPECT_EQ(engine_->stats().adapter_evictions, prefixes_cost_more ? 1 : 0);
    EXPECT_EQ(engine_->stats().prefix_evictions, prefixes_cost_more ? 0 : 1);
    rows_of(request_of(4, prompt_of(3), 1, b), {"b"});
    EXPECT_EQ(engine_->stats().adapter_hits, 1);
    EXPECT_EQ(engine_->stats().adapter_loads, 2);
  }
}

// What is held by who waits to come is not given up for who comes with it.
TEST_P(EnginePrefixTest, WhatWasFoundIsNotGivenUpForItsFinder) {
  options_.limits.num_pages = 8;
  make();
  rows_of(request_of(1, prompt_of(17), 1));
  EXPECT_EQ(engine_->stats().pages.cold, 4);
  Ints longer = prompt_of(17);
  longer.resize(32, 3);
  EXPECT_EQ(rows_of(request_of(2, longer, 1)), 16) << "all pages: 4 found and 4 taken";
  longer.resize(33, 4);
  submit(request_of(3, longer, 1));
  run();
  EXPECT_EQ(log_[3].failure.code, "POOL_EXHAUSTED");
  EXPECT_EQ(engine_->stats().prefix_evictions, 0);
}

// An answer that is cut by a step in flight leaves no block that holds what nobody was told.
TEST_P(EnginePrefixTest, WhatIsCancelledLeavesWhatItComputed) {
  make();
  submit(request_of(1, prompt_of(16), 30));
  for (int32_t i = 0; i < 6; ++i) step();
  engine_->cancel(1);
  step();
  ASSERT_EQ(log_[1].ending, Ending::kAborted);
  Ints next = whole(1, prompt_of(16));
  next.push_back(7);
  next.push_back(8);
  const int64_t rows = rows_of(request_of(2, next, 3));
  EXPECT_EQ(log_[2].cached_tokens, (static_cast<int32_t>(next.size()) - 2) / 4 * 4);
  EXPECT_EQ(rows, static_cast<int64_t>(next.size()) - log_[2].cached_tokens + 2);
}

// ---- activated LoRA ----

// What lies before the invocation is the base's, whoever computed it.
TEST_P(EnginePrefixTest, WhatComesBeforeAnAdapterIsShared) {
  make();
  const int32_t a = engine_->add_adapter(fake_adapter("a", 1));
  const int32_t b = engine_->add_adapter(fake_adapter("b", 1));
  const auto from = [&](int32_t id, int32_t adapter, int32_t first, int32_t length = 24) {
    return mixed(request_of(id, prompt_of(length), 4), {{adapter, 1.0f, first}});
  };
  EXPECT_EQ(rows_of(request_of(1, prompt_of(24), 4)), 24 + 3);
  EXPECT_EQ(rows_of(from(2, a, 14), {"a"}), 12 + 3) << "three blocks of the base are before it";
  EXPECT_EQ(log_[2].cached_tokens, 12);
  EXPECT_EQ(rows_of(from(3, b, 18), {"b"}), 8 + 3);
  EXPECT_EQ(rows_of(from(4, a, 14), {"a"}), 4 + 3) << "its own blocks follow the base's";
  EXPECT_EQ(rows_of(from(5, a, 13), {"a"}), 12 + 3) << "they begin elsewhere";
  EXPECT_EQ(rows_of(from(6, a, 0), {"a"}), 24 + 3);
  // The other way round: what was computed on the way to an adapter serves the base.
  EXPECT_EQ(rows_of(mixed(request_of(7, prompt_of(24, 50), 4), {{a, 1.0f, 20}}), {"a"}), 24 + 3);
  EXPECT_EQ(rows_of(request_of(8, prompt_of(24, 50), 4)), 4 + 3);
  expect_all_free();
  engine_->remove_adapter(a);
  engine_->remove_adapter(b);
  run();
  EXPECT_EQ(rows_of(request_of(9, prompt_of(24), 4)), 4 + 3) << "the base's blocks stay";
}

}  // namespace
}  // namespace lorax
