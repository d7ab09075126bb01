// The model of the virtual clock (bench/native/virtual_model.h): what it takes for a step and a
// copy is what its costs say, and the clock moves only where the engine waits.
#include "../../../bench/native/virtual_model.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace lorax {
namespace {

VirtualCosts costs() {
  VirtualCosts costs;
  costs.weight_bytes = 1000;
  costs.parameters = 500;
  costs.kv_token_bytes = 10;
  costs.adapter_bytes = 200;
  costs.memory_rate = 100;  // the weights: 10 s
  costs.peak_rate = 1000;   // a row: 1 s
  costs.copy_rate = 50;     // an adapter: 4 s
  costs.step_seconds = 0.5;
  return costs;
}

ModelLimits limits() {
  ModelLimits limits;
  limits.vocab_size = 100;
  return limits;
}

// A sequence of `num_rows` from `first_position` on, its last row sampled.
StepPlan plan_of(int32_t num_rows, int32_t first_position,
                 const ResidentAdapter* adapter = nullptr) {
  StepPlan plan;
  plan.token_ids.assign(num_rows, 1);
  plan.spans = {{0, num_rows, first_position, 0, 1}};
  plan.logits_rows = {num_rows - 1};
  plan.samples.resize(1);
  if (adapter != nullptr) plan.segments = {{adapter, 0, num_rows}};
  return plan;
}

double run(VirtualModel& model, const StepPlan& plan) {
  const double begin = model.now();
  model.submit(plan);
  model.sample();
  std::vector<SampleResult> results(1);
  model.collect(results);
  EXPECT_GE(results[0].token, 0);
  EXPECT_LT(results[0].token, 100);
  return model.now() - begin;
}

TEST(VirtualModel, ADecodeReadsTheWeightsAndItsContext) {
  VirtualModel model(limits(), 1, costs());
  // 0.5 + 10 + (8 read + 1 written) * 10 / 100
  EXPECT_DOUBLE_EQ(run(model, plan_of(1, 7)), 11.4);
}

TEST(VirtualModel, ManyRowsTakeTheirOperations) {
  VirtualModel model(limits(), 1, costs());
  // 0.5 + 2 * 500 * 20 / 1000 + (20 + 20) * 10 / 100
  EXPECT_DOUBLE_EQ(run(model, plan_of(20, 0)), 24.5);
}

TEST(VirtualModel, StepsFollowOneAnotherAndTheClockWaitsForEachInTurn) {
  VirtualModel model(limits(), 1, costs());
  model.submit(plan_of(1, 7));
  model.submit(plan_of(1, 7));
  EXPECT_EQ(model.now(), 0);
  std::vector<SampleResult> results(1);
  model.collect(results);
  EXPECT_DOUBLE_EQ(model.now(), 11.4);
  model.collect(results);
  EXPECT_DOUBLE_EQ(model.now(), 22.8);
  EXPECT_DOUBLE_EQ(model.busy_seconds(), 22.8);
}

TEST(VirtualModel, CopiesQueueBesideStepsAndHoldUpTheFirstThatNeedsThem) {
  VirtualModel model(limits(), 1, costs());
  const auto image = model.read_adapter({});
  const auto first = model.place_adapter(*image, {});
  const auto second = model.place_adapter(*image, {});
  EXPECT_DOUBLE_EQ(model.copies_end(), 8);
  // A step without adapters runs meanwhile.
  EXPECT_DOUBLE_EQ(run(model, plan_of(1, 7)), 11.4);
  const auto third = model.place_adapter(*image, {});
  EXPECT_DOUBLE_EQ(model.copies_end(), 15.4);
  // There already: 2 more for its bytes.
  EXPECT_DOUBLE_EQ(run(model, plan_of(1, 7, second.get())), 13.4);
  EXPECT_DOUBLE_EQ(model.waited_seconds(), 0);
  const auto fourth = model.place_adapter(*image, {});
  EXPECT_DOUBLE_EQ(run(model, plan_of(1, 7, fourth.get())), 17.4);
  EXPECT_DOUBLE_EQ(model.waited_seconds(), 4);
}

}  // namespace
}  // namespace lorax
