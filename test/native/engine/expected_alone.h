// What the fake model gives a request that is alone: the same hashes with no page, batch or chunk.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "engine/fake_model.h"

namespace lorax {

// The tokens a request gets when it is alone: the same hashes with no page, batch or chunk.
struct Expected {
  std::vector<int32_t> tokens;
  FinishReason reason = FinishReason::kContext;
};

inline Expected expected_alone(const Request& request,
                               const std::vector<std::string>& adapter_names,
                               const ModelLimits& limits) {
  const auto word = [&](int32_t token, int32_t position) {
    return kv_word(token, position, adapters_value(request.adapters, adapter_names, position));
  };
  const SamplingParams& sampling = request.sampling;
  const bool repeats = sampling.repetition_penalty != 1.0f;
  const bool penalises =
      repeats || sampling.frequency_penalty != 0.0f || sampling.presence_penalty != 0.0f;
  uint64_t hash = 1;
  int32_t position = 0;
  for (const int32_t token : request.prompt) hash = mix(hash, word(token, position++));
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
    hash = mix(hash, word(token, position++));
  }
}

// The embedding a request gets when it is alone.
inline std::vector<float> embedding_alone(const Request& request,
                                          const std::vector<std::string>& adapter_names,
                                          const ModelLimits& limits) {
  const auto num_prompt = static_cast<int32_t>(request.prompt.size());
  const Pooling pooling = request.embedding->pooling;
  std::vector<float> out(limits.hidden_size, 0.0f);
  float count = 0.0f;
  uint64_t hash = 1;
  for (int32_t position = 0; position < num_prompt; ++position) {
    const uint64_t adapters = adapters_value(request.adapters, adapter_names, position);
    hash = mix(hash, kv_word(request.prompt[position], position, adapters));
    if (pooling == Pooling::kLast && position + 1 < num_prompt) continue;
    if (pooling == Pooling::kCls && position > 0) continue;
    ++count;
    for (int32_t i = 0; i < limits.hidden_size; ++i) out[i] += hidden_value(hash, i);
  }
  double squares = 0.0;
  for (float& value : out) {
    value /= count;
    squares += static_cast<double>(value) * value;
  }
  if (!request.embedding->normalize || squares == 0.0) return out;
  for (float& value : out) value = static_cast<float>(value / std::sqrt(squares));
  return out;
}

}  // namespace lorax
