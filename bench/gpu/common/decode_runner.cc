// See decode_runner.h.
#include "common/decode_runner.h"

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <utility>

namespace lorax::bench {

DecodeRunner::DecodeRunner(std::unique_ptr<Backend> backend, const ModelSpec& spec,
                           const std::string& folder, int64_t memory_bytes)
    : folder_(folder), config_(spec.config) {
  const auto begin = Clock::now();
  DecoderOptions decoder;
  decoder.max_rows = kMaxRows;
  decoder.max_logits_rows = 256;
  decoder.memory_bytes = memory_bytes;
  decoder_ = std::make_unique<Decoder>(std::move(backend), spec, decoder);
  const ModelLimits limits = decoder_->limits();
  max_rows_ = limits.max_batch_tokens;
  next_page_ = limits.num_pages;
  std::printf("load: %.2f s, %d pages of %.2f MiB; %s\n", milliseconds(Clock::now() - begin) / 1e3,
              limits.num_pages, static_cast<double>(limits.page_bytes) / (1 << 20),
              decoder_->info().description.c_str());
  std::fflush(stdout);
}

std::unique_ptr<Resident> DecodeRunner::place(int32_t rank, int32_t* next_page) {
  std::unique_ptr<AdapterImage>& image = images_[rank];
  if (image == nullptr) image = decoder_->read_adapter(dummy_adapter(config_, rank, folder_));
  if (*next_page - image->num_pages < kKvPages) return nullptr;
  std::vector<int32_t> pages;
  for (int32_t i = 0; i < image->num_pages; ++i) pages.push_back(--*next_page);
  auto out = std::make_unique<Resident>();
  out->bytes = image->bytes;
  out->rank = rank;
  out->adapter = decoder_->place_adapter(*image, pages);
  return out;
}

const Resident* DecodeRunner::add_adapter(int32_t rank) {
  std::unique_ptr<Resident> placed = place(rank, &next_page_);
  if (placed == nullptr) throw std::runtime_error("too few pages for the adapters");
  placed->index = static_cast<int32_t>(residents_.size());
  residents_.push_back(std::move(placed));
  return residents_.back().get();
}

int32_t DecodeRunner::fill_pool(int32_t rank, int32_t most) {
  int32_t next_page = next_page_;
  while (static_cast<int32_t>(fill_.size()) < most) {
    std::unique_ptr<Resident> placed = place(rank, &next_page);
    if (placed == nullptr) break;
    fill_.push_back(std::move(placed));
  }
  if (!fill_.empty()) {
    // A step that uses the last one ends after all copies.
    Scenario last{"last", 1, {fill_.back().get()}};
    run(last, 2);
  }
  return static_cast<int32_t>(fill_.size());
}

void DecodeRunner::empty_pool() { fill_.clear(); }

void DecodeRunner::write_prompts(int32_t rows, int32_t steps) {
  const int32_t blocks = blocks_of(kPromptTokens + steps);
  const Scenario prompts{"prompts", rows};
  const int32_t each = std::max(1, max_rows_ / kPromptTokens);
  for (int32_t begin = 0; begin < rows; begin += each) {
    submit(plan(prompts, begin, std::min(rows, begin + each), 0, kPromptTokens, blocks, false));
    collect_rest();
  }
}

void DecodeRunner::run(Scenario& scenario, int32_t steps) {
  const int32_t rows = scenario.rows;
  const int32_t blocks = blocks_of(kPromptTokens + steps);
  submit(plan(scenario, 0, rows, kPromptTokens, 1, blocks, false));
  Clock::time_point last = Clock::now();
  for (int32_t i = 1; i < steps; ++i) {
    submit(plan(scenario, 0, rows, kPromptTokens + i, 1, blocks, true));
    collect();
    const Clock::time_point now = Clock::now();
    if (i > 4) scenario.samples.push_back(milliseconds(now - last));
    last = now;
  }
  collect_rest();
  for (const SampleResult& result : results_) {
    if (result.token < 0) throw std::runtime_error("a row had no usable logits");
  }
}

void DecodeRunner::prefill(Scenario& scenario, int32_t tokens) {
  const int32_t blocks = blocks_of(tokens);
  const int32_t each = std::max(1, max_rows_ / tokens);
  const Clock::time_point begin = Clock::now();
  for (int32_t first = 0; first < scenario.rows; first += each) {
    const int32_t end = std::min(scenario.rows, first + each);
    submit(plan(scenario, first, end, 0, tokens, blocks, false));
    if (first > 0) collect();
  }
  collect_rest();
  const double seconds = milliseconds(Clock::now() - begin) / 1e3;
  scenario.samples.push_back(scenario.rows * static_cast<double>(tokens) / seconds);
}

double DecodeRunner::kv_bytes_per_token() const {
  return 4.0 * config_.num_layers * config_.num_kv_heads * config_.head_dim;
}

double DecodeRunner::weight_bytes() const {
  const double h = config_.hidden_size, inner = config_.intermediate_size;
  return 2.0 * (config_.num_layers * (h * (config_.q_size() + 2.0 * config_.kv_size()) +
                                      h * config_.q_size() + 3 * h * inner) +
                h * config_.vocab_size);
}

void DecodeRunner::submit(const StepPlan& plan) {
  // A backend that computes at once has no step in flight when the next begins.
  if (decoder_->steps_ahead() == 0) collect_rest();
  last_plan_ = plan;
  decoder_->submit(last_plan_);
  decoder_->sample();
  pending_.push_back(plan.samples.size());
}

// The oldest step, if any is in flight.
void DecodeRunner::collect() {
  if (pending_.empty()) return;
  results_.resize(pending_.front());
  pending_.erase(pending_.begin());
  decoder_->collect(results_);
}

void DecodeRunner::collect_rest() {
  while (!pending_.empty()) collect();
}

// Rows of sequences [begin, end): `tokens` tokens from `position`. `follows`: they are what the
// step before, of the same rows, samples.
StepPlan DecodeRunner::plan(const Scenario& scenario, int32_t begin, int32_t end, int32_t position,
                            int32_t tokens, int32_t blocks, bool follows) {
  StepPlan out;
  out.step = ++step_;
  std::map<int32_t, std::pair<const Resident*, std::vector<int32_t>>> rows_of;  // by index
  // Sequences of one adapter are adjacent, as the planner makes them.
  std::vector<std::pair<const Resident*, int32_t>> order;
  const auto num_adapters = static_cast<int32_t>(scenario.adapters.size());
  for (int32_t i = begin; i < end; ++i) {
    const bool base = num_adapters == 0 || i < scenario.base_rows;
    order.emplace_back(base ? nullptr : scenario.adapters[i % num_adapters], i);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    const auto key = [](const Resident* r) { return r != nullptr ? r->index : -1; };
    return key(a.first) < key(b.first);
  });
  const bool by_index = follows && decoder_->steps_ahead() > 0;
  for (const auto& [resident, sequence] : order) {
    out.spans.push_back({out.num_rows(), tokens, position,
                         static_cast<int32_t>(out.block_tables.size()),
                         blocks_of(position + tokens)});
    for (int32_t b = 0; b < out.spans.back().num_blocks; ++b) {
      out.block_tables.push_back(sequence % (kKvPages / blocks) * blocks + b);
    }
    const auto index = static_cast<int32_t>(out.logits_rows.size());
    for (int32_t t = 0; t < tokens; ++t) {
      if (resident != nullptr) {
        rows_of[resident->index].first = resident;
        rows_of[resident->index].second.push_back(out.num_rows());
      }
      const int32_t own = (sequence * 7919 + (position + t) * 104729) % config_.vocab_size;
      out.token_ids.push_back(by_index ? -1 - index : own);
      out.positions.push_back(position + t);
    }
    out.logits_rows.push_back(out.num_rows() - 1);
    out.samples.emplace_back();
  }
  for (const auto& [index, of] : rows_of) {
    const auto& [resident, rows] = of;
    LoraSegment segment;
    segment.adapter = resident->adapter.get();
    segment.rows_begin = static_cast<int32_t>(out.segment_rows.size());
    out.segment_rows.insert(out.segment_rows.end(), rows.begin(), rows.end());
    segment.rows_end = static_cast<int32_t>(out.segment_rows.size());
    out.segments.push_back(segment);
  }
  out.segment_weights.assign(out.segment_rows.size(), 1.0f);
  return out;
}

}  // namespace lorax::bench
