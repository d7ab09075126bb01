// One request on its way through the engine. One that is embedded is as one that generates a single
// token: its sum, when it ends, stands for that.
//
// Always holds: `tokens` is the prompt and then every token that was reported; `num_in_flight` more
// were sampled by steps that were not collected yet. KV of the first `num_computed` of all of them
// is in `blocks`, once those steps are over. A waiting sequence holds no page. Owned by the engine.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "engine/sum_slots.h"
#include "memory/block_table.h"
#include "sampling/sampler_state.h"

namespace lorax {

using Clock = std::chrono::steady_clock;

struct Sequence {
  Sequence(Request request, Clock::time_point submit_time, int64_t arrival_number,
           const ModelLimits& model)
      : id(request.id),
        arrival(arrival_number),
        adapter(request.adapter),
        submitted(submit_time),
        num_prompt(static_cast<int32_t>(request.prompt.size())),
        embedding(request.embedding),
        max_tokens(
            request.embedding ? num_prompt + 1
            : request.sampling.max_output_tokens == 0
                ? model.context_tokens
                : std::min(model.context_tokens, num_prompt + request.sampling.max_output_tokens)),
        sampler(std::move(request.sampling), request.prompt, model.vocab_size),
        blocks(model.block_tokens) {
    tokens = std::move(request.prompt);
  }

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_outputs() const { return num_tokens() - num_prompt; }
  int32_t num_tokens_ahead() const { return num_tokens() + num_in_flight; }

  // Room for one more token.
  void make_room() {
    if (tokens.size() == tokens.capacity()) tokens.reserve(2 * tokens.size());
  }

  // Its last token, whatever it is, was reported or is in flight.
  bool is_complete() const { return num_tokens_ahead() >= max_tokens; }

  const int32_t id;
  const int64_t arrival;  // ascends with submission; the order of service
  const int32_t adapter;  // handle, -1 = base
  const Clock::time_point submitted;
  const int32_t num_prompt;
  const std::optional<EmbeddingParams> embedding;
  const int32_t max_tokens;  // it ends with this many, prompt and outputs, if no stop token comes
  SamplerState sampler;
  BlockTable blocks;
  SumSlots::Slot sum;  // held while it runs and is embedded
  std::vector<int32_t> tokens;
  int32_t num_computed = 0;
  int32_t num_in_flight = 0;
  int32_t newest_sample = -1;  // index in the newest step that sampled it
  bool started = false;        // was admitted once; preemption does not undo it
};

}  // namespace lorax
