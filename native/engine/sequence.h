// One request on its way through the engine. One that is embedded is as one that generates a single
// token: its sum, when it ends, stands for that.
//
// Always holds: `tokens` is the prompt and then every token that was reported, or will be when it
// starts; `num_in_flight` more were sampled by steps that were not collected yet. `matcher` has
// seen every token of the output. KV of the first `num_computed` of all of them is in `blocks`,
// once those steps are over; the first of these are those of `prefix`. A waiting sequence holds no
// page. Owned by the engine.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine/engine.h"
#include "engine/fair_queue.h"
#include "engine/prefix_cache.h"
#include "engine/sum_slots.h"
#include "grammar/matcher.h"
#include "memory/block_table.h"
#include "sampling/sampler_state.h"

namespace lorax {

using Clock = std::chrono::steady_clock;

constexpr Clock::time_point kNoDeadline = Clock::time_point::max();

inline Clock::time_point deadline_of(const Request& request, Clock::time_point submitted) {
  constexpr int64_t kLongest = int64_t{1} << 40;  // ms; 35 years
  if (!request.deadline_ms) return kNoDeadline;
  return submitted +
         std::chrono::milliseconds(std::clamp(*request.deadline_ms, -kLongest, kLongest));
}

struct Sequence : Ticket {
  Sequence(Request request, Clock::time_point submit_time, int64_t arrival_number,
           int32_t most_tokens, const ModelLimits& model, PrefixCache& prefixes)
      : Ticket{.arrival = arrival_number,
               .priority = request.priority,
               .weight = request.tenant_weight},
        id(request.id),
        adapters(std::move(request.adapters)),
        submitted(submit_time),
        deadline(deadline_of(request, submit_time)),
        num_prompt(static_cast<int32_t>(request.prompt.size())),
        embedding(request.embedding),
        max_tokens(most_tokens),
        matcher(request.grammar == nullptr
                    ? nullptr
                    : std::make_unique<grammar::Matcher>(std::move(request.grammar))),
        sampler(std::move(request.sampling), request.prompt, model.vocab_size),
        blocks(model.block_tokens),
        prefix(prefixes, request.cache_scope, adapters) {
    tokens = std::move(request.prompt);
  }

  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_outputs() const { return num_tokens() - num_prompt; }
  int32_t num_reported() const { return started ? num_outputs() : 0; }
  int32_t num_tokens_left() const { return max_tokens - num_tokens(); }
  int32_t num_tokens_ahead() const { return num_tokens() + num_in_flight; }

  // Room for so many more tokens.
  void make_room(size_t more) {
    const size_t needed = tokens.size() + more;
    if (needed > tokens.capacity()) tokens.reserve(std::max(needed, 2 * tokens.size()));
  }

  // Its last token, whatever it is, was reported or is in flight.
  bool is_complete() const { return num_tokens_ahead() >= max_tokens; }

  const int32_t id;
  const std::vector<AdapterUse> adapters;  // ascending by handle; empty = base
  const Clock::time_point submitted;
  const Clock::time_point deadline;  // kNoDeadline: it has none
  const int32_t num_prompt;
  const std::optional<EmbeddingParams> embedding;
  const int32_t max_tokens;  // it ends with this many, prompt and outputs, if no stop token comes
  const std::unique_ptr<grammar::Matcher> matcher;  // null: its output is free
  SamplerState sampler;
  BlockTable blocks;
  PrefixCache::Path prefix;
  SumSlots::Slot sum;  // held while it runs and is embedded
  std::vector<int32_t> tokens;
  int32_t num_computed = 0;
  int32_t num_cached = 0;  // of the prompt, found when it started
  int32_t num_in_flight = 0;
  int32_t newest_sample = -1;  // index in the newest step that sampled it
  int64_t newest_step = 0;     // that has rows of it; 0: none yet
  bool uses_adapters = false;  // keeps them in pages
  int64_t turn = 0;            // ascends with first admission; 0 = it was never admitted
  bool started = false;        // was admitted once; preemption does not undo it
  bool generates = false;      // all it had when it was admitted is computed
};

}  // namespace lorax
