// One pass over the sequences, sorted by their adapters, and one over who uses each adapter.
#include "engine/step_planner.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "memory/block_table.h"

namespace lorax {

namespace {

void clear(StepPlan* plan) {
  plan->token_ids.clear();
  plan->positions.clear();
  plan->spans.clear();
  plan->block_tables.clear();
  plan->segments.clear();
  plan->segment_rows.clear();
  plan->segment_weights.clear();
  plan->logits_rows.clear();
  plan->samples.clear();
  plan->pooled.clear();
}

void append_span(const PlannedSequence& sequence, int32_t block_tokens, StepPlan* plan) {
  SequenceSpan span;
  span.first_row = plan->num_rows();
  span.num_rows = sequence.num_rows;
  span.first_position = sequence.first_position;
  span.block_table_begin = static_cast<int32_t>(plan->block_tables.size());
  span.num_blocks = blocks_for(sequence.first_position + sequence.num_rows, block_tokens);
  plan->spans.push_back(span);

  const auto pages = sequence.pages.first(span.num_blocks);
  plan->block_tables.insert(plan->block_tables.end(), pages.begin(), pages.end());
  const auto ahead = sequence.tokens.subspan(sequence.first_position);
  const auto known = ahead.first(std::min<size_t>(ahead.size(), sequence.num_rows));
  plan->token_ids.insert(plan->token_ids.end(), known.begin(), known.end());
  // The unknown token is at most the last of the rows.
  if (plan->num_rows() < span.first_row + span.num_rows) {
    plan->token_ids.push_back(-1 - sequence.unknown_token);
  }
  for (int32_t i = 0; i < sequence.num_rows; ++i) {
    plan->positions.push_back(sequence.first_position + i);
  }
}

// An adapter on the rows of one span.
struct AdaptedSpan {
  PlannedAdapter adapter;
  int32_t first_row;
  int32_t num_rows;
};

// One segment for each adapter; its spans' rows ascend.
void append_segments(std::vector<AdaptedSpan> spans, StepPlan* plan) {
  std::ranges::stable_sort(spans, {}, [](const AdaptedSpan& span) { return span.adapter.handle; });
  for (const auto& [adapter, first_row, num_rows] : spans) {
    if (plan->segments.empty() || plan->segments.back().adapter != adapter.resident) {
      const auto begin = static_cast<int32_t>(plan->segment_rows.size());
      plan->segments.push_back({adapter.resident, begin, begin});
    }
    for (int32_t i = 0; i < num_rows; ++i) plan->segment_rows.push_back(first_row + i);
    plan->segment_weights.resize(plan->segment_rows.size(), adapter.weight);
    plan->segments.back().rows_end += num_rows;
  }
}

bool adapters_before(const PlannedSequence& a, const PlannedSequence& b) {
  const auto before = [](const PlannedAdapter& x, const PlannedAdapter& y) {
    return x.handle < y.handle;
  };
  return std::ranges::lexicographical_compare(a.adapters, b.adapters, before);
}

// Whether a sum ended with the newest span's rows.
bool append_pooled(const PlannedSequence& sequence, StepPlan* plan) {
  const SequenceSpan& span = plan->spans.back();
  const int32_t end = span.first_position + span.num_rows;
  const int32_t begin = std::max(span.first_position, sequence.first_pooled);
  if (begin >= end) return false;
  PooledSpan pooled;
  pooled.slot = sequence.sum;
  pooled.first_row = span.first_row + begin - span.first_position;
  pooled.num_rows = end - begin;
  pooled.starts = begin == sequence.first_pooled;
  pooled.ends = end == static_cast<int32_t>(sequence.tokens.size());
  plan->pooled.push_back(pooled);
  return pooled.ends;
}

}  // namespace

void make_step_plan(int64_t step, int32_t block_tokens, std::span<const PlannedSequence> sequences,
                    StepPlan* plan, std::vector<int32_t>* sampled, std::vector<int32_t>* embedded) {
  clear(plan);
  sampled->clear();
  embedded->clear();
  plan->step = step;
  std::vector<int32_t> order(sequences.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return adapters_before(sequences[a], sequences[b]);
  });
  std::vector<AdaptedSpan> adapted;
  for (const int32_t index : order) {
    const PlannedSequence& sequence = sequences[index];
    append_span(sequence, block_tokens, plan);
    for (const PlannedAdapter& adapter : sequence.adapters) {
      const int32_t skipped = std::max(0, adapter.first_position - sequence.first_position);
      if (skipped >= sequence.num_rows) continue;
      const int32_t first_row = plan->spans.back().first_row + skipped;
      adapted.push_back({adapter, first_row, sequence.num_rows - skipped});
    }
    if (sequence.sum >= 0 && append_pooled(sequence, plan)) embedded->push_back(index);
    if (!sequence.samples) continue;
    plan->logits_rows.push_back(plan->num_rows() - 1);
    plan->samples.push_back(sequence.sample);
    sampled->push_back(index);
  }
  append_segments(std::move(adapted), plan);
}

}  // namespace lorax
