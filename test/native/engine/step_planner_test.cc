// The index arrays of small steps, word by word.
#include "engine/step_planner.h"

#include <gtest/gtest.h>

#include "backend/backend.h"

namespace lorax {
namespace {

using Ints = std::vector<int32_t>;

class StepPlannerTest : public testing::Test {
 protected:
  using Adapters = std::vector<PlannedAdapter>;

  PlannedSequence sequence(const Ints& tokens, int32_t first, int32_t rows, const Ints& pages,
                           const Adapters& adapters) {
    PlannedSequence planned;
    planned.tokens = tokens;
    planned.first_position = first;
    planned.num_rows = rows;
    planned.pages = pages;
    planned.adapters = adapters;
    planned.samples = first + rows == static_cast<int32_t>(tokens.size());
    planned.sample.position = adapters.empty() ? -1 : adapters[0].handle;  // to find it again
    return planned;
  }

  const Ints tokens_ = {10, 11, 12, 13, 14, 15};
  const Ints pages_a_ = {7, 3}, pages_b_ = {1, 2}, pages_c_ = {9, 8};
  ResidentAdapter first_, second_, third_;
  const Adapters base_ = {}, uses_first_ = {{2, 1.0f, &first_}},
                 uses_second_ = {{4, 1.0f, &second_}};
  StepPlan plan_;
  Ints sampled_, embedded_;
};

TEST_F(StepPlannerTest, SortsByAdapterAndCutsSegments) {
  const std::vector<PlannedSequence> sequences = {
      sequence(tokens_, 5, 1, pages_a_, uses_second_),  // a decode
      sequence(tokens_, 0, 3, pages_b_, base_),         // a chunk that does not reach the end
      sequence(tokens_, 4, 2, pages_c_, uses_first_),   // the last chunk
      sequence(tokens_, 5, 1, pages_b_, uses_second_),
  };
  make_step_plan(9, 4, sequences, &plan_, &sampled_, &embedded_);
  EXPECT_EQ(plan_.step, 9);
  EXPECT_EQ(plan_.token_ids, (Ints{10, 11, 12, 14, 15, 15, 15}));
  EXPECT_EQ(plan_.positions, (Ints{0, 1, 2, 4, 5, 5, 5}));
  EXPECT_EQ(plan_.block_tables, (Ints{1, 9, 8, 7, 3, 1, 2}));
  ASSERT_EQ(plan_.spans.size(), 4u);
  EXPECT_EQ(plan_.spans[0].num_blocks, 1);  // only what the rows reach
  EXPECT_EQ(plan_.spans[2].first_row, 5);
  EXPECT_EQ(plan_.spans[2].first_position, 5);
  EXPECT_EQ(plan_.spans[2].block_table_begin, 3);
  ASSERT_EQ(plan_.segments.size(), 2u);
  EXPECT_EQ(plan_.segments[0].adapter, &first_);
  EXPECT_EQ(plan_.segments[0].rows_begin, 0);
  EXPECT_EQ(plan_.segments[0].rows_end, 2);
  EXPECT_EQ(plan_.segments[1].adapter, &second_);
  EXPECT_EQ(plan_.segments[1].rows_end, 4);
  EXPECT_EQ(plan_.segment_rows, (Ints{3, 4, 5, 6}));
  EXPECT_EQ(plan_.segment_weights, std::vector<float>(4, 1.0f));
  EXPECT_EQ(plan_.logits_rows, (Ints{4, 5, 6}));
  EXPECT_EQ(sampled_, (Ints{2, 0, 3}));
  ASSERT_EQ(plan_.samples.size(), 3u);
  EXPECT_EQ(plan_.samples[0].position, 2);
}

// Base, two adapters each by itself, two mixes: an adapter's rows are in one segment, those of a
// mix in one of each of its adapters, and segments are in order of handles, whoever comes first.
TEST_F(StepPlannerTest, AMixIsInASegmentOfEachOfItsAdapters) {
  const Adapters both = {{2, 0.5f, &first_}, {7, -2.0f, &third_}};
  const Adapters others = {{4, 0.25f, &second_}, {7, 3.0f, &third_}};
  const std::vector<PlannedSequence> sequences = {
      sequence(tokens_, 5, 1, pages_a_, uses_second_),  // row 5
      sequence(tokens_, 4, 2, pages_b_, both),          // rows 3 and 4
      sequence(tokens_, 5, 1, pages_c_, others),        // row 6
      sequence(tokens_, 5, 1, pages_a_, base_),         // row 0
      sequence(tokens_, 4, 2, pages_b_, uses_first_),   // rows 1 and 2
  };
  make_step_plan(1, 4, sequences, &plan_, &sampled_, &embedded_);
  EXPECT_EQ(sampled_, (Ints{3, 4, 1, 0, 2}));
  ASSERT_EQ(plan_.segments.size(), 3u);
  const ResidentAdapter* adapters[] = {&first_, &second_, &third_};
  const int32_t ends[] = {4, 6, 9};
  for (int32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(plan_.segments[i].adapter, adapters[i]);
    EXPECT_EQ(plan_.segments[i].rows_begin, i == 0 ? 0 : ends[i - 1]);
    EXPECT_EQ(plan_.segments[i].rows_end, ends[i]);
  }
  EXPECT_EQ(plan_.segment_rows, (Ints{1, 2, 3, 4, 5, 6, 3, 4, 6}));
  EXPECT_EQ(plan_.segment_weights, (std::vector<float>{1, 1, 0.5f, 0.5f, 1, 0.25f, -2, -2, 3}));
}

// The token before the one to sample is sample 3 of the step before, or there is no such token.
TEST_F(StepPlannerTest, NamesUnknownTokensByTheirSample) {
  PlannedSequence decode = sequence(tokens_, 6, 1, pages_a_, base_);
  decode.unknown_token = 3;
  PlannedSequence known = sequence(tokens_, 5, 1, pages_b_, base_);
  PlannedSequence chunk = sequence(tokens_, 4, 3, pages_c_, base_);
  chunk.unknown_token = 0;
  make_step_plan(2, 4, std::vector{decode, known, chunk}, &plan_, &sampled_, &embedded_);
  EXPECT_EQ(plan_.token_ids, (Ints{-4, 15, 14, 15, -1}));
  EXPECT_EQ(plan_.positions, (Ints{6, 5, 4, 5, 6}));
}

// Of a chunk in the middle, of a last one whose last row alone counts, of one before that row.
TEST_F(StepPlannerTest, NamesTheRowsThatArePooled) {
  const auto embedded = [&](int32_t first, int32_t rows, int32_t sum, int32_t first_pooled) {
    PlannedSequence planned = sequence(tokens_, first, rows, pages_a_, base_);
    planned.samples = false;
    planned.sum = sum;
    planned.first_pooled = first_pooled;
    return planned;
  };
  PlannedSequence decode = sequence(tokens_, 5, 1, pages_b_, uses_first_);
  const std::vector<PlannedSequence> sequences = {
      decode,
      embedded(0, 2, 4, 0),
      embedded(2, 4, 0, 0),
      embedded(3, 3, 2, 5),
      embedded(3, 2, 1, 5),
      embedded(5, 1, 3, 0),
  };
  make_step_plan(3, 4, sequences, &plan_, &sampled_, &embedded_);
  using Row = std::vector<int32_t>;
  std::vector<Row> pooled;
  for (const PooledSpan& span : plan_.pooled) {
    pooled.push_back({span.slot, span.first_row, span.num_rows, span.starts, span.ends});
  }
  EXPECT_EQ(pooled, (std::vector<Row>{
                        {4, 0, 2, 1, 0}, {0, 2, 4, 0, 1}, {2, 8, 1, 1, 1}, {3, 11, 1, 0, 1}}));
  EXPECT_EQ(embedded_, (Ints{2, 3, 5}));
  EXPECT_EQ(plan_.logits_rows, Ints{12});
  EXPECT_EQ(sampled_, Ints{0});
}

TEST_F(StepPlannerTest, ReusesThePlanForTheNextStep) {
  make_step_plan(1, 4, std::vector{sequence(tokens_, 0, 6, pages_a_, uses_first_)}, &plan_,
                 &sampled_, &embedded_);
  make_step_plan(2, 4, std::vector{sequence(tokens_, 5, 1, pages_a_, base_)}, &plan_, &sampled_,
                 &embedded_);
  EXPECT_EQ(plan_.num_rows(), 1);
  EXPECT_TRUE(plan_.segments.empty());
  EXPECT_TRUE(plan_.segment_rows.empty());
  EXPECT_EQ(plan_.logits_rows, Ints{0});
  EXPECT_EQ(sampled_, Ints{0});
  EXPECT_TRUE(plan_.pooled.empty());
}

// Activated LoRA: rows before the first position are on the base.
TEST_F(StepPlannerTest, AnAdapterBeginsAtItsFirstPosition) {
  const Adapters from_3 = {{2, 1.0f, &first_, 3}}, from_9 = {{2, 1.0f, &first_, 9}};
  const Adapters both = {{2, 0.5f, &first_, 4}, {4, 2.0f, &second_, 1}};
  const std::vector<PlannedSequence> sequences = {
      sequence(tokens_, 1, 5, pages_a_, from_3),
      sequence(tokens_, 0, 3, pages_b_, from_3),  // a chunk before it
      sequence(tokens_, 4, 2, pages_c_, from_9),
      sequence(tokens_, 2, 4, pages_b_, both),
  };
  make_step_plan(1, 4, sequences, &plan_, &sampled_, &embedded_);
  EXPECT_EQ(plan_.positions, (Ints{1, 2, 3, 4, 5, 0, 1, 2, 4, 5, 2, 3, 4, 5}));
  ASSERT_EQ(plan_.segments.size(), 2u);
  EXPECT_EQ(plan_.segments[0].adapter, &first_);
  EXPECT_EQ(plan_.segments[1].adapter, &second_);
  EXPECT_EQ(plan_.segments[0].rows_end, 5);
  EXPECT_EQ(plan_.segment_rows, (Ints{2, 3, 4, 12, 13, 10, 11, 12, 13}));
  EXPECT_EQ(plan_.segment_weights,
            (std::vector<float>{1, 1, 1, 0.5f, 0.5f, 2.0f, 2.0f, 2.0f, 2.0f}));
}

}  // namespace
}  // namespace lorax
