// Pages in and out of the pool, with fences, and what a broken caller is told.
#include "memory/page_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>
#include <stdexcept>

#include "memory/block_table.h"

namespace lorax {
namespace {

TEST(PagePool, TakesAllOrNothing) {
  PagePool pool(4);
  const auto three = pool.take(PageKind::kKv, 3);
  ASSERT_TRUE(three);
  EXPECT_EQ(three->size(), 3);
  EXPECT_FALSE(pool.take(PageKind::kAdapter, 2));
  EXPECT_EQ(pool.counts().kv, 3);
  EXPECT_EQ(pool.counts().free, 1);
  EXPECT_TRUE(pool.take(PageKind::kAdapter, 1));
  pool.check_invariants();
}

TEST(PagePool, HandlesGiveBackWhenTheyGo) {
  PagePool pool(4);
  {
    PageRun run = *pool.take(PageKind::kAdapter, 2);
    EXPECT_EQ(pool.use_of(run.pages()[0]), PageKind::kAdapter);
    PageRun moved = std::move(run);
    EXPECT_EQ(run.size(), 0);  // NOLINT: a moved-from run is empty
    EXPECT_EQ(moved.size(), 2);
    moved = *pool.take(PageKind::kAdapter, 1);  // drops the two
    EXPECT_EQ(pool.counts().adapter, 1);
    pool.check_invariants();
  }
  EXPECT_EQ(pool.num_free(), 4);
  pool.check_invariants();
}

TEST(PagePool, DroppedPagesWaitForTheFence) {
  PagePool pool(2);
  PageRun one = *pool.take(PageKind::kKv, 1);
  PageRun two = *pool.take(PageKind::kKv, 1);
  const int32_t first = one.pages()[0];
  pool.submitted(1);
  one.truncate(0);
  EXPECT_EQ(pool.counts().retiring, 1);
  EXPECT_FALSE(pool.use_of(first));
  EXPECT_FALSE(pool.take(PageKind::kKv, 1)) << "a page of a step in flight was reused";
  pool.submitted(2);
  two.truncate(0);
  pool.check_invariants();
  pool.completed(1);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_EQ(pool.take(PageKind::kKv, 1)->pages()[0], first);
  pool.completed(2);
  EXPECT_EQ(pool.counts().retiring, 0);
  pool.check_invariants();
}

TEST(PagePool, WithNothingInFlightPagesAreFreeAtOnce) {
  PagePool pool(1);
  pool.submitted(1);
  PageRun run = *pool.take(PageKind::kKv, 1);
  pool.completed(1);
  run.truncate(0);
  EXPECT_EQ(pool.num_free(), 1);
}

TEST(PagePool, APageGoesBackWithTheLastRunThatHoldsIt) {
  PagePool pool(4);
  PageRun first = *pool.take(PageKind::kKv, 3);
  const int32_t page = first.pages()[1];
  PageRun second = pool.share(first.pages().subspan(1));
  EXPECT_EQ(pool.num_holds(page), 2);
  EXPECT_EQ(pool.counts().kv, 3) << "each is counted once";
  pool.check_invariants();
  first.truncate(0);
  EXPECT_EQ(pool.counts().kv, 2);
  EXPECT_EQ(pool.use_of(page), PageKind::kKv);
  PageRun third = pool.share(second.pages());
  second = PageRun();
  EXPECT_EQ(pool.num_holds(page), 1);
  third.truncate(1);
  EXPECT_EQ(pool.num_free(), 3);
  third.truncate(0);
  EXPECT_EQ(pool.num_free(), 4);
  pool.check_invariants();
}

TEST(PagePool, OnlyPagesOfKvAreShared) {
  PagePool pool(4);
  const PageRun adapter = *pool.take(PageKind::kAdapter, 1);
  EXPECT_THROW(pool.share(adapter.pages()), std::logic_error);
  const std::vector<int32_t> free = {3};
  EXPECT_THROW(pool.share(free), std::logic_error);
  pool.check_invariants();
}

TEST(PagePool, ARunTakesAnothersPageInThePlaceOfItsOwn) {
  PagePool pool(4);
  const PageRun other = *pool.take(PageKind::kKv, 1);
  PageRun run = *pool.take(PageKind::kKv, 2);
  const int32_t last = run.pages()[1];
  run.replace(0, pool.share(other.pages()));
  EXPECT_EQ(run.pages()[0], other.pages()[0]);
  EXPECT_EQ(run.pages()[1], last);
  EXPECT_EQ(pool.num_free(), 2) << "its own went back";
  pool.check_invariants();
}

// Who knows that no later step touches them gets them back at once.
TEST(PagePool, DroppedPagesWaitForTheLastStepThatTouchesThem) {
  PagePool pool(4);
  PageRun one = *pool.take(PageKind::kKv, 1), two = *pool.take(PageKind::kAdapter, 1);
  PageRun three = *pool.take(PageKind::kKv, 1);
  pool.submitted(1);
  pool.submitted(2);
  pool.completed(1);
  one.drop(1);
  EXPECT_EQ(pool.num_free(), 2);
  two.drop(2);
  three.drop(0);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.counts().retiring, 1);
  pool.check_invariants();
  pool.completed(2);
  EXPECT_EQ(pool.num_free(), 4);
  pool.check_invariants();
}

TEST(PagePool, StepsAscend) {
  PagePool pool(1);
  pool.submitted(3);
  EXPECT_THROW(pool.submitted(3), std::logic_error);
  EXPECT_THROW(pool.completed(4), std::logic_error);
}

// Whatever is taken, shared and dropped, in whatever order: a page is in use as long as it is held.
TEST(PagePool, RandomUseKeepsItsInvariants) {
  std::mt19937 random(1);
  PagePool pool(37);
  std::vector<PageRun> runs;
  int64_t submitted = 0, completed = 0;
  for (int i = 0; i < 20000; ++i) {
    switch (random() % 7) {
      case 0:
      case 1: {
        auto taken = pool.take(random() % 2 ? PageKind::kKv : PageKind::kAdapter,
                               static_cast<int32_t>(random() % 7));
        if (taken) runs.push_back(*std::move(taken));
        break;
      }
      case 2:
        if (!runs.empty()) {
          std::swap(runs[random() % runs.size()], runs.back());
          runs.pop_back();
        }
        break;
      case 3:
        if (!runs.empty()) {
          PageRun& run = runs[random() % runs.size()];
          run.truncate(static_cast<int32_t>(random() % (run.size() + 1)));
        }
        break;
      case 4:
        pool.submitted(++submitted);
        break;
      case 5:
        if (completed < submitted) pool.completed(++completed);
        break;
      case 6: {
        if (runs.empty() || runs.size() > 12) break;
        const PageRun& run = runs[random() % runs.size()];
        const auto size = static_cast<int32_t>(random() % (run.size() + 1));
        if (size == 0 || pool.use_of(run.pages()[0]) != PageKind::kKv) break;
        runs.push_back(pool.share(run.pages().first(size)));
        break;
      }
    }
    pool.check_invariants();
    std::map<int32_t, int32_t> owned;
    for (const PageRun& run : runs) {
      for (const int32_t page : run.pages()) {
        ++owned[page];
        ASSERT_TRUE(pool.use_of(page));
      }
    }
    for (const auto& [page, holds] : owned) {
      ASSERT_EQ(pool.num_holds(page), holds) << "page " << page;
    }
    const PagePool::Counts counts = pool.counts();
    ASSERT_EQ(static_cast<int32_t>(owned.size()), counts.kv + counts.adapter);
  }
  runs.clear();
  pool.completed(submitted);
  EXPECT_EQ(pool.num_free(), 37);
}

TEST(BlockTable, GrowsByWholePagesAndShrinks) {
  PagePool pool(3);
  BlockTable table(4);
  EXPECT_TRUE(table.append(pool, 0));
  EXPECT_EQ(table.num_blocks(), 0);
  EXPECT_TRUE(table.append(pool, 1));
  EXPECT_TRUE(table.append(pool, 4));
  EXPECT_EQ(table.num_blocks(), 1);
  EXPECT_TRUE(table.append(pool, 9));
  EXPECT_EQ(table.num_blocks(), 3);
  EXPECT_EQ(table.capacity(), 12);
  const std::vector<int32_t> before(table.pages().begin(), table.pages().end());
  EXPECT_FALSE(table.append(pool, 13));
  EXPECT_EQ(table.num_blocks(), 3);
  table.truncate(5);
  EXPECT_EQ(table.num_blocks(), 2);
  EXPECT_EQ(pool.num_free(), 1);
  EXPECT_TRUE(std::equal(table.pages().begin(), table.pages().end(), before.begin()));
  table.truncate(100);  // never grows
  EXPECT_EQ(table.num_blocks(), 2);
  table.truncate(0);
  EXPECT_EQ(pool.num_free(), 3);
  pool.check_invariants();
}

TEST(BlockTable, CountsBlocksInSixtyFourBits) {
  EXPECT_EQ(blocks_for(0, 16), 0);
  EXPECT_EQ(blocks_for(16, 16), 1);
  EXPECT_EQ(blocks_for(17, 16), 2);
  EXPECT_EQ(blocks_for(2147483647LL + 16, 16), 134217729);
}

}  // namespace
}  // namespace lorax
