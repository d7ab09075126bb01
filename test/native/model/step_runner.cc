// Pages are handed out once and never returned, from the last to the first: tables are not sorted.
#include "step_runner.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <utility>

namespace lorax {

StepRunner::StepRunner(std::unique_ptr<Backend> backend, const ModelSpec& spec, int32_t max_rows,
                       int64_t memory_bytes) {
  DecoderOptions options;
  options.max_rows = max_rows;
  options.max_logits_rows = max_rows;
  options.memory_bytes = memory_bytes;
  decoder_ = std::make_unique<Decoder>(std::move(backend), spec, options);
  next_page_ = decoder_->limits().num_pages;
}

int32_t StepRunner::take_page() {
  if (next_page_ == 0) throw std::runtime_error("the test ran out of pages");
  return --next_page_;
}

const ResidentAdapter* StepRunner::add_adapter(const AdapterSpec& spec) {
  const auto image = decoder_->read_adapter(spec);
  std::vector<int32_t> pages;
  while (static_cast<int32_t>(pages.size()) < image->num_pages) pages.push_back(take_page());
  adapters_.push_back({pages, decoder_->place_adapter(*image, pages)});
  return adapters_.back().adapter.get();
}

const ResidentAdapter* StepRunner::replace_adapter(const ResidentAdapter* adapter,
                                                   const AdapterSpec& spec) {
  const auto image = decoder_->read_adapter(spec);
  for (Placed& placed : adapters_) {
    if (placed.adapter.get() != adapter) continue;
    if (image->num_pages != static_cast<int32_t>(placed.pages.size())) break;
    placed.adapter = nullptr;
    placed.adapter = decoder_->place_adapter(*image, placed.pages);
    return placed.adapter.get();
  }
  throw std::logic_error("no such adapter, or another number of pages");
}

StepPlan StepRunner::plan(const std::vector<TestChunk>& chunks) {
  const int32_t block_tokens = decoder_->limits().block_tokens;
  StepPlan plan;
  std::vector<std::pair<const ResidentAdapter*, std::vector<int32_t>>> segments;
  for (const TestChunk& chunk : chunks) {
    TestSequence& sequence = *chunk.sequence;
    SequenceSpan span;
    span.first_row = plan.num_rows();
    span.num_rows = static_cast<int32_t>(chunk.tokens.size());
    span.first_position = sequence.position;
    span.block_table_begin = static_cast<int32_t>(plan.block_tables.size());
    const int32_t end = sequence.position + span.num_rows;
    while (static_cast<int32_t>(sequence.blocks.size()) * block_tokens < end) {
      sequence.blocks.push_back(take_page());
    }
    span.num_blocks = static_cast<int32_t>(sequence.blocks.size());
    plan.block_tables.insert(plan.block_tables.end(), sequence.blocks.begin(),
                             sequence.blocks.end());
    plan.spans.push_back(span);
    for (int32_t i = 0; i < span.num_rows; ++i) {
      const int32_t row = plan.num_rows();
      plan.token_ids.push_back(chunk.tokens[i]);
      plan.positions.push_back(sequence.position + i);
      if (chunk.wants_logits) plan.logits_rows.push_back(row);
      if (sequence.adapter == nullptr) continue;
      auto found = std::find_if(segments.begin(), segments.end(), [&](const auto& segment) {
        return segment.first == sequence.adapter;
      });
      if (found == segments.end()) {
        segments.push_back({sequence.adapter, {}});
        found = segments.end() - 1;
      }
      found->second.push_back(row);
    }
    const int32_t first_pooled = std::max(span.first_position, chunk.first_pooled);
    if (chunk.sum >= 0 && first_pooled < end) {
      const int32_t first_row = span.first_row + first_pooled - span.first_position;
      plan.pooled.push_back({chunk.sum, first_row, end - first_pooled,
                             first_pooled == chunk.first_pooled, chunk.sum_ends});
    }
    sequence.position = end;
  }
  for (const auto& [adapter, rows] : segments) {
    LoraSegment segment;
    segment.adapter = adapter;
    segment.rows_begin = static_cast<int32_t>(plan.segment_rows.size());
    plan.segment_rows.insert(plan.segment_rows.end(), rows.begin(), rows.end());
    segment.rows_end = static_cast<int32_t>(plan.segment_rows.size());
    plan.segments.push_back(segment);
  }
  plan.segment_weights.assign(plan.segment_rows.size(), 1.0f);
  plan.samples.resize(plan.logits_rows.size());
  return plan;
}

std::vector<std::vector<float>> StepRunner::step(const std::vector<TestChunk>& chunks) {
  const StepPlan step_plan = plan(chunks);
  const int64_t vocab = decoder_->limits().vocab_size;
  std::vector<float> logits(step_plan.logits_rows.size() * vocab);
  decoder_->forward_logits(step_plan, logits);
  std::vector<std::vector<float>> out;
  auto next = logits.begin();
  for (const TestChunk& chunk : chunks) {
    const int64_t size = chunk.wants_logits ? static_cast<int64_t>(chunk.tokens.size()) * vocab : 0;
    out.emplace_back(next, next + size);
    next += size;
  }
  return out;
}

std::vector<float> StepRunner::run_alone(const std::vector<int32_t>& tokens,
                                         const ResidentAdapter* adapter, int32_t chunk) {
  TestSequence sequence;
  sequence.adapter = adapter;
  std::vector<float> out;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const size_t end = std::min(tokens.size(), begin + chunk);
    const auto logits =
        step({{&sequence, {tokens.begin() + begin, tokens.begin() + end}, true}}).at(0);
    out.insert(out.end(), logits.begin(), logits.end());
  }
  return out;
}

std::vector<float> StepRunner::pool_alone(const std::vector<int32_t>& tokens,
                                          const ResidentAdapter* adapter, int32_t chunk,
                                          int32_t first_pooled) {
  TestSequence sequence;
  sequence.adapter = adapter;
  for (size_t begin = 0; begin < tokens.size(); begin += chunk) {
    const size_t end = std::min(tokens.size(), begin + chunk);
    step({{.sequence = &sequence,
           .tokens = {tokens.begin() + begin, tokens.begin() + end},
           .wants_logits = false,
           .sum = 0,
           .first_pooled = first_pooled,
           .sum_ends = end == tokens.size()}});
  }
  return pooled();
}

}  // namespace lorax
