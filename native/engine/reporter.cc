// From what happened in a turn to the outbox and the status board.
#include "engine/reporter.h"

#include <algorithm>
#include <utility>

namespace lorax {

namespace {

int64_t microseconds(Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
}

}  // namespace

Reporter::Reporter(CommandQueue& commands, Outbox& outbox, StatusBoard& board,
                   std::function<void()> notify)
    : commands_(commands), outbox_(outbox), board_(board), notify_(std::move(notify)) {}

void Reporter::started(const Sequence& sequence) {
  events_.started(sequence.id, microseconds(Clock::now() - sequence.submitted),
                  sequence.num_cached);
  stats_.prompt_tokens += sequence.num_prompt;
  stats_.cached_tokens += sequence.num_cached;
  if (!sequence.embedding) ++(sequence.num_cached > 0 ? stats_.prefix_hits : stats_.prefix_misses);
}

void Reporter::token(const Sequence& sequence, const SampleResult& result) {
  events_.token(sequence.id, result, sequence.sampler.num_logprobs());
  ++stats_.output_tokens;
}

void Reporter::tokens(const Sequence& sequence, std::span<const int32_t> tokens) {
  events_.tokens(sequence.id, tokens);
  stats_.output_tokens += static_cast<int64_t>(tokens.size());
}

void Reporter::embedded(const Sequence& sequence, std::span<const float> embedding) {
  events_.embedded(sequence.id, embedding);
  ++stats_.finished;
}

void Reporter::finished(const Sequence& sequence, FinishReason reason) noexcept {
  events_.finished(sequence.id, reason, sequence.num_reported());
  ++stats_.finished;
}

void Reporter::aborted(const Sequence& sequence) noexcept {
  events_.aborted(sequence.id, sequence.num_reported());
  ++stats_.aborted;
}

void Reporter::failed(const Sequence& sequence, Failure failure) noexcept {
  events_.failed(sequence.id, std::move(failure), sequence.num_reported());
  ++stats_.failed;
}

void Reporter::refused(int32_t id, Failure failure) noexcept {
  events_.failed(id, std::move(failure), 0);
  ++stats_.failed;
}

void Reporter::collected(const EngineStats::Step& step, Clock::time_point begin) {
  ++stats_.steps;
  collected_ = step;
  collected_begin_ = begin;
  collected_is_aside_ = false;
}

void Reporter::collected_aside(const EngineStats::Step& step, Clock::time_point begin) {
  collected(step, begin);
  collected_is_aside_ = true;
}

void Reporter::tell(SequenceTable& sequences) {
  const PagePool::Counts pages = sequences.pool().counts();
  const int32_t cold = sequences.prefixes().num_cold();
  stats_.pages = {pages.total, pages.free, pages.kv - cold, cold, pages.adapter, pages.retiring};
  stats_.running = sequences.num_running();
  stats_.waiting = sequences.num_waiting();
  stats_.preemptions = sequences.num_preemptions();
  stats_.prefix_evictions = sequences.prefixes().num_evictions();
  stats_.adapter_hits = sequences.adapters().num_hits();
  stats_.adapter_loads = sequences.adapters().num_loads();
  stats_.adapter_evictions = sequences.adapters().num_evictions();
  const HostTier& host = std::as_const(sequences).adapters().host();
  const HostTier::Counts host_counts = host.counts();
  stats_.host = {host.budget().used_bytes(), host.budget().total_bytes(), host_counts.images};
  stats_.host_reads = host_counts.reads;
  stats_.host_drops = host_counts.drops;
  const std::vector<AdapterCache::Change> changes = sequences.adapters().take_changes();
  if (collected_) {
    // Steps that follow one another without a gap take the time from one's end to the next's; a
    // step that found nothing in flight counts from the turn that planned it.
    const Clock::time_point now = Clock::now();
    Clock::duration took = now - std::max(collected_begin_, last_step_told_);
    if (collected_is_aside_) {
      aside_ += took;
    } else {
      took -= std::exchange(aside_, Clock::duration(0));
      last_step_told_ = now;
    }
    collected_->us = static_cast<int32_t>(microseconds(took));
  }
  board_.publish(stats_, std::exchange(collected_, std::nullopt), changes);
  commands_.forget(events_.ended());
  if (outbox_.put(&events_)) owes_notice_ = true;
  if (owes_notice_ && notify_) notify_();
  owes_notice_ = false;
}

}  // namespace lorax
