// What other threads hear of the engine: the events of requests, counters, adapters.
//
// Collected during a turn and told at its end. Always holds: what could not be told for want of
// memory is kept, and told by a later tell(). Engine thread.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "engine/command_queue.h"
#include "engine/outbox.h"
#include "engine/sequence_table.h"
#include "engine/status_board.h"

namespace lorax {

class Reporter {
 public:
  // `notify` as in engine.h; may be empty.
  Reporter(CommandQueue& commands, Outbox& outbox, StatusBoard& board,
           std::function<void()> notify);

  // Room for the ends of so many requests; before another one is opened or refused.
  void make_room(int32_t num_open) { events_.make_room(num_open); }

  void started(const Sequence& sequence);
  void token(const Sequence& sequence, const SampleResult& result);
  // Tokens that were not sampled; the request reports no logprobs.
  void tokens(const Sequence& sequence, std::span<const int32_t> tokens);

  // The ends of requests, one each. One that throws is none.
  void embedded(const Sequence& sequence, std::span<const float> embedding);
  void finished(const Sequence& sequence, FinishReason reason) noexcept;
  void aborted(const Sequence& sequence) noexcept;
  void failed(const Sequence& sequence, Failure failure) noexcept;
  void refused(int32_t id, Failure failure) noexcept;

  // A step that began with the turn at `begin` was collected.
  void collected(const EngineStats::Step& step, Clock::time_point begin);
  // Likewise, with the one that was set aside for it still to come, which does not take its time.
  void collected_aside(const EngineStats::Step& step, Clock::time_point begin);

  void paced(const QueuePace& pace) { stats_.admission_us = pace.admission_ns() / 1000; }

  // Publishes what is new. Throws when memory is out.
  void tell(SequenceTable& sequences);
  bool has_untold() const { return !events_.empty() || owes_notice_; }

 private:
  CommandQueue& commands_;
  Outbox& outbox_;
  StatusBoard& board_;
  const std::function<void()> notify_;
  EventWriter events_;
  EngineStats stats_;
  std::optional<EngineStats::Step> collected_;
  Clock::time_point collected_begin_;
  bool collected_is_aside_ = false;
  Clock::duration aside_{0};  // what those took, of the step that was set aside
  Clock::time_point last_step_told_;
  bool owes_notice_ = false;
};

}  // namespace lorax
