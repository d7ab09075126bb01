// What a grammar adds to a turn: masks for what a step samples, and tokens that need no sampling.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "engine/admission.h"
#include "engine/grammar_cache.h"
#include "engine/step_loop.h"

namespace lorax {

namespace {

Failure grammar_failure(const grammar::Fault& fault) {
  const Error error = grammar_invalid(fault);
  return {error.code(), error.what(), error.data()};
}

}  // namespace

// Tokens may be forced before any was sampled.
void StepLoop::begin_governed(Sequence& sequence) try {
  if (sequence.sampler.num_logprobs() >= 0) return;
  // One token at least is left to be sampled: what ends ends with a step.
  append_forced(sequence, sequence.matcher->take_forced(sequence.num_tokens_left() - 1,
                                                        sequence.sampler.stop_tokens(), false));
} catch (const grammar::Fault& fault) {
  fail(sequence, grammar_failure(fault));
}

// ---- masks ----

// Room for the masks of what the step samples, empty yet.
void StepLoop::make_masks(StepInFlight* step) {
  const auto governed = [&](int32_t chunk) {
    return planning_.scheduled[chunk]->matcher != nullptr;
  };
  const auto num_masks =
      std::count_if(planning_.sampled.begin(), planning_.sampled.end(), governed);
  const size_t num_words = grammar::num_words(model_limits_.vocab_size);
  step->masks.assign(static_cast<size_t>(num_masks) * num_words, 0);
  const uint32_t* next = step->masks.data();
  for (size_t i = 0; i < planning_.sampled.size(); ++i) {
    if (!governed(planning_.sampled[i])) continue;
    step->plan.samples[i].mask = next;
    next += num_words;
  }
}

// All that is known before it has been sampled is known by now.
void StepLoop::sample_newest() {
  fill_masks(&in_flight_.newest());
  in_flight_.sample();
}

void StepLoop::fill_masks(StepInFlight* step) {
  const size_t num_words = grammar::num_words(model_limits_.vocab_size);
  std::span<uint32_t> rest(step->masks);
  for (size_t i = 0; i < step->sampled.size(); ++i) {
    if (step->plan.samples[i].mask == nullptr) continue;
    const std::span<uint32_t> mask = rest.first(num_words);
    rest = rest.subspan(num_words);
    Sequence* sequence = sequences_.find(step->sampled[i].id, step->sampled[i].arrival);
    if (sequence == nullptr) continue;
    try {
      fill_mask(*sequence, mask);
    } catch (const grammar::Fault&) {
      // Nothing is sampled then, and accept() asks why; till then the plan points into the
      // sequence.
      std::fill(mask.begin(), mask.end(), 0u);
    }
  }
}

// A stop token ends the output, so it may come where the output may end, and where the grammar
// leaves nothing else.
void StepLoop::fill_mask(Sequence& sequence, std::span<uint32_t> mask) {
  sequence.matcher->fill_mask(sequence.num_tokens_left(), mask);
  std::vector<int32_t> of_grammar;
  for (const int32_t token : sequence.sampler.stop_tokens()) {
    if (token < 0 || token >= model_limits_.vocab_size) continue;
    if (sequence.matcher->may_end()) {
      grammar::insert(mask, token);
    } else if (grammar::contains(mask, token)) {
      of_grammar.push_back(token);
      grammar::remove(mask, token);
    }
  }
  if (grammar::any(mask)) return;
  for (const int32_t token : of_grammar) grammar::insert(mask, token);
}

// ---- what was sampled ----

// The logits were unusable, or the mask empty: because the output is whole, there is no stop token
// to say so and nothing longer can be closed in time, or because the grammar got out of hand.
void StepLoop::accept_none(Sequence& sequence) {
  if (sequence.matcher != nullptr) {
    std::vector<uint32_t> mask(grammar::num_words(model_limits_.vocab_size));
    try {
      fill_mask(sequence, mask);
    } catch (const grammar::Fault& fault) {
      return fail(sequence, grammar_failure(fault));
    }
    if (!grammar::any(mask) && sequence.matcher->may_end()) {
      return finish(sequence, FinishReason::kGrammar);
    }
  }
  fail(sequence, no_token(sequence.adapters, sequence.num_outputs()));
}

// The newest token was sampled under the grammar's mask; those that must follow it follow at once.
// With logprobs each is sampled instead, under a mask that has it alone. False when the grammar got
// out of hand, which has ended the sequence.
bool StepLoop::follow_grammar(Sequence& sequence) try {
  grammar::Matcher& matcher = *sequence.matcher;
  if (!matcher.accept(sequence.tokens.back())) {
    throw std::logic_error("engine: the model sampled a token that its mask excludes");
  }
  if (sequence.sampler.num_logprobs() >= 0) return true;
  std::vector<int32_t> tokens =
      matcher.take_forced(sequence.num_tokens_left(), sequence.sampler.stop_tokens(), true);
  const int32_t stop_token = sequence.sampler.first_stop_token();
  const auto num_tokens = static_cast<int32_t>(tokens.size());
  const bool stops = num_tokens > 0 && sequence.sampler.is_stop_token(tokens.back());
  if (matcher.is_final() && !stops && stop_token >= 0 && num_tokens < sequence.num_tokens_left()) {
    tokens.push_back(stop_token);
  }
  if (!tokens.empty()) append_forced(sequence, std::move(tokens));
  return true;
} catch (const grammar::Fault& fault) {
  fail(sequence, grammar_failure(fault));
  return false;
}

// Whatever the step in flight samples for it, these come next.
void StepLoop::append_forced(Sequence& sequence, std::vector<int32_t> tokens) {
  sequence.make_room(tokens.size());
  for (const int32_t token : tokens) sequence.sampler.append(token);
  if (sequence.started) reporter_.tokens(sequence, tokens);
  sequence.tokens.insert(sequence.tokens.end(), tokens.begin(), tokens.end());
  if (sequence.num_in_flight == 0 || tokens.empty()) return;
  in_flight_.forget_sample(sequence.arrival);
  sequence.num_in_flight = 0;
}

}  // namespace lorax
