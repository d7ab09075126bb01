// A model whose next token is a pure hash of the sequence's history, its adapter and its sampling
// key, computed by really storing one word per position and page.
//
// A wrong block table, a page reused while it is live, a lost KV entry, an adapter in the wrong
// segment or an overwritten adapter page: each gives wrong tokens. Malformed plans throw.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "memory/block_table.h"

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

inline uint64_t kv_word(int32_t token, int32_t position, uint64_t adapter) {
  return mix(mix(static_cast<uint32_t>(token), static_cast<uint32_t>(position)), adapter);
}

inline int32_t token_of(uint64_t history_hash, const SampleRow& row, int32_t vocab) {
  uint64_t h = mix(mix(history_hash, row.seed), static_cast<uint64_t>(row.position));
  uint64_t counts = 0;  // in any order
  for (int32_t i = 0; i < row.history_size; ++i) {
    counts += mix(static_cast<uint32_t>(row.history[i].token),
                  static_cast<uint32_t>(row.history[i].output_count));
  }
  return static_cast<int32_t>(mix(h, counts) % static_cast<uint64_t>(vocab));
}

struct FakeModelOptions {
  ModelLimits limits{.vocab_size = 97,
                     .context_tokens = 64,
                     .num_pages = 32,
                     .page_bytes = 1024,
                     .block_tokens = 4};
  int32_t max_batch_tokens = 512;
  int32_t max_logits_rows = 256;
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
    auto resident = std::make_unique<Resident>(*this, pages);
    resident->fill(fake.value);
    return resident;
  }

  int32_t steps_ahead() const override { return 0; }

  void submit(const StepPlan& plan) override {
    ++num_forwards;
    num_rows += plan.num_rows();
    if (on_forward) on_forward(plan);
    check(plan);
    samples_.assign(plan.samples.size(), {});

    std::vector<uint64_t> row_adapter(plan.num_rows(), 0);
    for (const LoraSegment& segment : plan.segments) {
      const auto& resident = static_cast<const Resident&>(*segment.adapter);
      for (int32_t i = segment.rows_begin; i < segment.rows_end; ++i) {
        row_adapter[plan.segment_rows[i]] = resident.read();
      }
    }
    size_t next = 0;
    for (const SequenceSpan& span : plan.spans) {
      for (int32_t i = 0; i < span.num_rows; ++i) {
        const int32_t row = span.first_row + i;
        word(plan, span, plan.positions[row]) =
            kv_word(plan.token_ids[row], plan.positions[row], row_adapter[row]);
        if (next == plan.logits_rows.size() || plan.logits_rows[next] != row) continue;
        uint64_t hash = 1;
        for (int32_t p = 0; p <= plan.positions[row]; ++p) hash = mix(hash, word(plan, span, p));
        sample(hash, plan.samples[next], &samples_[next]);
        ++next;
      }
    }
    if (next != plan.logits_rows.size()) fault("a logits row is in no span");
  }

  void collect(std::span<SampleResult> results) override {
    if (results.size() != samples_.size()) fault("results and samples differ");
    std::move(samples_.begin(), samples_.end(), results.begin());
  }

  // Engine thread.
  std::function<void(const StepPlan&)> on_forward;
  int64_t num_forwards = 0;
  int64_t num_rows = 0;
  uint64_t unusable_seed = ~0ull;  // requests with it get no token

 private:
  struct Image : AdapterImage {
    uint64_t value = 0;
  };

  class Resident : public ResidentAdapter {
   public:
    Resident(FakeModel& model, std::span<const int32_t> pages)
        : model_(model), pages_(pages.begin(), pages.end()) {}
    // Its pages must still be its own: whoever got them too early now reads this.
    ~Resident() override { fill(0xDEADu); }

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

  [[noreturn]] static void fault(const std::string& what) {
    throw std::runtime_error("fake model: " + what);
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

  void sample(uint64_t hash, const SampleRow& row, SampleResult* result) const {
    const int32_t vocab = options_.limits.vocab_size;
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

  // What step_plan.h promises.
  void check(const StepPlan& plan) const {
    const int32_t rows = plan.num_rows();
    if (rows == 0 || rows > options_.max_batch_tokens) fault("number of rows");
    if (static_cast<int32_t>(plan.logits_rows.size()) > options_.max_logits_rows) {
      fault("number of logits rows");
    }
    if (plan.step <= last_step_) fault("steps do not ascend");
    last_step_ = plan.step;
    int32_t next_row = 0;
    std::set<int32_t> pages;
    for (const SequenceSpan& span : plan.spans) {
      if (span.first_row != next_row || span.num_rows < 1) fault("spans are not contiguous");
      next_row += span.num_rows;
      const int32_t end = span.first_position + span.num_rows;
      if (span.num_blocks != blocks_for(end, options_.limits.block_tokens)) fault("num_blocks");
      if (end > options_.limits.context_tokens) fault("a position beyond the context");
      for (int32_t i = 0; i < span.num_rows; ++i) {
        if (plan.positions.at(span.first_row + i) != span.first_position + i) fault("positions");
      }
      for (int32_t i = 0; i < span.num_blocks; ++i) {
        if (!pages.insert(plan.block_tables.at(span.block_table_begin + i)).second) {
          fault("a page is in two block tables");
        }
      }
    }
    if (next_row != rows) fault("rows without a span");
    int32_t last_first_row = -1, next_segment_row = 0;
    std::set<const ResidentAdapter*> adapters;
    for (const LoraSegment& segment : plan.segments) {
      if (segment.rows_begin != next_segment_row || segment.rows_end <= segment.rows_begin) {
        fault("segments are not contiguous");
      }
      next_segment_row = segment.rows_end;
      if (!adapters.insert(segment.adapter).second) fault("an adapter has two segments");
      if (plan.segment_rows[segment.rows_begin] <= last_first_row) fault("segments do not ascend");
      last_first_row = plan.segment_rows[segment.rows_begin];
      for (int32_t i = segment.rows_begin; i < segment.rows_end; ++i) {
        if (plan.segment_weights.at(i) != 1.0f) fault("weights");
        if (i > segment.rows_begin && plan.segment_rows[i] <= plan.segment_rows[i - 1]) {
          fault("segment rows do not ascend");
        }
      }
    }
    for (size_t i = 1; i < plan.logits_rows.size(); ++i) {
      if (plan.logits_rows[i] <= plan.logits_rows[i - 1]) fault("logits rows do not ascend");
    }
  }

  const FakeModelOptions options_;
  std::vector<uint64_t> arena_;        // [num_pages, block_tokens]
  std::vector<SampleResult> samples_;  // of the step
  mutable int64_t last_step_ = 0;
};

// The tokens a request gets when it is alone: the same hashes with no page, batch or chunk.
struct Expected {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kContext;
};

inline Expected expected_alone(const Request& request, const std::string& adapter_name,
                               const ModelLimits& limits) {
  const uint64_t adapter = request.adapter < 0 ? 0 : adapter_value(adapter_name);
  const SamplingParams& sampling = request.sampling;
  const bool repeats = sampling.repetition_penalty != 1.0f;
  const bool penalises =
      repeats || sampling.frequency_penalty != 0.0f || sampling.presence_penalty != 0.0f;
  uint64_t hash = 1;
  int32_t position = 0;
  for (const int32_t token : request.prompt) hash = mix(hash, kv_word(token, position++, adapter));
  Expected expected;
  while (true) {
    std::vector<TokenCount> history;  // counted anew each time, unlike SamplerState does
    const auto count = [&](int32_t token, int32_t outputs) {
      for (TokenCount& seen : history) {
        if (seen.token == token) {
          seen.output_count += outputs;
          return;
        }
      }
      history.push_back({token, outputs});
    };
    if (repeats) {
      for (const int32_t token : request.prompt) count(token, 0);
    }
    if (penalises) {
      for (const int32_t token : expected.tokens) count(token, 1);
    }
    SampleRow row;
    row.seed = sampling.seed;
    row.position = static_cast<int64_t>(expected.tokens.size());
    row.history = history.data();
    row.history_size = static_cast<int32_t>(history.size());
    const int32_t token = token_of(hash, row, limits.vocab_size);
    expected.tokens.push_back(token);
    for (const int32_t stop : sampling.stop_token_ids) {
      if (token == stop) {
        expected.reason = FinishReason::kStopToken;
        return expected;
      }
    }
    if (static_cast<int32_t>(expected.tokens.size()) == sampling.max_output_tokens) {
      expected.reason = FinishReason::kMaxOutputTokens;
      return expected;
    }
    if (position + 1 >= limits.context_tokens) return expected;
    hash = mix(hash, kv_word(token, position++, adapter));
  }
}

}  // namespace lorax
