// Whose turn it is: lines, counters, lifts and debts by hand, then bounds on random traffic.
#include "engine/fair_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>

namespace lorax {
namespace {

class FairQueueTest : public testing::Test {
 protected:
  static constexpr int32_t kStepTokens = 2048;

  struct Request : Ticket {
    std::string tenant_name;
    int32_t id;
  };

  Request& add(const std::string& tenant, int32_t num_tokens, float weight = 1.0f,
               int32_t priority = 0) {
    requests_.push_back(std::make_unique<Request>());
    Request& request = *requests_.back();
    request.tenant_name = tenant;
    request.id = ++last_id_;
    request.arrival = last_id_;
    request.priority = priority;
    request.weight = weight;
    request.num_new_tokens = num_tokens;
    queue_.add({tenant, {}}, request);
    queue_.check_invariants();
    return request;
  }

  // Tenants in the order of the next turns, not taken.
  std::string order() const {
    FairQueue::Order order = queue_.order();
    std::string names;
    while (const Ticket* ticket = order.next()) {
      names += static_cast<const Request&>(*ticket).tenant_name;
    }
    return names;
  }

  Request* take() {
    auto* request = static_cast<Request*>(queue_.order().next());
    if (request == nullptr) return nullptr;
    queue_.take_turn(*request);
    queue_.check_invariants();
    return request;
  }

  std::string take(int32_t count) {
    std::string names;
    for (int32_t i = 0; i < count; ++i) names += take()->tenant_name;
    return names;
  }

