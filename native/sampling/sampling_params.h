// How the tokens of one request are chosen; every field resolved, no field optional.
//
// binding/ fills it from NativeSampling (worker/addon.ts); the engine checks it before a request is
// queued; SamplerState turns it into the SampleRows a backend consumes.
#pragma once

#include <cstdint>
#include <vector>

namespace lorax {

struct SamplingParams {
  int32_t max_output_tokens = 0;  // 0 = what context and pool allow
  float temperature = 0.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  std::vector<int32_t> bias_ids = {};
  std::vector<float> bias_values = {};
  uint64_t seed = 0;
  int32_t num_logprobs = -1;
  std::vector<int32_t> stop_token_ids = {};
};

// Throws INVALID_OPTIONS naming the field, its value and what is allowed.
void check_sampling_params(const SamplingParams& params, int32_t vocab_size);

}  // namespace lorax
