// What a token takes, from steps with made-up times; and that real backends measure what they do.
#include "model/step_timer.h"

#include <gtest/gtest.h>

#include <random>

#include "backend_cases.h"
#include "step_runner.h"
#include "tiny_model.h"

namespace lorax {
namespace {

using std::chrono::microseconds;

class StepTimerTest : public testing::Test {
 protected:
  // One step of spans with so many rows, from `begin` to `end` in microseconds.
  void step(const std::vector<int32_t>& spans, int64_t begin, int64_t end) {
    submit(spans, begin);
    collect(end);
  }
  void collect(int64_t end) { timer_.collected(at(end)); }
  void submit(const std::vector<int32_t>& spans, int64_t begin, bool idle = true) {
    StepPlan plan;
    for (const int32_t rows : spans) {
      plan.spans.push_back({.num_rows = rows});
      plan.token_ids.resize(plan.token_ids.size() + rows);
    }
    timer_.submitted(plan, at(begin), idle);
  }
  static StepTimer::Clock::time_point at(int64_t us) {
    return StepTimer::Clock::time_point() + microseconds(1000000 + us);
  }

  StepTimer timer_;
};

TEST_F(StepTimerTest, CountsStepsThatMostlyPrefill) {
  EXPECT_EQ(timer_.token_ns(), 0);
  step({1, 1, 1}, 0, 5000);
  EXPECT_EQ(timer_.token_ns(), 0) << "all of it decodes";
  step({10}, 10000, 10100);
  EXPECT_EQ(timer_.token_ns(), 10000);
  step({3, 1, 1, 1}, 20000, 29000);
  EXPECT_EQ(timer_.token_ns(), 10000) << "no more than half of it prefills";
  step({25, 1, 4}, 30000, 30100);
  EXPECT_EQ(timer_.token_ns(), 200000 / 40) << "the larger one counts for more";
}

// 1,000 us of its own, 700 of another's.
TEST_F(StepTimerTest, AStepThatIsSetAsideDoesNotTakeTheOthersTime) {
  step({10}, 0, 100);
  submit({10}, 1000);
  timer_.set_aside(at(1600));
  step({5}, 1650, 2250);
  timer_.resume(at(2300));
  EXPECT_EQ(timer_.token_ns(), 700000 / 15);
  collect(2700);
  EXPECT_EQ(timer_.token_ns(), 1700000 / 25);
}

// The second was submitted while the first ran: it takes from that one's end to its own.
TEST_F(StepTimerTest, AStepBeginsWhenTheOneBeforeIsOver) {
  submit({10}, 0);
  submit({10}, 10);
  collect(100);
  EXPECT_EQ(timer_.token_ns(), 10000);
  collect(400);
  EXPECT_EQ(timer_.token_ns(), 20000);
}

TEST_F(StepTimerTest, WhatWasLongAgoFades) {
  for (int32_t i = 0; i < 100; ++i) step({1000}, 10000 * i, 10000 * i + 1000);
  EXPECT_EQ(timer_.token_ns(), 1000);
  for (int32_t i = 100; i < 300; ++i) step({1000}, 10000 * i, 10000 * i + 4000);
  EXPECT_GT(timer_.token_ns(), 3900);
}

TEST_F(StepTimerTest, TellsWhatAStepTakesByItsRows) {
  EXPECT_EQ(timer_.step_costs().row_ns, 0);
  for (int32_t i = 0; i < 20; ++i) step({64}, 10000 * i, 10000 * i + 564);
  EXPECT_EQ(timer_.step_costs().row_ns, 0) << "all of one size: what is whose cannot be told";
  for (int32_t i = 20; i < 40; ++i) step({200 + i}, 10000 * i, 10000 * i + 700 + i);
  EXPECT_NEAR(timer_.step_costs().row_ns, 1000, 1);
  EXPECT_NEAR(timer_.step_costs().step_ns, 500000, 500);
}

TEST_F(StepTimerTest, AStepThatTakesLessForMoreRowsSaysNothing) {
  for (int32_t i = 0; i < 40; ++i) step({10 + i}, 10000 * i, 10000 * i + 900 - i);
  EXPECT_EQ(timer_.step_costs().row_ns, 0);
  EXPECT_EQ(timer_.step_costs().step_ns, 0);
}

TEST_F(StepTimerTest, AtFirstTheNextStepIsPlannedAfterThreeQuartersOfOne) {
  submit({100}, 0);
  EXPECT_EQ(timer_.plan_next_at(at(7)), at(7)) << "nothing was measured";
  collect(600);
  for (int32_t i = 1; i < 40; ++i) step({100 + 3 * i}, 10000 * i, 10000 * i + 600 + 3 * i);
  EXPECT_EQ(timer_.plan_next_at(at(7)), at(7)) << "nothing is in flight";
  submit({300}, 500000);
  EXPECT_NEAR((timer_.plan_next_at(at(7)) - at(500000)) / microseconds(1), 600, 2);
  submit({300}, 500001);
  EXPECT_EQ(timer_.plan_next_at(at(7)), at(7)) << "the one after is planned already";
}

TEST_F(StepTimerTest, WhatARowTakesIsNotForgottenWhileAllStepsAreOfOneSize) {
  for (int32_t i = 0; i < 40; ++i) step({50 + i}, 10000 * i, 10000 * i + 500 + 5 * (50 + i));
  for (int32_t i = 40; i < 5000; ++i) step({100}, 10000 * i, 10000 * i + 1000);
  EXPECT_NEAR(timer_.step_costs().row_ns, 5000, 50);
  EXPECT_NEAR(timer_.step_costs().step_ns, 500000, 5000);
}

// The next one is planned and submitted in 700 to 900 us, and steps of which 10,000 are expected
// take 9,500 to 10,500: in nineteen of twenty times a lead of 1,200 is enough.
TEST_F(StepTimerTest, TheNextStepIsPlannedAsLateAsIsInTimeNineteenTimesOfTwenty) {
  for (int32_t i = 0; i < 40; ++i) step({50 + i}, 20000 * i, 20000 * i + 5000 + 50 * (50 + i));
  std::mt19937 random(3);
  const auto between = [&](int64_t least, int64_t most) {
    return std::uniform_int_distribution<int64_t>(least, most)(random);
  };
  int64_t begin = 1000000, late = 0, lead = 0;
  constexpr int kSteps = 4000, kSettled = 400;
  submit({100}, begin);
  for (int i = 0; i < kSteps; ++i) {
    const int64_t end = begin + between(9500, 10500);
    const int64_t planned = (timer_.plan_next_at(at(begin)) - at(0)) / microseconds(1);
    const int64_t submitted = planned + between(700, 900);
    submit({100}, submitted, submitted > end);
    collect(end);
    if (i >= kSettled) late += submitted > end, lead += begin + 10000 - planned;
    begin = std::max(end, submitted);
  }
  EXPECT_NEAR(late, (kSteps - kSettled) / 20, 40);
  EXPECT_NEAR(lead / (kSteps - kSettled), 1250, 100);
}

class ReloadCostsTest : public testing::TestWithParam<BackendCase> {};

TEST_P(ReloadCostsTest, AreMeasured) {
  const TinyModel model(tiny_config());
  StepRunner runner(GetParam().make(), model.write());
  EXPECT_EQ(runner.decoder().reload_costs().token_ns, 0);
  EXPECT_EQ(runner.decoder().reload_costs().page_ns, 0);
  const auto* adapter = runner.add_adapter(
      model.write_adapter(model.random_adapter(7, 4, {kQProj, kVProj}), "adapter.bin"));
  // The steps that tests of logits take are timed by nobody: this one goes the engine's way.
  TestSequence sequence{adapter, {}, 0};
  StepPlan plan = runner.plan({{&sequence, std::vector<int32_t>(40, 3), false}});
  for (plan.step = 1; plan.step <= 2; ++plan.step) {
    runner.decoder().submit(plan);
    runner.decoder().sample();
    runner.decoder().collect({});
  }
  EXPECT_GT(runner.decoder().reload_costs().token_ns, 0);
  const int64_t page_ns = runner.decoder().reload_costs().page_ns;
  EXPECT_EQ(page_ns > 0, GetParam().name != "reference");
  EXPECT_LT(page_ns, 1000000000);
}

INSTANTIATE_TEST_SUITE_P(Backends, ReloadCostsTest, testing::ValuesIn(all_backends()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace lorax
