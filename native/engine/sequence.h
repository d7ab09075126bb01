// One request on its way through the engine.
//
// Always holds: `tokens` is the prompt and then every token that was reported; KV of the first
// `num_computed` of them is in `blocks`; a waiting sequence holds no page. Owned by the engine.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/engine.h"
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
        sampler(std::move(request.sampling), request.prompt, model.vocab_size),
        blocks(model.block_tokens) {
    tokens = std::move(request.prompt);
  }

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_outputs() const { return num_tokens() - num_prompt; }

  const int32_t id;
  const int64_t arrival;  // ascends with submission; the order of service
  const int32_t adapter;  // handle, -1 = base
  const Clock::time_point submitted;
  const int32_t num_prompt;
  SamplerState sampler;
  BlockTable blocks;
  std::vector<int32_t> tokens;
  int32_t num_computed = 0;
  bool started = false;  // was admitted once; preemption does not undo it
};

}  // namespace lorax
