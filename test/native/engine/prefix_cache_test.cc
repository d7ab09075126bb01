// Blocks published, found, held, given up: by their keys, and at random against a list of all that
// was ever computed.
#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>

#include "engine/fake_model.h"

namespace lorax {
namespace {

using Ints = std::vector<int32_t>;
using Adapters = std::vector<AdapterUse>;

constexpr int32_t kBlock = 4;

// 0, 1, 2, ... from `first` on.
Ints tokens_from(int32_t first, int32_t count) {
  Ints tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = first + i;
  return tokens;
}

class PrefixCacheTest : public testing::Test {
 protected:
  struct Sequence {
    Sequence(PrefixCache& cache, Ints of, const Adapters& adapters, const std::string& scope)
        : tokens(std::move(of)), blocks(kBlock), path(cache, scope, adapters) {}
    Ints tokens;
    BlockTable blocks;
    PrefixCache::Path path;
  };
  using SequencePtr = std::unique_ptr<Sequence>;

  // One that begins with what is there and computes the rest.
  SequencePtr run(const Ints& tokens, const Adapters& adapters = {},
                  const std::string& scope = "") {
    auto sequence = std::make_unique<Sequence>(cache_, tokens, adapters, scope);
    cache_.hold(cache_.find(sequence->path, tokens), &sequence->path, &sequence->blocks);
    num_found_ = sequence->path.num_blocks();
    EXPECT_TRUE(sequence->blocks.append(pool_, static_cast<int64_t>(tokens.size())));
    publish(sequence.get(), static_cast<int32_t>(tokens.size()));
    return sequence;
  }

  void publish(Sequence* sequence, int32_t num_computed) {
    cache_.publish(sequence->tokens, num_computed, &sequence->path, &sequence->blocks);
    cache_.check_path(sequence->path, sequence->tokens, sequence->blocks.pages());
  }

  // As an end does: the pages, then the path.
  static void end(SequencePtr sequence) {
    sequence->blocks.truncate(0);
    sequence->path.release();
  }

  // Pages of what would be found.
  Ints find(const Ints& tokens, const Adapters& adapters = {}, const std::string& scope = "") {
    const PrefixCache::Path path(cache_, scope, adapters);
    return cache_.find(path, tokens).pages;
  }

  static Ints pages_of(const SequencePtr& sequence, int32_t count) {
    const auto pages = sequence->blocks.pages().first(count);
    return {pages.begin(), pages.end()};
  }

