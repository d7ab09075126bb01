// What step_plan.h promises, held against every plan a test's engine makes: of one plan by itself,
// and of a plan against those of the steps in flight.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/step_plan.h"
#include "memory/block_table.h"
#include "model/model.h"

namespace lorax {

[[noreturn]] inline void fault(const std::string& what) {
  throw std::runtime_error("fake model: " + what);
}

// A page may be in several block tables, as the same block of all, where nobody writes to it.
inline void check_spans(const StepPlan& plan, const ModelLimits& limits) {
  int32_t next_row = 0;
  struct Use {
    int32_t block;
    bool written;
  };
  std::map<int32_t, Use> pages;
  for (const SequenceSpan& span : plan.spans) {
    if (span.first_row != next_row || span.num_rows < 1) fault("spans are not contiguous");
    next_row += span.num_rows;
    const int32_t end = span.first_position + span.num_rows;
    if (span.num_blocks != blocks_for(end, limits.block_tokens)) fault("num_blocks");
    if (end > limits.context_tokens) fault("a position beyond the context");
    for (int32_t i = 0; i < span.num_rows; ++i) {
      if (plan.positions.at(span.first_row + i) != span.first_position + i) fault("positions");
    }
    for (int32_t i = 0; i < span.num_blocks; ++i) {
      const Use use{i, (i + 1) * limits.block_tokens > span.first_position};
      const auto [other, first] =
          pages.emplace(plan.block_tables.at(span.block_table_begin + i), use);
      if (!first && (other->second.block != i || other->second.written || use.written)) {
        fault("a page that is written to is in two block tables");
      }
    }
  }
  if (next_row != plan.num_rows()) fault("rows without a span");
}

inline void check_segments(const StepPlan& plan) {
  int32_t next_segment_row = 0;
  std::vector<int32_t> num_segments(plan.num_rows(), 0);  // of each row
  std::set<const ResidentAdapter*> adapters;
  for (const LoraSegment& segment : plan.segments) {
    if (segment.rows_begin != next_segment_row || segment.rows_end <= segment.rows_begin) {
      fault("segments are not contiguous");
    }
    next_segment_row = segment.rows_end;
    if (!adapters.insert(segment.adapter).second) fault("an adapter has two segments");
    for (int32_t i = segment.rows_begin; i < segment.rows_end; ++i) {
      if (!std::isfinite(plan.segment_weights.at(i))) fault("weights");
      if (++num_segments.at(plan.segment_rows[i]) > kMaxSegmentsPerRow) {
        fault("a row is in too many segments");
      }
      if (i > segment.rows_begin && plan.segment_rows[i] <= plan.segment_rows[i - 1]) {
        fault("segment rows do not ascend");
      }
    }
  }
  if (plan.segment_rows.size() != static_cast<size_t>(next_segment_row) ||
      plan.segment_weights.size() != plan.segment_rows.size()) {
    fault("rows of no segment");
  }
}

inline const SequenceSpan& span_of(const StepPlan& plan, int32_t row) {
  for (const SequenceSpan& span : plan.spans) {
    if (row >= span.first_row && row < span.first_row + span.num_rows) return span;
  }
  fault("a row is in no span");
}

// Pooled spans ascend, lie in one sequence each, have a slot of their own, and are not sampled too.
inline void check_pooled(const StepPlan& plan, int32_t num_slots) {
  std::set<int32_t> slots;
  int32_t next_row = 0;
  for (const PooledSpan& pooled : plan.pooled) {
    if (pooled.first_row < next_row || pooled.num_rows < 1) fault("pooled spans do not ascend");
    next_row = pooled.first_row + pooled.num_rows;
    const SequenceSpan& span = span_of(plan, pooled.first_row);
    if (next_row != span.first_row + span.num_rows) fault("a pooled span ends before its chunk");
    if (pooled.slot < 0 || pooled.slot >= num_slots) fault("there is no such sum");
    if (!slots.insert(pooled.slot).second) fault("two pooled spans share a sum");
    for (const int32_t row : plan.logits_rows) {
      if (row >= pooled.first_row && row < next_row) fault("a pooled row is sampled");
    }
  }
}

// Unknown tokens are samples of `before`, the newest step in flight (null = none): each where the
// token sampled there comes next. That it is the same sequence's, its tokens show.
inline void check_unknown_tokens(const StepPlan& plan, const StepPlan* before) {
  for (int32_t row = 0; row < plan.num_rows(); ++row) {
    if (plan.token_ids[row] >= 0) continue;
    const int32_t sample = -1 - plan.token_ids[row];
    if (before == nullptr || before->step != plan.step - 1) fault("a token of no step before");
    const int32_t sampled_row = before->logits_rows.at(sample);
    if (plan.positions[row] != before->positions[sampled_row] + 1) {
      fault("an unknown token of another sequence");
    }
  }
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const int32_t unknown = plan.samples[i].unknown_token;
    if (unknown >= 0 && plan.token_ids[plan.logits_rows.at(i)] != -1 - unknown) {
      fault("a sample's unknown token is not that of its row");
    }
  }
}

// A page of a step in flight is still its sequences': who names it goes on where one of them ends,
// or only reads what is whole when that step is over.
inline void check_pages_against(const StepPlan& in_flight, const StepPlan& plan,
                                int32_t block_tokens, bool is_set_aside = false) {
  struct Use {
    const SequenceSpan* span;
    int32_t block;
  };
  std::multimap<int32_t, Use> uses;
  for (const SequenceSpan& span : in_flight.spans) {
    for (int32_t i = 0; i < span.num_blocks; ++i) {
      uses.insert({in_flight.block_tables[span.block_table_begin + i], {&span, i}});
    }
  }
  for (const SequenceSpan& span : plan.spans) {
    for (int32_t i = 0; i < span.num_blocks; ++i) {
      const int32_t page = plan.block_tables[span.block_table_begin + i];
      const auto [first, last] = uses.equal_range(page);
      for (auto use = first; use != last; ++use) {
        const SequenceSpan& other = *use->second.span;
        const int32_t end = other.first_position + (is_set_aside ? 0 : other.num_rows);
        const int32_t block_end = (i + 1) * block_tokens;
        const bool whole = block_end <= end && block_end <= span.first_position;
        const bool follows = !is_set_aside && span.first_position == end;
        if (use->second.block != i || !(whole || follows)) {
          fault("a page of a step in flight was given to another sequence");
        }
      }
    }
  }
}

}  // namespace lorax
