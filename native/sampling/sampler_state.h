// What sampling has to remember of one sequence: its settings and, for penalties, which tokens it
// has seen.
//
// A row is keyed by the output position alone, so a preempted sequence has nothing to restore.
// Owned by the engine's sequence; the row's pointers are valid until the next append.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "backend/sampling.h"
#include "sampling/sampling_params.h"

namespace lorax {

class SamplerState {
 public:
  // `params` were checked. At most `vocab_size` alternatives are reported.
  SamplerState(SamplingParams params, std::span<const int32_t> prompt, int32_t vocab_size);

  // The next generated token.
  void append(int32_t token);

  // For the next token. `unknown_token` 0 or more: the one before it is that sample of the step
  // before and was not appended yet; -1: all were.
  SampleRow row(int32_t unknown_token = -1) const;

  int64_t num_outputs() const { return num_outputs_; }
  int32_t num_logprobs() const { return params_.num_logprobs; }
  bool is_stop_token(int32_t token) const;
  std::span<const int32_t> stop_tokens() const { return params_.stop_token_ids; }
  int32_t first_stop_token() const { return first_stop_token_; }  // as the request has them; or -1
  int32_t max_output_tokens() const { return params_.max_output_tokens; }

 private:
  void count(int32_t token, int32_t outputs);

  SamplingParams params_;
  int32_t first_stop_token_ = -1;
  bool has_penalty_;
  int64_t num_outputs_ = 0;
  std::vector<TokenCount> history_;               // each token once; empty without a penalty
  std::unordered_map<int32_t, size_t> index_of_;  // token -> index into history_
};

}  // namespace lorax