  FakeModel model_{{.costs = {.page_ns = 10, .token_ns = 10}}};
  PagePool pool_{32};
  EvictionQueue queue_{pool_};
  PrefixCache cache_{model_, pool_, queue_};
  int32_t num_found_ = 0;
};

TEST_F(PrefixCacheTest, FindsFullBlocksAndNeverTheLastToken) {
  const Ints tokens = tokens_from(0, 11);
  const SequencePtr sequence = run(tokens);
  EXPECT_EQ(num_found_, 0);
  EXPECT_EQ(sequence->path.num_blocks(), 2) << "the third block is not full";
  const struct {
    int32_t length, blocks;
  } cases[] = {{1, 0}, {4, 0}, {5, 1}, {8, 1}, {9, 2}, {11, 2}};
  for (const auto& [length, blocks] : cases) {
    EXPECT_EQ(find(tokens_from(0, length)), pages_of(sequence, blocks)) << length;
  }
  EXPECT_EQ(find(tokens_from(0, 30)), pages_of(sequence, 2));
}

TEST_F(PrefixCacheTest, PublishesWhatIsComputed) {
  auto sequence = std::make_unique<Sequence>(cache_, tokens_from(0, 20), Adapters{}, "");
  ASSERT_TRUE(sequence->blocks.append(pool_, 20));
  for (int32_t computed = 0; computed <= 20; ++computed) {
    publish(sequence.get(), computed);
    EXPECT_EQ(sequence->path.num_blocks(), computed / kBlock);
    EXPECT_EQ(find(tokens_from(0, 30)).size(), static_cast<size_t>(computed / kBlock));
  }
}

TEST_F(PrefixCacheTest, TheKeyIsAllThatDecidesTheKv) {
  const Ints tokens = tokens_from(0, 9);
  const SequencePtr mine = run(tokens, {{1, 0.5f}, {3, 2.0f}}, "tenant");
  EXPECT_EQ(find(tokens, {{1, 0.5f}, {3, 2.0f}}, "tenant").size(), 2u);
  EXPECT_TRUE(find(tokens).empty()) << "the base";
  EXPECT_TRUE(find(tokens, {{1, 0.5f}, {3, 2.0f}}).empty()) << "another scope";
  EXPECT_TRUE(find(tokens, {{1, 0.5f}, {3, 2.0f}}, "tenant2").empty());
  EXPECT_TRUE(find(tokens, {{1, 0.5f}}, "tenant").empty());
  EXPECT_TRUE(find(tokens, {{1, 0.5f}, {4, 2.0f}}, "tenant").empty()) << "another adapter";
  EXPECT_TRUE(find(tokens, {{1, 0.5f}, {3, 2.5f}}, "tenant").empty()) << "another weight";
  Ints other = tokens;
  other[2] = 50;
  EXPECT_TRUE(find(other, {{1, 0.5f}, {3, 2.0f}}, "tenant").empty()) << "in the first block";
  other = tokens;
  other[7] = 50;
  EXPECT_EQ(find(other, {{1, 0.5f}, {3, 2.0f}}, "tenant").size(), 1u) << "in the second";
}

TEST_F(PrefixCacheTest, ABlockIsFoundBehindItsOwnPrefixOnly) {
  const SequencePtr first = run({1, 1, 1, 1, 2, 2, 2, 2, 3});
  EXPECT_TRUE(find({2, 2, 2, 2, 3}).empty());
  EXPECT_EQ(find({1, 1, 1, 1, 1, 1, 1, 1, 3}).size(), 1u);
  const SequencePtr second = run({2, 2, 2, 2, 2, 2, 2, 2, 3});
  EXPECT_EQ(num_found_, 0);
  EXPECT_EQ(find({2, 2, 2, 2, 2, 2, 2, 2, 3}), pages_of(second, 2));
}

TEST_F(PrefixCacheTest, SequencesThatBeginAlikeHoldTheSamePages) {
  const SequencePtr first = run(tokens_from(0, 10));
  Ints tokens = tokens_from(0, 10);
  tokens.insert(tokens.end(), {90, 91, 92, 93});
  const SequencePtr second = run(tokens);
  EXPECT_EQ(num_found_, 2);
  EXPECT_EQ(pages_of(first, 2), pages_of(second, 2));
  EXPECT_NE(first->blocks.pages()[2], second->blocks.pages()[2]);
  EXPECT_EQ(pool_.counts().kv, 3 + 2);
}

// Both were under way before either was published.
TEST_F(PrefixCacheTest, WhatTwoComputedAlikeIsKeptOnce) {
  std::vector<SequencePtr> both;
  for (int32_t i = 0; i < 2; ++i) {
    both.push_back(std::make_unique<Sequence>(cache_, tokens_from(0, 10), Adapters{}, ""));
    ASSERT_TRUE(both[i]->blocks.append(pool_, 10));
  }
  EXPECT_EQ(pool_.counts().kv, 6);
  publish(both[0].get(), 8);
  const int32_t own_last = both[1]->blocks.pages()[2];
  publish(both[1].get(), 8);
  EXPECT_EQ(pages_of(both[0], 2), pages_of(both[1], 2));
  EXPECT_EQ(both[1]->blocks.pages()[2], own_last);
  EXPECT_EQ(pool_.counts().kv, 4) << "the others went back";
}

TEST_F(PrefixCacheTest, WhatNobodyHoldsIsColdAndGoesFromTheEnd) {
  SequencePtr sequence = run(tokens_from(0, 13));
  EXPECT_EQ(cache_.num_cold(), 0);
  EXPECT_FALSE(queue_.evict_least()) << "it is in use";
  end(std::move(sequence));
  EXPECT_EQ(cache_.num_cold(), 3);
  EXPECT_EQ(pool_.num_free(), 29);
  for (int32_t left = 2; left >= 0; --left) {
    ASSERT_TRUE(queue_.evict_least());
    EXPECT_EQ(find(tokens_from(0, 13)).size(), static_cast<size_t>(left));
    EXPECT_EQ(cache_.num_blocks(), left);
  }
  EXPECT_EQ(pool_.num_free(), 32);
  EXPECT_EQ(cache_.num_evictions(), 3);
}

TEST_F(PrefixCacheTest, AFoundBlockIsInUseAgain) {
  end(run(tokens_from(0, 13)));
  const SequencePtr again = run(tokens_from(0, 6));
  EXPECT_EQ(num_found_, 1);
  EXPECT_EQ(cache_.num_cold(), 2);
  EXPECT_TRUE(queue_.evict_least());
  EXPECT_TRUE(queue_.evict_least());
  EXPECT_FALSE(queue_.evict_least()) << "the first is held";
  EXPECT_EQ(find(tokens_from(0, 13)).size(), 1u);
}

// A prompt that many begin with outlives what came after it.
TEST_F(PrefixCacheTest, WhatManySharedStaysLongest) {
  for (int32_t i = 0; i < 5; ++i) {
    Ints tokens = tokens_from(0, 8);
    tokens.resize(13, 50 + i);
    end(run(tokens));
    EXPECT_EQ(num_found_, i == 0 ? 0 : 2);
  }
  EXPECT_EQ(cache_.num_blocks(), 2 + 5);
  for (int32_t i = 0; i < 5; ++i) queue_.evict_least();
  EXPECT_EQ(find(tokens_from(0, 9)).size(), 2u);
}

TEST_F(PrefixCacheTest, WithAnAdapterGoesAllThatWasComputedWithIt) {
  const Ints tokens = tokens_from(0, 9);
  end(run(tokens, {{1, 1.0f}}));
  end(run(tokens, {{1, 0.5f}, {2, 0.5f}}, "tenant"));
  end(run(tokens, {{2, 1.0f}}));
  end(run(tokens));
  EXPECT_EQ(cache_.num_cold(), 8);
  cache_.drop(1);
  EXPECT_EQ(cache_.num_cold(), 4);
  EXPECT_EQ(cache_.num_blocks(), 4);
  EXPECT_EQ(pool_.num_free(), 28);
  EXPECT_EQ(queue_.num_ready_pages(), 4);
  EXPECT_TRUE(find(tokens, {{1, 1.0f}}).empty());
  EXPECT_TRUE(find(tokens, {{1, 0.5f}, {2, 0.5f}}, "tenant").empty());
  EXPECT_EQ(find(tokens, {{2, 1.0f}}).size(), 2u);
  EXPECT_EQ(find(tokens).size(), 2u);
}

// Pages that a step in flight may read are given up when it is over, and are free at once then.
TEST_F(PrefixCacheTest, AStepInFlightKeepsItsPages) {
  SequencePtr sequence = run(tokens_from(0, 9));
  pool_.submitted(1);
  end(std::move(sequence));
  EXPECT_EQ(find(tokens_from(0, 9)).size(), 2u) << "it can be found all the same";
  EXPECT_FALSE(queue_.evict_least());
  pool_.completed(1);
  pool_.submitted(2);
  queue_.refresh();
  const int32_t num_free = pool_.num_free();
  EXPECT_TRUE(queue_.evict_least());
  EXPECT_EQ(pool_.num_free(), num_free + 1) << "it does not wait for step 2";
}

// Sequences of few different tokens come, grow, end; pages are taken from what is cold. What is
// found is always what a list of all live blocks says.
TEST_F(PrefixCacheTest, RandomUseKeepsItsInvariants) {
  std::mt19937 random(3);
  const auto below = [&](uint32_t bound) { return static_cast<int32_t>(random() % bound); };
  const std::vector<Adapters> adapters = {{}, {{1, 1.0f}}, {{1, 0.5f}, {2, 0.5f}}};
  struct Running {
    SequencePtr sequence;
    size_t which;
    int32_t num_computed;
  };
  std::vector<Running> running;
  int64_t num_found = 0, num_deduplicated = 0, submitted = 0, completed = 0;
  for (int32_t turn = 0; turn < 30000; ++turn) {
    queue_.refresh();
    if (running.size() < 4 && below(3) == 0) {
      Ints tokens(1 + below(24));
      for (int32_t& token : tokens) token = below(8) == 0;
      const size_t which = random() % adapters.size();
      auto sequence = std::make_unique<Sequence>(cache_, tokens, adapters[which], "");
      cache_.hold(cache_.find(sequence->path, tokens), &sequence->path, &sequence->blocks);
      ASSERT_LT(sequence->path.num_blocks() * kBlock, static_cast<int32_t>(tokens.size()));
      num_found += sequence->path.num_blocks();
      const int32_t missing = blocks_for(tokens.size(), kBlock) - sequence->path.num_blocks();
      while (pool_.num_free() < missing && queue_.evict_least()) {
      }
      const int32_t computed = sequence->path.num_blocks() * kBlock;
      if (sequence->blocks.append(pool_, static_cast<int64_t>(tokens.size()))) {
        running.push_back({std::move(sequence), which, computed});
      }
    } else if (!running.empty()) {
      Running& one = running[random() % running.size()];
      const auto num_tokens = static_cast<int32_t>(one.sequence->tokens.size());
      if (one.num_computed < num_tokens) {
        one.num_computed += 1 + below(num_tokens - one.num_computed);
        const Ints before = pages_of(one.sequence, one.sequence->blocks.num_blocks());
        publish(one.sequence.get(), one.num_computed);
        num_deduplicated += before != pages_of(one.sequence, static_cast<int32_t>(before.size()));
      } else {
        end(std::move(one.sequence));
        std::swap(one, running.back());
        running.pop_back();
      }
    }
    if (below(4) == 0) pool_.submitted(++submitted);
    if (below(4) == 0 && completed < submitted) pool_.completed(completed = submitted);
    if (below(400) == 0) {
      std::erase_if(running, [](const Running& one) { return one.which > 0; });
      cache_.drop(1);
    }

    Ints num_holders(pool_.counts().total, 0), num_holds(pool_.counts().total, 0);
    for (const Running& one : running) {
      const Ints pages = pages_of(one.sequence, one.sequence->blocks.num_blocks());
      for (const int32_t page : pages) ++num_holds[page];
      for (int32_t i = 0; i < one.sequence->path.num_blocks(); ++i) ++num_holders[pages[i]];
      cache_.check_path(one.sequence->path, one.sequence->tokens, pages);
    }
    ASSERT_NO_THROW(cache_.check_invariants(num_holders, &num_holds)) << "turn " << turn;
    ASSERT_NO_THROW(pool_.check_invariants());
    for (int32_t page = 0; page < pool_.counts().total; ++page) {
      ASSERT_EQ(num_holds[page], pool_.num_holds(page)) << "turn " << turn;
    }
    ASSERT_EQ(queue_.num_ready_pages() + queue_.num_fresh_pages(), cache_.num_cold());
  }
  EXPECT_GT(num_found, 5000);
  EXPECT_GT(num_deduplicated, 100);
  EXPECT_GT(cache_.num_evictions(), 1000);
}

}  // namespace
}  // namespace lorax
