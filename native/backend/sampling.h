// What one row of logits is sampled with, and what comes back: plain data, no behaviour.
//
// native/sampling/ builds a SampleRow from a request's state; a backend's sample() consumes it.
// The pointers stay valid for the step.
#pragma once

#include <cstdint>
#include <vector>

namespace lorax {

// How often a token stands in a sequence; each token at most once per row.
struct TokenCount {
  int32_t token;
  int32_t output_count;  // in the generated tokens; 0 = only in the prompt
};

// The order of operations on a row's logits l, all in float32:
//   1. l[t] += bias[t]
//   2. repetition (Keskar et al. 2019), t in history: l > 0 ? l / p : l * p
//      frequency and presence (OpenAI API): l -= f * output_count + pr * (output_count > 0)
//      Then, under a mask: l = -inf for the tokens that are not in it
//   3. temperature == 0: argmax, the lowest token id on ties. Else l = (l - max l) / temperature
//      (without the maximum, a tiny temperature would overflow)
//   4. top-k: the k largest (ties at the k-th value: lowest ids first)
//   5. top-p (Holtzman et al. 2019): the smallest prefix, in descending order (ties: lowest id
//      first), of what is left whose renormalised probability reaches p; at least one token
//   6. min-p (Nguyen et al. 2024): probability >= min_p * the largest
//   7. Gumbel-max over what is left: argmax of l[t] - log(-log u(t)), with u(t) in (0, 1) from
//      Philox4x32-10 (Salmon et al. 2011), key = seed, counter = {token id / 4, position low,
//      position high, 0}, word token id % 4, u = (word + 0.5) * 2^-32, exactly: where u > 1/2,
//      log u is log1p(-(2^32 - 0.5 - word) * 2^-32), for in float32 u itself would round to 1.
//      Ties: the lowest token id.
// Reported logprobs are log-softmax of the raw logits, before step 1.
// A logit that is NaN or +inf, or none left above -inf, is a fault of the model or the request: the
// token is -1 and nothing else is set; the engine fails that request and goes on.
struct SampleRow {
  float temperature = 0.0f;
  int32_t top_k = 0;   // 0 = off
  float top_p = 1.0f;  // 1 = off
  float min_p = 0.0f;  // 0 = off
  float repetition_penalty = 1.0f;
  float frequency_penalty = 0.0f;
  float presence_penalty = 0.0f;
  const TokenCount* history = nullptr;  // [history_size]; null when no penalty is on
  int32_t history_size = 0;
  const int32_t* bias_ids = nullptr;   // [bias_size]
  const float* bias_values = nullptr;  // [bias_size]
  int32_t bias_size = 0;
  uint64_t seed = 0;
  int64_t position = 0;  // 0 for the first generated token
  // Tokens that may be chosen: bit t % 32 of word t / 32. [ceil(vocab / 32)]; null: all. Its words
  // are read when the step is sampled, not before.
  const uint32_t* mask = nullptr;
  int32_t unknown_token = -1;  // sample of the step before that history lacks: counts as an output
  int32_t num_logprobs = -1;   // -1 = none, else alternatives, 0..20
};

struct SampleResult {
  int32_t token = -1;               // -1 = no usable logits
  float logprob = 0.0f;             // of token; set when num_logprobs >= 0
  std::vector<int32_t> top_tokens;  // [num_logprobs], descending, ties: lowest id first
  std::vector<float> top_logprobs;  // [num_logprobs]
};

}  // namespace lorax
