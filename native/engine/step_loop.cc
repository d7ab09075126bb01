// What happens in a turn, in the order in which it happens.
#include "engine/step_loop.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <utility>

#include "engine/admission.h"

namespace lorax {

namespace {

// A stop token is still to come.
bool may_stop(const Sequence& sequence) {
  return sequence.sampler.first_stop_token() >= 0 && sequence.num_tokens_left() > 0;
}

class UnknownException : public std::exception {
 public:
  const char* what() const noexcept override { return "an unknown exception"; }
};

}  // namespace

StepLoop::StepLoop(Model& model, const EngineLimits& limits, const Shared& shared, Outbox& outbox,
                   StatusBoard& board, std::function<void()> notify)
    : model_(model),
      model_limits_(model.limits()),
      limits_(limits),
      commands_(shared.commands),
      reporter_(commands_, outbox, board, std::move(notify)),
      sequences_(model,
                 {limits.max_batch_tokens,
                  max_running_sequences(limits.max_sequences, limits.max_batch_tokens),
                  model_limits_.block_tokens, model_limits_.copies_beside_steps},
                 HostTier(model, commands_, shared.host_budget, shared.readers)),
      in_flight_(model, sequences_.pool()) {
  if (model_limits_.can_set_aside) model_.set_on_pause([this] { serve_light(); });
  reporter_.tell(sequences_);
}

bool StepLoop::step() {
  const Clock::time_point begin = Clock::now();
  bool worked = false;
  try {
    // Who comes meanwhile is in the next step, not in the one after.
    if (in_flight_.size() > 0 && sequences_.is_flooded()) model_.await_most_of_step();
    worked = drain_commands();
    sequences_.adapters().host().begin_turn();
    worked |= sequences_.place_expected();
    if (sequences_.any() != nullptr || in_flight_.size() > 0) {
      worked |= in_flight_.size() > 0;
      const bool submitted = submit_next(begin);
      worked |= sequences_.any_ready();
      // What the step before sampled says what this one may.
      if (in_flight_.size() > (submitted ? 1 : 0)) collect_oldest();
      if (!in_flight_.is_sampled()) sample_newest();
      if (in_flight_.size() > (submitted ? in_flight_.ahead() : 0)) collect_oldest();
      cancel_later();
#ifndef NDEBUG
      if (limits_.checks_itself) check_invariants();
#endif
    }
  } catch (const std::exception& error) {
    lose(error);
  } catch (...) {
    lose(UnknownException());
  }
  tell();
  return worked;
}

// ---- commands ----

// A command that throws stays in hand: once the engine is lost, the next turn refuses it.
bool StepLoop::drain_commands() {
  if (in_hand_.empty()) in_hand_ = commands_.take_all();
  const bool any = !in_hand_.empty();
  for (; num_handled_ < in_hand_.size(); ++num_handled_) {
    std::visit([this](auto& known) { handle(known); }, in_hand_[num_handled_]);
  }
  in_hand_.clear();
  num_handled_ = 0;
  return any;
}

void StepLoop::handle(SubmitCommand& command) {
  reporter_.make_room(sequences_.num_open() + 1);
  Request& request = command.request;
  if (lost_) return reporter_.refused(request.id, copy_of(*lost_));
  int32_t adapter_pages = 0;
  for (const AdapterUse& use : request.adapters) {
    const std::optional<int32_t> pages = sequences_.adapters().num_pages(use.handle);
    if (!pages) return reporter_.refused(request.id, adapter_not_found(use.handle));
    adapter_pages += *pages;
  }
  std::optional<Failure> refusal = refuse(request, model_limits_, adapter_pages);
  if (!refusal) refusal = sequences_.adapters().refuse(request.adapters);
  if (refusal) return reporter_.refused(request.id, *std::move(refusal));
  // Nothing behind a decoder's first token changes its state.
  if (request.embedding && request.embedding->pooling == Pooling::kCls) request.prompt.resize(1);
  const int32_t max_tokens = max_sequence_tokens(request, model_limits_, adapter_pages);
  Sequence& sequence = sequences_.add(std::move(request), command.submitted, max_tokens);
  if (sequence.matcher != nullptr) begin_governed(sequence);
}

void StepLoop::handle(CancelCommand& command) {
  if (is_paused_) return cancelled_.push_back(command.id);
  cancel(command.id);
}

void StepLoop::cancel(int32_t id) {
  Sequence* sequence = sequences_.find(id);
  if (sequence == nullptr) return;
  reporter_.aborted(*sequence);
  sequences_.close(*sequence);
}

void StepLoop::handle(AddAdapterCommand& command) {
  sequences_.adapters().add(command.handle, command.adapter);
}

void StepLoop::handle(RemoveAdapterCommand& command) {
  sequences_.adapters().remove(command.handle);
}

void StepLoop::handle(RelocateAdapterCommand& command) {
  sequences_.adapters().relocate(command.handle, command.spec);
}

void StepLoop::handle(PrefetchCommand& command) { sequences_.adapters().expect(command.handle); }

void StepLoop::handle(ImageReadCommand& command) {
  const bool failed = command.result->image == nullptr;
  sequences_.adapters().arrived(*command.result);
  if (!failed) return;
  const int32_t adapter = command.result->handle;
  while (Sequence* sequence = sequences_.waiting_for(adapter)) {
    fail(*sequence, copy_of(command.result->failure));
  }
}

void StepLoop::handle(HostRoomCommand&) {}

// ---- the next step ----

// False when there is nothing that could run before the step in flight is over.
bool StepLoop::submit_next(Clock::time_point begin) {
  pace_.set_token_ns(model_.reload_costs().token_ns);
  end_expired(begin);
  refuse_late(begin);
  const Schedule schedule = sequences_.schedule(model_.step_costs());
  apply(schedule);
  refuse_overflow();
  pace_.observe(begin, sequences_.admitted(), sequences_.num_waiting() > 0);
  reporter_.paced(pace_);
  if (planning_.scheduled.empty()) return false;
  StepInFlight& step = in_flight_.next();
  step.begin = begin;
  plan(schedule, &step);
  begin_serving_light();
  in_flight_.submit();
  note_submitted();
  if (step.masks.empty()) in_flight_.sample();
  return true;
}

void StepLoop::apply(const Schedule& schedule) {
  if (schedule.pool_full >= 0) {
    finish(sequences_.running(schedule.pool_full), FinishReason::kPool);
  }
  planning_.scheduled = sequences_.apply(schedule);
  for (Sequence* sequence : planning_.scheduled) {
    if (sequence->started) continue;
    sequence->num_cached = std::min(sequence->num_computed, sequence->num_prompt);
    reporter_.started(*sequence);
    sequence->started = true;
    if (sequence->num_outputs() == 0) continue;
    reporter_.tokens(*sequence, std::span(sequence->tokens).subspan(sequence->num_prompt));
  }
}

// The queue is what waits after everyone who could start has started.
void StepLoop::refuse_overflow() {
  while (sequences_.num_waiting() > limits_.max_queued && sequences_.last_of_longest() != nullptr) {
    fail(*sequences_.last_of_longest(),
         queue_full(sequences_.num_waiting() - 1, sequences_.num_running(), limits_.max_queued,
                    pace_.refused()));
  }
}

void StepLoop::plan(const Schedule& schedule, StepInFlight* step) {
  ++step_number_;
  planning_.sequences.clear();
  step->stats = {};
  step->adapters.clear();
  plan_adapters(step);
  std::span<const PlannedAdapter> adapters_left = planning_.adapters;
  for (size_t i = 0; i < planning_.scheduled.size(); ++i) {
    Sequence& sequence = *planning_.scheduled[i];
    sequence.newest_step = step_number_;
    PlannedSequence planned;
    planned.tokens = sequence.tokens;
    if (sequence.num_in_flight > 0) planned.unknown_token = sequence.newest_sample;
    planned.first_position = sequence.num_computed;
    planned.num_rows = schedule.chunks[i].num_tokens;
    planned.pages = sequence.blocks.pages();
    planned.adapters = adapters_left.first(sequence.adapters.size());
    adapters_left = adapters_left.subspan(sequence.adapters.size());
    if (sequence.embedding) {
      planned.sum = sequence.sum.index();
      planned.first_pooled = first_pooled(sequence.embedding->pooling, sequence.num_prompt);
    } else {
      planned.samples = planned.first_position + planned.num_rows == sequence.num_tokens_ahead();
      if (planned.samples) planned.sample = sequence.sampler.row(planned.unknown_token);
    }
    planning_.sequences.push_back(planned);
  }
  make_step_plan(step_number_, model_limits_.block_tokens, planning_.sequences, &step->plan,
                 &planning_.sampled, &planning_.embedded);
  step->stats.adapters = static_cast<int32_t>(step->plan.segments.size());
  make_masks(step);

  step->sampled.clear();
  for (const int32_t chunk : planning_.sampled) {
    const Sequence& sequence = *planning_.scheduled[chunk];
    const bool decodes = planning_.sequences[chunk].num_rows == 1 &&
                         sequence.num_tokens_ahead() > sequence.num_prompt;
    step->sampled.push_back({sequence.id, sequence.arrival, decodes});
    if (decodes) ++step->stats.decode_tokens;
  }
  step->embedded.clear();
  for (const int32_t chunk : planning_.embedded) {
    step->embedded.push_back({planning_.scheduled[chunk]->id, planning_.scheduled[chunk]->arrival});
  }
  step->stats.prefill_tokens = step->plan.num_rows() - step->stats.decode_tokens;
}

// Those of all chunks, one after the other.
void StepLoop::plan_adapters(StepInFlight* step) {
  planning_.adapters.clear();
  for (const Sequence* sequence : planning_.scheduled) {
    for (const AdapterUse& use : sequence->adapters) {
      step->adapters.push_back(sequences_.adapters().resident(use.handle));
      planning_.adapters.push_back(
          {use.handle, use.weight, step->adapters.back().get(), use.first_position});
    }
  }
}

// From here on the step counts as done, but for the tokens it samples and the sums it ends.
void StepLoop::note_submitted() {
  for (size_t i = 0; i < planning_.scheduled.size(); ++i) {
    planning_.scheduled[i]->num_computed += planning_.sequences[i].num_rows;
    sequences_.publish(*planning_.scheduled[i]);
  }
  for (size_t i = 0; i < planning_.sampled.size(); ++i) {
    Sequence& sequence = *planning_.scheduled[planning_.sampled[i]];
    ++sequence.num_in_flight;
    sequence.generates = true;
    sequences_.charge_output(sequence);
    sequence.newest_sample = static_cast<int32_t>(i);
    if (sequence.is_complete()) sequences_.expect_end(sequence);
  }
  for (const int32_t chunk : planning_.embedded) {
    Sequence& sequence = *planning_.scheduled[chunk];
    ++sequence.num_in_flight;
    sequences_.expect_end(sequence);
  }
}

// ---- the oldest step ----

void StepLoop::collect_oldest() {
  const StepsInFlight::Collected collected = in_flight_.collect();
  accept(collected);
  reporter_.collected(collected.step.stats, collected.step.begin);
}

void StepLoop::accept(const StepsInFlight::Collected& collected) {
  const auto& [step, results, sums] = collected;
  // First tokens are told first: the others' readers have some already.
  for (const bool decodes : {false, true}) {
    for (size_t i = 0; i < results.size(); ++i) {
      const StepInFlight::Sampled& sampled = step.sampled[i];
      if (sampled.decodes != decodes) continue;
      if (Sequence* sequence = sequences_.find(sampled.id, sampled.arrival)) {
        accept(*sequence, results[i]);
      } else if (decodes) {
        --step.stats.decode_tokens;  // it ended meanwhile: nobody gets this token, nobody counts it
      }
    }
  }
  const auto hidden = static_cast<size_t>(model_limits_.hidden_size);
  if (sums.size() != step.embedded.size() * hidden) {
    throw std::logic_error("engine: the model returned malformed sums");
  }
  for (size_t i = 0; i < step.embedded.size(); ++i) {
    const StepInFlight::Embedded& embedded = step.embedded[i];
    if (Sequence* sequence = sequences_.find(embedded.id, embedded.arrival)) {
      accept(*sequence, sums.subspan(i * hidden, hidden));
    }
  }
}

void StepLoop::accept(Sequence& sequence, const SampleResult& result) {
  --sequence.num_in_flight;
  if (result.token < 0) return accept_none(sequence);
  const auto num_top = static_cast<size_t>(std::max(sequence.sampler.num_logprobs(), 0));
  if (result.token >= model_limits_.vocab_size || result.top_tokens.size() < num_top ||
      result.top_logprobs.size() < num_top) {
    throw std::logic_error("engine: the model returned a malformed sample");
  }
  // What may throw comes first: a token is told if and only if it is counted.
  sequence.sampler.append(result.token);
  sequence.make_room(1);
  reporter_.token(sequence, result);
  sequence.tokens.push_back(result.token);
  if (sequence.matcher != nullptr && !sequence.sampler.is_stop_token(result.token)) {
    if (!follow_grammar(sequence)) return;
  }
  finish_if_over(sequence);
}

void StepLoop::finish_if_over(Sequence& sequence) {
  const grammar::Matcher* matcher = sequence.matcher.get();
  if (sequence.sampler.is_stop_token(sequence.tokens.back())) {
    finish(sequence, FinishReason::kStopToken);
  } else if (matcher != nullptr && matcher->is_final() && !may_stop(sequence)) {
    finish(sequence, FinishReason::kGrammar);
  } else if (sequence.num_tokens_left() > 0) {
    return;
  } else if (matcher != nullptr && matcher->is_whole()) {
    finish(sequence, FinishReason::kGrammar);
  } else if (sequence.num_outputs() == sequence.sampler.max_output_tokens()) {
    finish(sequence, FinishReason::kMaxOutputTokens);
  } else if (sequence.num_tokens() >= model_limits_.context_tokens) {
    finish(sequence, FinishReason::kContext);
  } else {
    finish(sequence, FinishReason::kPool);
  }
}

void StepLoop::accept(Sequence& sequence, std::span<const float> sum) {
  --sequence.num_in_flight;
  const EmbeddingParams& params = *sequence.embedding;
  const int32_t count = sequence.num_prompt - first_pooled(params.pooling, sequence.num_prompt);
  if (!make_embedding(sum, count, params.normalize, &embedding_)) {
    fail(sequence, no_embedding(sequence.adapters));
    return;
  }
  reporter_.embedded(sequence, embedding_);
  sequences_.close(sequence);
}

// An engine that cannot say what it does is lost; what it has yet to say waits for memory.
void StepLoop::tell() noexcept {
  try {
    reporter_.tell(sequences_);
  } catch (const std::exception& error) {
    lose(error);
  } catch (...) {
    lose(UnknownException());
  }
}

// ---- how sequences end ----

void StepLoop::finish(Sequence& sequence, FinishReason reason) {
  reporter_.finished(sequence, reason);
  sequences_.close(sequence);
}

void StepLoop::fail(Sequence& sequence, Failure failure) {
  reporter_.failed(sequence, std::move(failure));
  sequences_.close(sequence);
}

void StepLoop::fail_all(const Failure& failure) noexcept {
  while (Sequence* sequence = sequences_.any()) {
    try {
      fail(*sequence, copy_of(failure));
    } catch (const std::logic_error&) {
      // The structures are broken, which may be why we are here: the event is written and close()
      // has forgotten the sequence; what it still holds goes with the engine.
    }
  }
}

void StepLoop::lose(const std::exception& error) noexcept {
  if (!lost_) lost_ = engine_lost(error, step_number_);
  is_lost_ = true;
  is_paused_ = false;
  cancelled_.clear();
  in_flight_.abandon();
  fail_all(*lost_);
}

void StepLoop::dispose() noexcept {
  if (!lost_) lost_ = copy_of(disposed_);
  constexpr int32_t kMaxTurns = 100;  // for want of memory it may take more than one
  for (int32_t turn = 0; turn == 0 || (has_untold() && turn < kMaxTurns); ++turn) {
    if (turn > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    in_flight_.abandon();
    try {
      drain_commands();
    } catch (...) {
      // What is left in hand is refused in the next turn.
    }
    fail_all(disposed_);
    tell();
  }
}

void StepLoop::check_invariants() const { sequences_.check_invariants(in_flight_.num_samples()); }

}  // namespace lorax
