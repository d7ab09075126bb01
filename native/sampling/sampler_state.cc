// From a request's settings and tokens to the SampleRow of its next token.
#include "sampling/sampler_state.h"

#include <algorithm>
#include <utility>

namespace lorax {

SamplerState::SamplerState(SamplingParams params, std::span<const int32_t> prompt,
                           int32_t vocab_size)
    : params_(std::move(params)),
      has_penalty_(params_.repetition_penalty != 1.0f || params_.frequency_penalty != 0.0f ||
                   params_.presence_penalty != 0.0f) {
  params_.num_logprobs = std::min(params_.num_logprobs, vocab_size);
  if (!params_.stop_token_ids.empty()) first_stop_token_ = params_.stop_token_ids[0];
  std::sort(params_.stop_token_ids.begin(), params_.stop_token_ids.end());
  // Frequency and presence look at generated tokens only; just repetition reads the prompt.
  if (params_.repetition_penalty != 1.0f) {
    for (const int32_t token : prompt) count(token, 0);
  }
}

void SamplerState::count(int32_t token, int32_t outputs) {
  const auto [entry, is_new] = index_of_.try_emplace(token, history_.size());
  if (is_new) history_.push_back({token, 0});
  history_[entry->second].output_count += outputs;
}

void SamplerState::append(int32_t token) {
  ++num_outputs_;
  if (has_penalty_) count(token, 1);
}

bool SamplerState::is_stop_token(int32_t token) const {
  return std::binary_search(params_.stop_token_ids.begin(), params_.stop_token_ids.end(), token);
}

SampleRow SamplerState::row(int32_t unknown_token) const {
  SampleRow row;
  row.temperature = params_.temperature;
  row.top_k = params_.top_k;
  row.top_p = params_.top_p;
  row.min_p = params_.min_p;
  row.repetition_penalty = params_.repetition_penalty;
  row.frequency_penalty = params_.frequency_penalty;
  row.presence_penalty = params_.presence_penalty;
  row.history = history_.empty() ? nullptr : history_.data();
  row.history_size = static_cast<int32_t>(history_.size());
  row.bias_ids = params_.bias_ids.empty() ? nullptr : params_.bias_ids.data();
  row.bias_values = params_.bias_values.empty() ? nullptr : params_.bias_values.data();
  row.bias_size = static_cast<int32_t>(params_.bias_ids.size());
  row.seed = params_.seed;
  row.position = num_outputs_ + (unknown_token >= 0 ? 1 : 0);
  if (has_penalty_) row.unknown_token = unknown_token;
  row.num_logprobs = params_.num_logprobs;
  return row;
}

}  // namespace lorax
