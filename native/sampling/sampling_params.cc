// What sampling settings are allowed. worker/ validates what users write; this guards the engine.
#include "sampling/sampling_params.h"

#include <cmath>
#include <string>

#include "backend/error.h"

namespace lorax {

namespace {

void require(bool ok, const char* field, double value, const char* allowed) {
  if (ok) return;
  throw Error("INVALID_OPTIONS",
              std::string(field) + " is " + std::to_string(value) + "; it must be " + allowed + ".",
              {{"field", field}, {"value", value}});
}

}  // namespace

// Written so that NaN fails every comparison.
void check_sampling_params(const SamplingParams& p, int32_t vocab_size) {
  require(p.max_output_tokens >= 0, "maxOutputTokens", p.max_output_tokens, "0 (unset) or more");
  require(p.temperature >= 0.0f && std::isfinite(p.temperature), "temperature", p.temperature,
          "a finite number, 0 or more");
  require(p.top_k >= 0, "topK", p.top_k, "0 (off) or more");
  require(p.top_p > 0.0f && p.top_p <= 1.0f, "topP", p.top_p, "above 0 and at most 1");
  require(p.min_p >= 0.0f && p.min_p <= 1.0f, "minP", p.min_p, "from 0 to 1");
  require(p.repetition_penalty > 0.0f && std::isfinite(p.repetition_penalty), "repetitionPenalty",
          p.repetition_penalty, "a finite number above 0");
  require(std::isfinite(p.frequency_penalty), "frequencyPenalty", p.frequency_penalty,
          "a finite number");
  require(std::isfinite(p.presence_penalty), "presencePenalty", p.presence_penalty,
          "a finite number");
  require(p.num_logprobs >= -1 && p.num_logprobs <= 20, "logprobs", p.num_logprobs,
          "-1 (none) to 20");
  require(p.bias_ids.size() == p.bias_values.size(), "logitBias",
          static_cast<double>(p.bias_values.size()), "as many values as token ids");
  for (const int32_t id : p.bias_ids) {
    require(id >= 0 && id < vocab_size, "logitBias", id, "of token ids in the vocabulary");
  }
  for (const float value : p.bias_values) {
    // -inf is a ban.
    require(value < INFINITY, "logitBias", value, "below infinity and not NaN");
  }
}

}  // namespace lorax
