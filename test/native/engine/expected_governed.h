// The tokens of a request whose output a grammar governs, when it is alone: the fake model's hashes
// under the matcher's masks, token after token, with no page, batch, chunk or step in flight.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "engine/admission.h"
#include "engine/expected_alone.h"
#include "engine/fake_model.h"
#include "grammar/matcher.h"

namespace lorax {

class GovernedRun {
 public:
  GovernedRun(const Request& request, const std::vector<std::string>& adapter_names,
              const ModelLimits& limits, int32_t max_tokens)
      : sampling_(request.sampling),
        limits_(limits),
        max_tokens_(max_tokens),
        num_prompt_(static_cast<int32_t>(request.prompt.size())),
        adapters_(request.adapters),
        names_(adapter_names),
        matcher_(request.grammar),
        jumps_(request.sampling.num_logprobs < 0) {
    for (const int32_t token : request.prompt) see(token);
    if (sampling_.repetition_penalty != 1.0f) {
      for (const int32_t token : request.prompt) count(token, 0);
    }
  }

  Expected run() {
    if (jumps_) {
      for (const int32_t token :
           matcher_.take_forced(left() - 1, sampling_.stop_token_ids, false)) {
        append(token);
      }
    }
    while (true) {
      const int32_t token = sample();
      if (token < 0) return matcher_.may_end() ? ended(FinishReason::kGrammar) : out_;
      append(token);
      if (is_stop(token)) return ended(FinishReason::kStopToken);
      EXPECT_TRUE(matcher_.accept(token));
      if (jumps_) {
        for (const int32_t next : matcher_.take_forced(left(), sampling_.stop_token_ids, true)) {
          append(next);
          if (is_stop(next)) return ended(FinishReason::kStopToken);
        }
      }
      if (matcher_.is_final() && (sampling_.stop_token_ids.empty() || left() == 0)) {
        return ended(FinishReason::kGrammar);
      }
      if (matcher_.is_final() && jumps_) {
        append(sampling_.stop_token_ids[0]);
        return ended(FinishReason::kStopToken);
      }
      if (left() == 0 && matcher_.is_whole()) return ended(FinishReason::kGrammar);
      if (static_cast<int32_t>(out_.tokens.size()) == sampling_.max_output_tokens) {
        return ended(FinishReason::kMaxOutputTokens);
      }
      if (num_prompt_ + static_cast<int32_t>(out_.tokens.size()) >= limits_.context_tokens) {
        return ended(FinishReason::kContext);
      }
      if (left() == 0) return ended(FinishReason::kPool);
    }
  }

  const grammar::Matcher& matcher() const { return matcher_; }

 private:
  int32_t left() const {
    return max_tokens_ - num_prompt_ - static_cast<int32_t>(out_.tokens.size());
  }
  bool is_stop(int32_t token) const {
    const auto& stops = sampling_.stop_token_ids;
    return std::find(stops.begin(), stops.end(), token) != stops.end();
  }
  void see(int32_t token) {
    const uint64_t adapters = adapters_value(adapters_, names_, position_);
    hash_ = mix(hash_, kv_word(token, position_++, adapters));
  }
  void count(int32_t token, int32_t outputs) {
    const auto seen = std::find_if(history_.begin(), history_.end(),
                                   [&](const TokenCount& c) { return c.token == token; });
    if (seen == history_.end()) {
      history_.push_back({token, outputs});
    } else {
      seen->output_count += outputs;
    }
  }
  void append(int32_t token) {
    see(token);
    out_.tokens.push_back(token);
    if (sampling_.repetition_penalty != 1.0f || sampling_.frequency_penalty != 0.0f ||
        sampling_.presence_penalty != 0.0f) {
      count(token, 1);
    }
  }

  int32_t sample() {
    std::vector<uint32_t> mask((static_cast<size_t>(limits_.vocab_size) + 31) / 32);
    matcher_.fill_mask(left(), mask);
    std::vector<uint32_t> without = mask;
    for (const int32_t token : sampling_.stop_token_ids) {
      if (token >= limits_.vocab_size) continue;
      if (matcher_.may_end()) grammar::insert(without, token);
      if (!matcher_.may_end()) grammar::remove(without, token);
    }
    SampleRow row;
    row.seed = sampling_.seed;
    row.position = static_cast<int64_t>(out_.tokens.size());
    row.history = history_.data();
    row.history_size = static_cast<int32_t>(history_.size());
    row.mask = grammar::any(without) ? without.data() : mask.data();
    return token_of(hash_, row, limits_.vocab_size);
  }
  Expected ended(FinishReason reason) {
    out_.reason = reason;
    return out_;
  }

  const SamplingParams sampling_;
  const ModelLimits limits_;
  const int32_t max_tokens_, num_prompt_;
  const std::vector<AdapterUse> adapters_;
  const std::vector<std::string> names_;
  grammar::Matcher matcher_;
  const bool jumps_;
  uint64_t hash_ = 1;
  int32_t position_ = 0;
  std::vector<TokenCount> history_;
  Expected out_;
};

// `adapter_pages` as in admission.h.
inline Expected expected_governed(const Request& request,
                                  const std::vector<std::string>& adapter_names,
                                  const ModelLimits& limits, int32_t adapter_pages = 0) {
  const int32_t max_tokens = max_sequence_tokens(request, limits, adapter_pages);
  return GovernedRun(request, adapter_names, limits, max_tokens).run();
}

}  // namespace lorax