  FairQueue queue_;
  std::vector<std::unique_ptr<Request>> requests_;
  int32_t last_id_ = 0;
};

TEST_F(FairQueueTest, OneTenantIsServedInOrderOfArrival) {
  for (int32_t i = 0; i < 4; ++i) add("a", 10 * (4 - i));
  for (int32_t id = 1; id <= 4; ++id) EXPECT_EQ(take()->id, id);
  EXPECT_EQ(take(), nullptr);
}

TEST_F(FairQueueTest, TheLowestCounterIsNext) {
  for (int32_t i = 0; i < 4; ++i) add("a", 10);
  for (int32_t i = 0; i < 4; ++i) add("b", 20);
  EXPECT_EQ(order(), "abaababb") << "a at 20 is older than b at 20";
  EXPECT_EQ(take(8), "abaababb");
}

TEST_F(FairQueueTest, WeightsShare) {
  for (int32_t i = 0; i < 12; ++i) add("a", 10, 3.0f);
  for (int32_t i = 0; i < 12; ++i) add("b", 10, 1.0f);
  const std::string first = take(12);
  EXPECT_EQ(std::ranges::count(first, 'a'), 9);
}

TEST_F(FairQueueTest, WhatIsComputedLaterCountsToo) {
  Request& running = add("a", 10);
  add("b", 10);
  EXPECT_EQ(take(2), "ab");
  add("a", 10), add("b", 10), add("b", 10);
  EXPECT_EQ(order(), "abb");
  queue_.charge(running, 15);
  EXPECT_EQ(order(), "bba");
}

// b was away while a was served; it is next, but does not make up for it.
TEST_F(FairQueueTest, WhoComesBackSavedNothingUp) {
  Request& before = add("b", 10);
  EXPECT_EQ(take(1), "b");
  queue_.close(before);
  for (int32_t i = 0; i < 30; ++i) add("a", 10);
  take(20);
  for (int32_t i = 0; i < 5; ++i) add("b", 10);
  EXPECT_EQ(take(6), "bababa");
}

TEST_F(FairQueueTest, DebtsStayWhileOthersAreServed) {
  Request& greedy = add("a", 10);
  add("b", 10);
  take(2);
  queue_.charge(greedy, 90);
  queue_.close(greedy);
  for (int32_t i = 0; i < 12; ++i) add("b", 10);
  add("a", 10);
  EXPECT_EQ(take(11), "bbbbbbbbbba") << "until b has had more";
}

TEST_F(FairQueueTest, AndAreForgottenWhenNobodyIsThere) {
  Request& greedy = add("a", 1000);
  take(1);
  queue_.close(greedy);
  EXPECT_EQ(queue_.num_tenants(), 0);
  add("a", 10), add("b", 10);
  EXPECT_EQ(take(2), "ab");
}

TEST_F(FairQueueTest, PrioritiesAreATenantsOwn) {
  add("a", 10, 1.0f, 0), add("a", 10, 1.0f, 5), add("b", 10, 1.0f, -3), add("a", 10, 1.0f, 5);
  add("a", 10, 1.0f, 2);
  for (const int32_t id : {2, 3, 4, 5, 1}) EXPECT_EQ(take()->id, id);
}

TEST_F(FairQueueTest, WhoLeavesTheLineIsNotServed) {
  add("a", 10);
  Request& second = add("a", 10);
  add("a", 10);
  queue_.close(second);
  EXPECT_EQ(queue_.size(), 2);
  EXPECT_EQ(take()->id, 1);
  EXPECT_EQ(take()->id, 3);
}

TEST_F(FairQueueTest, AFullQueueRefusesTheLastOfTheLongestLine) {
  EXPECT_EQ(queue_.last_of_longest(), nullptr);
  for (int32_t i = 0; i < 3; ++i) add("a", 10);
  add("b", 10);
  Request& last = add("a", 10);
  add("b", 10);
  EXPECT_EQ(queue_.last_of_longest(), &last);
}

// A tenant whose debt is beyond all bounds, and newcomers without end: it still gets its turn.
TEST_F(FairQueueTest, NobodyStarvesHoweverManyCome) {
  Request& greedy = add("greedy", 10);
  take();
  queue_.charge(greedy, 100000000);
  add("greedy", 10);
  int32_t turns = 0;
  for (; turns < 1000; ++turns) {
    for (int32_t i = 0; i < 3; ++i) add("new" + std::to_string(last_id_), 10);
    if (take()->tenant_name == "greedy") break;
  }
  EXPECT_GE(turns, 60);
  EXPECT_LT(turns, 64 + 10);
}

TEST_F(FairQueueTest, ManyTenantsThatCameOnceAreForgotten) {
  Request& stays = add("stays", 10);
  take();
  for (int32_t i = 0; i < 10000; ++i) {
    Request& once = add("once" + std::to_string(i), 10);
    EXPECT_EQ(take(), &once);
    queue_.close(once);
  }
  EXPECT_LT(queue_.num_tenants(), 200);
  queue_.close(stays);
  EXPECT_EQ(queue_.num_tenants(), 0);
}

// Sheng et al., theorem 4.4: two tenants that wait all the time are served alike, but for two of
// the largest requests. Three tenants, of which one sends nearly everything, and weights.
TEST_F(FairQueueTest, TenantsThatWaitAllTheTimeAreServedAlike) {
  std::mt19937 random(7);
  const std::string names[] = {"a", "b", "c"};
  const float weights[] = {1.0f, 1.0f, 2.0f};
  int64_t served[3] = {};
  std::vector<Request*> running;
  for (int32_t turn = 0; turn < 5000; ++turn) {
    for (int32_t t = 0; t < 3; ++t) {
      const int32_t count = t == 0 && turn % 50 == 0 ? 60 : 1;
      for (int32_t i = 0; i < count; ++i) {
        add(names[t], 1 + static_cast<int32_t>(random() % 100), weights[t]);
      }
    }
    for (Request* request : running) {
      const int64_t tokens = 2 * static_cast<int64_t>(random() % 4);
      queue_.charge(*request, tokens);
      served[request->tenant_name[0] - 'a'] += tokens;
    }
    if (running.size() >= 6) {
      const size_t i = random() % running.size();
      queue_.close(*running[i]);
      running.erase(running.begin() + static_cast<int64_t>(i));
    }
    while (running.size() < 6) {
      Request* next = take();
      if (next == nullptr) break;
      served[next->tenant_name[0] - 'a'] += next->num_new_tokens;
      running.push_back(next);
    }
  }
  EXPECT_NEAR(static_cast<double>(served[0]) / static_cast<double>(served[1]), 1.0, 0.05);
  EXPECT_NEAR(static_cast<double>(served[2]) / static_cast<double>(served[1]), 2.0, 0.1);
}

TEST_F(FairQueueTest, PlacesThatSomeDoNotNeedAreTheOthers) {
  std::map<std::string, const Tenant*> tenants;
  const auto open = [&](const std::string& name, int32_t count, float weight = 1.0f) {
    for (int32_t i = 0; i < count; ++i) tenants[name] = &add(name, 1, weight).tenant->second;
  };
  open("a", 1);
  open("b", 3);
  open("c", 20);
  queue_.share_places(12, 12, kStepTokens);
  for (const auto& [name, tenant] : tenants) EXPECT_DOUBLE_EQ(tenant->part, 4);
  EXPECT_DOUBLE_EQ(tenants["c"]->share, 8) << "twelve without one and three";
  EXPECT_GE(tenants["b"]->share, 3);
  open("d", 20, 3.0f);
  queue_.share_places(12, 12, kStepTokens);
  EXPECT_DOUBLE_EQ(tenants["d"]->part, 6);
  EXPECT_DOUBLE_EQ(tenants["d"]->share, 3 * tenants["c"]->share);
  EXPECT_NEAR(tenants["d"]->share + tenants["c"]->share + tenants["b"]->share, 11, 1e-9);
  queue_.share_places(0, 0, kStepTokens);
  for (const auto& [name, tenant] : tenants) EXPECT_DOUBLE_EQ(tenant->share, 1) << "one at least";
}

TEST_F(FairQueueTest, AFloodIsOneThatHasAGoodPartOfThePlacesBesideOthers) {
  const auto is_flooded = [this](int32_t num_places) {
    queue_.share_places(num_places, 0, kStepTokens);
    return queue_.is_flooded();
  };
  for (int32_t i = 0; i < 100; ++i) add("f", 1);
  EXPECT_FALSE(is_flooded(16)) << "there is nobody else";
  Request& other = add("a", 1);
  EXPECT_TRUE(is_flooded(16));
  EXPECT_TRUE(is_flooded(200)) << "there are places for all, but they come too fast";
  EXPECT_FALSE(is_flooded(1600)) << "a hundred are no long line there";
  queue_.take_turn(other);
  queue_.close(other);
  EXPECT_TRUE(is_flooded(16)) << "one was there of late";
  for (const char* name : {"b", "c", "d", "e"}) {
    for (int32_t i = 0; i < 3; ++i) add(name, 1);
  }
  EXPECT_TRUE(is_flooded(16)) << "twelve are the others'";
  add("g", 1);
  EXPECT_FALSE(is_flooded(16)) << "it is a crowd of tenants";
}

TEST_F(FairQueueTest, PromptsThatAreMoreThanAStepAreALongLine) {
  const auto is_flooded = [this] {
    queue_.share_places(200, 0, kStepTokens);
    return queue_.is_flooded();
  };
  add("a", 1);
  for (int32_t i = 0; i < 3; ++i) add("f", 600);
  EXPECT_FALSE(is_flooded()) << "a step has room for them";
  add("f", 600);
  EXPECT_TRUE(is_flooded());
  for (int32_t i = 0; i < 2; ++i) queue_.take_turn(*queue_.last_of_longest());
  EXPECT_FALSE(is_flooded()) << "they do not wait any more";
  add("f", 3000);
  EXPECT_TRUE(is_flooded());
}

TEST_F(FairQueueTest, PromptsThatAreMoreThanAStepBesideOthersAreNone) {
  for (int32_t i = 0; i < 4; ++i) add("f", 600);
  for (const char* name : {"a", "b"}) add(name, 400);
  queue_.share_places(200, 0, kStepTokens);
  EXPECT_FALSE(queue_.is_flooded()) << "a fourth of what waits is others'";
}

TEST_F(FairQueueTest, TwoLongPromptsAreNoFlood) {
  add("a", 1);
  for (int32_t i = 0; i < 2; ++i) add("f", 3000);
  queue_.share_places(200, 0, kStepTokens);
  EXPECT_FALSE(queue_.is_flooded());
}

TEST_F(FairQueueTest, TenantsThatWantAboutTheSameAreNoFlood) {
  int32_t open = 0;
  for (const char* name : {"a", "b", "c", "d"}) {
    for (int32_t i = 0; i < 58 + 4 * open; ++i) queue_.take_turn(add(name, 1));
    ++open;
  }
  queue_.share_places(240, 240, kStepTokens);
  EXPECT_FALSE(queue_.is_flooded()) << "58 to 70 beside each other";
  queue_.take_turn(add("e", 1));
  queue_.share_places(240, 240, kStepTokens);
  EXPECT_TRUE(queue_.is_flooded()) << "one beside them";
}

TEST_F(FairQueueTest, ATenantThatWasThereLongAgoIsFloodedByNobody) {
  queue_.close(add("a", 1));
  for (int32_t i = 0; i < 1200; ++i) add("f", 1);
  Request& other = add("a", 1);
  queue_.share_places(16, 0, kStepTokens);
  queue_.take_turn(other);
  queue_.close(other);
  queue_.share_places(16, 0, kStepTokens);
  EXPECT_TRUE(queue_.is_flooded());
  take(1100);
  queue_.share_places(16, 0, kStepTokens);
  EXPECT_FALSE(queue_.is_flooded());
}

// Counters say who of them is next, and patience says when the flood is.
TEST_F(FairQueueTest, ThoseWithinTheirShareComeFirst) {
  for (int32_t i = 0; i < 40; ++i) add("f", 1);
  for (int32_t i = 0; i < 3; ++i) queue_.charge(add("a", 1), 1000);
  for (int32_t i = 0; i < 2; ++i) queue_.charge(add("b", 1), 900);
  EXPECT_EQ(order().substr(0, 4), "ffff") << "by their counters";
  queue_.share_places(16, 0, kStepTokens);
  EXPECT_EQ(order().substr(0, 7), "bbaaaff");
}

TEST_F(FairQueueTest, AFloodHasItsTurnsToo) {
  for (int32_t i = 0; i < 400; ++i) add("f", 1);
  int32_t num_flood = 0;
  for (int32_t turn = 0; turn < 700; ++turn) {
    add("a", 1);
    queue_.share_places(16, 0, kStepTokens);
    Request* next = take();
    num_flood += next->tenant_name == "f";
    queue_.close(*next);
  }
  EXPECT_GE(num_flood, 9) << "every so many turns of others";
}

// One that runs as many as its weight says is not due, however long ago its last turn was.
TEST_F(FairQueueTest, AFloodThatRunsItsPartDoesNotStarve) {
  for (int32_t i = 0; i < 100; ++i) add("f", 1);
  for (int32_t i = 0; i < 10; ++i) take();
  for (int32_t turn = 0; turn < 200; ++turn) {
    add("a", 1);
    queue_.share_places(16, 11, kStepTokens);
    Request* next = take();
    ASSERT_EQ(next->tenant_name, "a") << "turn " << turn;
    queue_.close(*next);
  }
}

// Who takes turns one by one is who was foretold.
TEST_F(FairQueueTest, TheOrderIsThatOfTheTurns) {
  std::mt19937 random(11);
  for (int32_t round = 0; round < 300; ++round) {
    for (int32_t i = 0; i < 20; ++i) {
      add(std::string(1, static_cast<char>('a' + random() % 7)),
          1 + static_cast<int32_t>(random() % 50), 1.0f + static_cast<float>(random() % 3),
          static_cast<int32_t>(random() % 3));
    }
    const std::string foretold = order().substr(0, 10);
    ASSERT_EQ(take(10), foretold) << "round " << round;
    if (round % 10 == 9) {
      for (const auto& request : requests_) queue_.close(*request);
      requests_.clear();
      ASSERT_EQ(queue_.num_tenants(), 0);
    }
  }
}

}  // namespace
}  // namespace lorax
