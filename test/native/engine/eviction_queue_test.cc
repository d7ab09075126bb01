// Which idle items go first: GreedyDual-Size-Frequency step by step, and what steps in flight hold.
#include "engine/eviction_queue.h"

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace lorax {
namespace {

class EvictionQueueTest : public testing::Test {
 protected:
  struct Item final : Evictable {
    Item(EvictionQueueTest& in_test, std::string of, int32_t num_pages)
        : Evictable(in_test.queue_, num_pages), test(in_test), name(std::move(of)) {}
    void evict() noexcept override {
      test.evicted_ += name;
      test.last_steps_.push_back(last_step());
    }
    EvictionQueueTest& test;
    const std::string name;
  };

  // Used so many times, then at rest.
  void use(const std::string& name, int32_t num_pages, int64_t cost_ns, int32_t times = 1,
           int64_t at_least = 0) {
    auto& item = items_[name];
    if (item == nullptr) item = std::make_unique<Item>(*this, name, num_pages);
    for (int32_t i = 0; i < times; ++i) queue_.use(*item);
    queue_.rest(*item, cost_ns, at_least);
    queue_.check_invariants();
  }

  // The names of the next ones to go.
  std::string evict(int32_t count) {
    evicted_.clear();
    for (int32_t i = 0; i < count; ++i) {
      if (!queue_.evict_least()) evicted_ += '-';
    }
    queue_.check_invariants();
    return evicted_;
  }

  PagePool pool_{64};
  EvictionQueue queue_{pool_};
  std::string evicted_;
  std::vector<int64_t> last_steps_;
  std::map<std::string, std::unique_ptr<Item>> items_;
};

TEST_F(EvictionQueueTest, EqualsGoInTheOrderInWhichTheyCameToRest) {
  use("a", 1, 100), use("b", 1, 100), use("c", 1, 100), use("a", 1, 0);
  EXPECT_EQ(queue_.num_ready_pages(), 3);
  EXPECT_EQ(evict(4), "bca-") << "a was used once more";
  EXPECT_EQ(queue_.num_ready_pages(), 0);
}

TEST_F(EvictionQueueTest, WhatIsCheaperToBringBackGoesFirst) {
  use("a", 1, 500), use("b", 1, 300), use("c", 1, 400);
  EXPECT_EQ(evict(3), "bca");
}

TEST_F(EvictionQueueTest, CostIsCountedByThePage) {
  use("a", 4, 1000);  // 250 a page
  use("b", 1, 300);
  use("c", 10, 2400);
  EXPECT_EQ(queue_.num_ready_pages(), 15);
  EXPECT_EQ(evict(1), "c");
  EXPECT_EQ(queue_.num_ready_pages(), 5);
  EXPECT_EQ(evict(2), "ab");
}

TEST_F(EvictionQueueTest, WhatIsUsedOftenStays) {
  use("a", 1, 100, 5), use("b", 1, 300), use("c", 1, 100);
  EXPECT_EQ(evict(3), "cba");
}

// a was used ten times, long ago: each newcomer that goes sets the clock forward, until one that
// was used once is worth as much.
TEST_F(EvictionQueueTest, WhatWasPopularLongAgoGoesToo) {
  use("a", 1, 100, 10);
  int32_t rounds = 0;
  for (; rounds < 100 && items_["a"]->is_idle(); ++rounds) {
    use("b", 1, 100);
    evict(1);
  }
  EXPECT_EQ(rounds, 10);
  EXPECT_EQ(queue_.clock(), 1000);
}

TEST_F(EvictionQueueTest, WhatWasGivenUpStartsAnew) {
  use("a", 1, 100, 10);
  EXPECT_EQ(evict(1), "a");
  EXPECT_EQ(queue_.clock(), 1000);
  use("a", 1, 100), use("b", 1, 101);
  EXPECT_EQ(items_["a"]->priority(), 1100) << "one use";
  EXPECT_EQ(evict(2), "ab");
}

TEST_F(EvictionQueueTest, AnItemInUseIsNotThere) {
  use("a", 2, 100), use("b", 3, 200);
  queue_.use(*items_["a"]);
  EXPECT_FALSE(items_["a"]->is_idle());
  EXPECT_EQ(queue_.num_ready_pages(), 3);
  EXPECT_EQ(evict(2), "b-");
  queue_.rest(*items_["a"], 100);
  EXPECT_EQ(evict(2), "a-");
}

TEST_F(EvictionQueueTest, AnItemThatIsGoneLeavesNothing) {
  use("a", 2, 100), use("b", 3, 200);
  queue_.forget(*items_["b"]);
  items_.erase("a");
  EXPECT_EQ(queue_.num_ready_pages(), 0);
  EXPECT_EQ(evict(1), "-");
}

TEST_F(EvictionQueueTest, NoPriorityFallsBelowWhatItHasToBe) {
  use("behind", 1, 900);
  use("before", 1, 100, 1, items_["behind"]->priority());
  EXPECT_EQ(items_["before"]->priority(), 900);
  use("behind", 1, 900);  // 1800 by now
  queue_.use(*items_["before"]);
  queue_.raise(*items_["before"], items_["behind"]->priority());
  queue_.rest(*items_["before"], 100);
  use("other", 1, 1800);
  EXPECT_EQ(evict(3), "behindbeforeother");
}

// With a step in flight an item is fresh until that is over, and its pages can then be taken at
// once.
TEST_F(EvictionQueueTest, WhatAStepInFlightMayReadWaitsForIt) {
  use("a", 1, 900);
  pool_.submitted(7);
  use("b", 2, 100);
  EXPECT_EQ(queue_.num_ready_pages(), 1);
  EXPECT_EQ(queue_.num_fresh_pages(), 2);
  pool_.submitted(8);
  use("c", 3, 100);
  EXPECT_EQ(evict(2), "a-") << "b is worth less, but read";
  pool_.completed(7);
  queue_.refresh();
  EXPECT_EQ(queue_.num_ready_pages(), 2);
  EXPECT_EQ(queue_.num_fresh_pages(), 3);
  EXPECT_EQ(evict(2), "b-");
  pool_.completed(8);
  queue_.refresh();
  EXPECT_EQ(evict(2), "c-");
  EXPECT_EQ(last_steps_, (std::vector<int64_t>{0, 7, 8}));
}

TEST_F(EvictionQueueTest, ExtremesDoNotOverflow) {
  constexpr int64_t kMost = INT64_MAX;
  for (int32_t round = 0; round < 1000; ++round) {
    const int64_t before = queue_.clock();
    use("a", 1, kMost, 100000), use("b", 1, kMost, 3);
    ASSERT_EQ(evict(2).size(), 2u);
    ASSERT_GE(queue_.clock(), before);
  }
  EXPECT_EQ(queue_.clock(), int64_t{1} << 61);
}

}  // namespace
}  // namespace lorax
