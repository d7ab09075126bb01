// A model whose next token is a pure hash of the sequence's history, its adapters with their
// weights, and its sampling key, computed by really storing one word per position and page; and
// whose hidden states are hashes of the same history.
//
// A wrong block table, a page reused while it is live, a lost KV entry, an adapter in the wrong
// segment, missing or weighted wrongly, or an overwritten adapter page: each gives wrong tokens.
// Malformed plans throw, and so do pages and adapters that are given away while a step in flight
// uses them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/plan_checks.h"

namespace lorax {

// splitmix64's finaliser over both words.
inline uint64_t mix(uint64_t a, uint64_t b) {
  uint64_t x = a + 0x9E3779B97F4A7C15u * (b + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline uint64_t adapter_value(const std::string& name) {
  uint64_t value = 7;
  for (const char c : name) value = mix(value, static_cast<uint8_t>(c));
  return value;
}

// What a row's adapters come to, one after the other; 0 = base.
inline uint64_t add_adapter(uint64_t before, uint64_t adapter, float weight) {
  return mix(mix(before, adapter), std::bit_cast<uint32_t>(weight));
}

// Of adapters ascending by handle, at a position. `names` [adapters.size()]; those of the base are
// not looked at.
inline uint64_t adapters_value(const std::vector<AdapterUse>& adapters,
                               const std::vector<std::string>& names, int32_t position) {
  uint64_t value = 0;
  for (size_t i = 0; i < adapters.size(); ++i) {
    if (position < adapters[i].first_position) continue;
    value = add_adapter(value, adapter_value(names.at(i)), adapters[i].weight);
  }
  return value;
}

inline uint64_t kv_word(int32_t token, int32_t position, uint64_t adapters) {
  return mix(mix(static_cast<uint32_t>(token), static_cast<uint32_t>(position)), adapters);
}

inline int32_t token_of(uint64_t history_hash, const SampleRow& row, int32_t vocab) {
  uint64_t h = mix(mix(history_hash, row.seed), static_cast<uint64_t>(row.position));
  uint64_t counts = 0;  // in any order
  for (int32_t i = 0; i < row.history_size; ++i) {
    counts += mix(static_cast<uint32_t>(row.history[i].token),
                  static_cast<uint32_t>(row.history[i].output_count));
  }
  const uint64_t choice = mix(h, counts);
  if (row.mask == nullptr) return static_cast<int32_t>(choice % static_cast<uint64_t>(vocab));
  std::vector<int32_t> allowed;
  for (int32_t token = 0; token < vocab; ++token) {
    if ((row.mask[token / 32] >> (token % 32) & 1) != 0) allowed.push_back(token);
  }
  return allowed.empty() ? -1 : allowed[choice % allowed.size()];
}

// The hidden state behind a history: small integers, whose sums are exact in float32.
inline float hidden_value(uint64_t history_hash, int32_t column) {
  return static_cast<float>(mix(history_hash, 0x68u + static_cast<uint32_t>(column)) % 1024);
}

struct FakeModelOptions {
  ModelLimits limits{.vocab_size = 97,
                     .context_tokens = 64,
                     .num_pages = 32,
                     .page_bytes = 1024,
                     .block_tokens = 4,
                     .hidden_size = 3};
  int32_t max_batch_tokens = 512;
  int32_t max_logits_rows = 256;
  int32_t steps_ahead = 0;
  int32_t num_layers = 0;       // before each of which a step may be set aside; without steps_ahead
  int32_t turns_to_arrive = 0;  // of an adapter placed; with limits.copies_beside_steps
  ReloadCosts costs = {.page_ns = 1000, .token_ns = 1000};
  StepCosts step_costs = {};
};

// The name says what it computes; as many pages as modules.
inline AdapterSpec fake_adapter(const std::string& name, int32_t num_pages) {
  AdapterSpec spec;
  spec.hash = name;
  spec.modules.resize(num_pages);
  return spec;
}

class FakeModel : public Model {
 public:
  explicit FakeModel(FakeModelOptions options)
      : options_(options),
        arena_(static_cast<size_t>(options.limits.num_pages) * options.limits.block_tokens) {}

  ModelLimits limits() const override { return options_.limits; }
  BackendInfo info() const override { return {"fake", "tokens are hashes"}; }

  std::unique_ptr<AdapterImage> read_adapter(const AdapterSpec& spec) override {
    if (on_read) on_read(spec);
    if (spec.modules.empty()) throw Error("ADAPTER_INVALID", "no modules", {{"file", spec.hash}});
    auto image = std::make_unique<Image>();
    image->num_pages = static_cast<int32_t>(spec.modules.size());
    image->bytes = image->num_pages * options_.limits.page_bytes;
    image->value = adapter_value(spec.hash);
    return image;
  }

  std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                 std::span<const int32_t> pages) override {
    const auto& fake = static_cast<const Image&>(image);
    if (static_cast<int32_t>(pages.size()) != fake.num_pages) fault("wrong number of pages");
    for (const std::deque<InFlight>* steps : {&in_flight_, &aside_}) {
      for (const InFlight& step : *steps) {
        for (const int32_t page : pages) {
          if (step.uses(page)) fault("an adapter was placed on a page of a step in flight");
        }
      }
    }
    auto resident = std::make_unique<Resident>(*this, pages);
    resident->fill(fake.value);
    resident->arrives_at = num_turns + options_.turns_to_arrive;
    return resident;
  }

  ~FakeModel() override {
    EXPECT_TRUE(in_flight_.empty()) << "a step was never collected";
    EXPECT_EQ(problem_, "");
  }

  ReloadCosts reload_costs() override { return options_.costs; }
  StepCosts step_costs() override { return options_.step_costs; }
  void await_most_of_step() override {
    if (in_flight_.size() != 1) fault("no step of which most could be over");
    ++num_awaited;
    if (on_await) on_await();
  }
  int32_t steps_ahead() const override { return options_.steps_ahead; }

  // The arena changes when a step is collected, as late as a device may do it; until then what it
  // is to write holds a mark, which whoever reads too early finds.
  void submit(const StepPlan& plan) override {
    ++num_forwards;
    num_rows += plan.num_rows();
    if (on_forward) on_forward(plan);
    if (static_cast<int32_t>(in_flight_.size()) > options_.steps_ahead) fault("too many steps");
    check(plan);
    last_step_ = plan.step;
    for (const SequenceSpan& span : plan.spans) {
      for (int32_t i = 0; i < span.num_rows; ++i) {
        word(plan, span, span.first_position + i) = mark(plan, span.first_row + i);
      }
    }
    InFlight step(plan, options_.steps_ahead > 0);
    for (const LoraSegment& segment : plan.segments) {
      const auto& resident = static_cast<const Resident&>(*segment.adapter);
      if (!resident.has_arrived() && plan.spans.size() > 1) fault("a copy holds others up");
      step.adapter_pages.insert(resident.pages().begin(), resident.pages().end());
    }
    in_flight_.push_back(std::move(step));
    ++num_unsampled_;
    if (num_unsampled_ > 1) fault("the step before was not sampled");
    if (!on_pause_ || is_set_aside_) return;
    try {
      for (int32_t layer = 0; layer < options_.num_layers; ++layer) {
        if (on_layer) on_layer(layer);
        on_pause_();
      }
    } catch (...) {  // it was not submitted, and nothing is in its place
      for (std::deque<InFlight>* steps : {&in_flight_, &aside_}) steps->clear();
      throw;
    }
  }

  void set_on_pause(std::function<void()> on_pause) override {
    if (!options_.limits.can_set_aside) fault("a step cannot be set aside");
    on_pause_ = std::move(on_pause);
  }

  // Nothing of it is there yet: whoever reads what it is to write finds the marks.
  void set_aside() override {
    if (is_set_aside_ || in_flight_.size() != 1) fault("no step to be set aside");
    is_set_aside_ = true;
    ++num_set_aside;
    aside_.swap(in_flight_);
    num_unsampled_ = 0;
  }
  void resume() override {
    if (!is_set_aside_ || !in_flight_.empty()) fault("no step to go on with");
    is_set_aside_ = false;
    aside_.swap(in_flight_);
    num_unsampled_ = 1;
  }

  void sample() override {
    if (num_unsampled_ != 1) fault("nothing to sample");
    num_unsampled_ = 0;
    in_flight_.back().read_masks(*in_flight_.back().plan, options_.limits.vocab_size);
    if (on_sample) on_sample(*in_flight_.back().plan);
  }

  void collect(std::span<SampleResult> results) override {
    if (static_cast<int32_t>(in_flight_.size()) <= num_unsampled_) fault("nothing to collect");
    const InFlight step = std::move(in_flight_.front());
    in_flight_.pop_front();
    ++num_collects;
    if (on_collect) on_collect(*step.plan);
    if (!problem_.empty()) fault(problem_);
    if (results.size() != step.plan->samples.size()) fault("results and samples differ");
    compute(step, results);
    add_up(*step.plan);
    sampled_.clear();
    for (const SampleResult& result : results) sampled_.push_back(result.token);
  }

  std::span<const float> pooled() const override { return ended_sums_; }

  std::function<void(const AdapterSpec&)> on_read;  // any thread
  // Engine thread.
  int64_t num_turns = 0;                            // the test's, for what arrives later
  std::function<void(const StepPlan&)> on_forward;  // when it is submitted
  std::function<void(const StepPlan&)> on_sample;   // with its masks filled
  std::function<void(const StepPlan&)> on_collect;
  std::function<void()> on_await;
  std::function<void(int32_t)> on_layer;  // before it; of a step that may be set aside
  int64_t num_set_aside = 0;
  int64_t num_awaited = 0;
  int64_t num_forwards = 0;
  int64_t num_collects = 0;
  int64_t num_rows = 0;
  uint64_t unusable_seed = ~0ull;  // requests with it get no token
  int32_t unusable_token = -1;     // its hidden state is NaN
  bool ignores_masks = false;      // as a broken device might

 private:
  struct Image : AdapterImage {
    uint64_t value = 0;
  };

  class Resident : public ResidentAdapter {
   public:
    Resident(FakeModel& model, std::span<const int32_t> pages)
        : model_(model), pages_(pages.begin(), pages.end()) {}
    // Its pages must still be its own: whoever got them too early now reads this.
    ~Resident() override {
      for (const std::deque<InFlight>* steps : {&model_.in_flight_, &model_.aside_}) {
        for (const InFlight& step : *steps) {
          for (const LoraSegment& segment : step.plan->segments) {
            if (segment.adapter == this) model_.problem_ = "an adapter in flight was dropped";
          }
        }
      }
      fill(0xDEADu);
    }

    const std::vector<int32_t>& pages() const { return pages_; }

    bool has_arrived() const override { return model_.num_turns >= arrives_at; }
    int64_t arrives_at = 0;

    void fill(uint64_t value) {
      for (const int32_t page : pages_) {
        for (int32_t i = 0; i < model_.options_.limits.block_tokens; ++i)
          model_.at(page, i) = value;
      }
    }
    uint64_t read() const {
      const uint64_t value = model_.at(pages_[0], 0);
      for (const int32_t page : pages_) {
        for (int32_t i = 0; i < model_.options_.limits.block_tokens; ++i) {
          if (model_.at(page, i) != value) fault("an adapter's page was overwritten");
        }
      }
      return value;
    }

   private:
    FakeModel& model_;
    std::vector<int32_t> pages_;
  };

  // A step from submit to collect.
  struct InFlight {
    // `copies`: what the plan points to may change after submit.
    InFlight(const StepPlan& submitted, bool copies) : plan(&submitted) {
      if (!copies) return;
      copy = std::make_unique<StepPlan>(submitted);
      histories.reserve(copy->samples.size());
      for (SampleRow& row : copy->samples) {
        histories.emplace_back(row.history, row.history + row.history_size);
        row.history = histories.back().data();
        row.bias_ids = nullptr;
        row.bias_values = nullptr;
      }
      plan = copy.get();
    }

    // As late as may be: what they hold before, and after, is nobody's business.
    void read_masks(const StepPlan& plan, int32_t vocab) {
      masks.resize(plan.samples.size());
      for (size_t i = 0; i < masks.size(); ++i) {
        const uint32_t* mask = plan.samples[i].mask;
        if (mask != nullptr) masks[i].assign(mask, mask + (vocab + 31) / 32);
      }
    }

    bool uses(int32_t page) const {
      const std::vector<int32_t>& kv = plan->block_tables;
      return adapter_pages.count(page) || std::find(kv.begin(), kv.end(), page) != kv.end();
    }

    const StepPlan* plan;
    std::unique_ptr<StepPlan> copy;
    std::vector<std::vector<TokenCount>> histories;
    std::vector<std::vector<uint32_t>> masks;  // [samples]; empty: all tokens
    std::set<int32_t> adapter_pages;
  };

  // Tokens of earlier steps are known by now.
  int32_t known(int32_t token) const { return token >= 0 ? token : sampled_.at(-1 - token); }

  static uint64_t mark(const StepPlan& plan, int32_t row) {
    return mix(mix(0x4D41524Bu, static_cast<uint64_t>(plan.step)), static_cast<uint32_t>(row));
  }

  void compute(const InFlight& step, std::span<SampleResult> results) {
    const StepPlan& plan = *step.plan;
    std::vector<uint64_t> row_adapters(plan.num_rows(), 0);
    for (const LoraSegment& segment : plan.segments) {
      const auto& resident = static_cast<const Resident&>(*segment.adapter);
      for (int32_t i = segment.rows_begin; i < segment.rows_end; ++i) {
        uint64_t& of_row = row_adapters[plan.segment_rows[i]];
        of_row = add_adapter(of_row, resident.read(), plan.segment_weights[i]);
      }
    }
    size_t next = 0;
    for (const SequenceSpan& span : plan.spans) {
      for (int32_t i = 0; i < span.num_rows; ++i) {
        const int32_t row = span.first_row + i;
        uint64_t& stored = word(plan, span, plan.positions[row]);
        if (stored != mark(plan, row)) fault("KV of a step in flight was overwritten");
        stored = kv_word(known(plan.token_ids[row]), plan.positions[row], row_adapters[row]);
        if (next == plan.logits_rows.size() || plan.logits_rows[next] != row) continue;
        sample(history(plan, span, plan.positions[row]), plan.samples[next], step.masks.at(next),
               &results[next]);
        ++next;
      }
    }
    if (next != plan.logits_rows.size()) fault("a logits row is in no span");
  }

  uint64_t history(const StepPlan& plan, const SequenceSpan& span, int32_t position) {
    uint64_t hash = 1;
    for (int32_t p = 0; p <= position; ++p) hash = mix(hash, word(plan, span, p));
    return hash;
  }

  // Sums change when their step is collected, one step after another.
  void add_up(const StepPlan& plan) {
    ended_sums_.clear();
    for (const PooledSpan& pooled : plan.pooled) {
      std::vector<float>& sum = sums_[pooled.slot];
      if (pooled.starts) sum.assign(options_.limits.hidden_size, 0.0f);
      for (int32_t row = pooled.first_row; row < pooled.first_row + pooled.num_rows; ++row) {
        const uint64_t hash = history(plan, span_of(plan, row), plan.positions[row]);
        const bool usable = plan.token_ids[row] != unusable_token;
        for (size_t i = 0; i < sum.size(); ++i) {
          sum[i] += usable ? hidden_value(hash, static_cast<int32_t>(i)) : NAN;
        }
      }
      if (pooled.ends) ended_sums_.insert(ended_sums_.end(), sum.begin(), sum.end());
    }
  }

  uint64_t& at(int32_t page, int32_t slot) {
    return arena_.at(static_cast<size_t>(page) * options_.limits.block_tokens + slot);
  }

  uint64_t& word(const StepPlan& plan, const SequenceSpan& span, int32_t position) {
    const int32_t block = position / options_.limits.block_tokens;
    if (block >= span.num_blocks) fault("a position lies outside the block table");
    return at(plan.block_tables.at(span.block_table_begin + block),
              position % options_.limits.block_tokens);
  }

  void sample(uint64_t hash, SampleRow row, const std::vector<uint32_t>& mask,
              SampleResult* result) const {
    std::vector<TokenCount> history(row.history, row.history + row.history_size);
    if (row.unknown_token >= 0) {
      const int32_t token = sampled_.at(row.unknown_token);
      const auto seen = std::find_if(history.begin(), history.end(),
                                     [&](const TokenCount& c) { return c.token == token; });
      if (seen == history.end()) {
        history.push_back({token, 1});
      } else {
        ++seen->output_count;
      }
      row.history = history.data();
      row.history_size = static_cast<int32_t>(history.size());
    }
    const int32_t vocab = options_.limits.vocab_size;
    row.mask = mask.empty() || ignores_masks ? nullptr : mask.data();
    result->token = row.seed == unusable_seed ? -1 : token_of(hash, row, vocab);
    result->top_tokens.clear();
    result->top_logprobs.clear();
    if (row.num_logprobs < 0) return;
    result->logprob = -static_cast<float>(result->token);
    for (int32_t i = 0; i < row.num_logprobs; ++i) {
      result->top_tokens.push_back((result->token + i) % vocab);
      result->top_logprobs.push_back(-static_cast<float>(i));
    }
  }

  void check(const StepPlan& plan) const {
    const int32_t rows = plan.num_rows();
    if (rows == 0 || rows > options_.max_batch_tokens) fault("number of rows");
    if (static_cast<int32_t>(plan.logits_rows.size()) > options_.max_logits_rows) {
      fault("number of logits rows");
    }
    if (plan.samples.size() != plan.logits_rows.size()) fault("number of samples");
    for (size_t i = 1; i < plan.logits_rows.size(); ++i) {
      if (plan.logits_rows[i] <= plan.logits_rows[i - 1]) fault("logits rows do not ascend");
    }
    if (plan.step <= last_step_) fault("steps do not ascend");
    check_spans(plan, options_.limits);
    check_segments(plan);
    check_pooled(plan, options_.max_logits_rows);
    check_unknown_tokens(plan, in_flight_.empty() ? nullptr : in_flight_.back().plan);
    for (const std::deque<InFlight>* steps : {&in_flight_, &aside_}) {
      for (const InFlight& other : *steps) {
        check_pages_against(*other.plan, plan, options_.limits.block_tokens, steps == &aside_);
        for (const int32_t page : plan.block_tables) {
          if (other.adapter_pages.count(page)) fault("an adapter's page in flight became KV");
        }
      }
    }
  }

  const FakeModelOptions options_;
  std::vector<uint64_t> arena_;  // [num_pages, block_tokens]
  std::deque<InFlight> in_flight_;
  std::deque<InFlight> aside_;  // while another step is computed
  bool is_set_aside_ = false;
  std::function<void()> on_pause_;
  std::vector<int32_t> sampled_;                // of the newest step collected
  std::map<int32_t, std::vector<float>> sums_;  // by slot
  std::vector<float> ended_sums_;               // of the newest step collected
  int32_t num_unsampled_ = 0;                   // of the newest steps
  int64_t last_step_ = 0;                       // submitted
  std::string problem_;                         // found where nothing may be thrown
};

}  // namespace lorax
