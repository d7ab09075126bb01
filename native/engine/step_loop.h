// The turn of the engine: drain commands, schedule, submit a step, collect one, tell.
//
// A turn plans as if the step in flight were over, whatever it samples. Where a grammar governs,
// the mask of what a step samples waits for the step before it and is found while the step runs.
// Where submitting computes, a turn may go on between two layers: beside a flood, the prompts of
// others are begun in steps of their own, for which the one under way is set aside.
// Always holds: an error ends the engine, every open request hears of it, and no exception leaves a
// turn. Engine thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/command_queue.h"
#include "engine/in_flight.h"
#include "engine/reporter.h"
#include "engine/sequence_table.h"
#include "engine/step_planner.h"

namespace lorax {

class StepLoop {
 public:
  // What it shares with other threads; outlives it.
  struct Shared {
    CommandQueue& commands;
    HostBudget& host_budget;
    BackgroundJobs& readers;
  };
  StepLoop(Model& model, const EngineLimits& limits, const Shared& shared, Outbox& outbox,
           StatusBoard& board, std::function<void()> notify);

  // One turn. False when there was nothing to do.
  bool step();

  // Whether something is left to do that waits for memory alone: step() again, after a while.
  bool has_untold() const { return !in_hand_.empty() || reporter_.has_untold(); }

  // Whether it goes on when a copy to the device is over, of which nobody tells it.
  bool waits_for_copies() const { return sequences_.adapters().any_expected(); }

  // When it has to end somebody, though nobody tells it anything; nothing: never.
  std::optional<std::chrono::milliseconds> until_deadline() const;

  bool is_lost() const { return is_lost_; }  // any thread

  // Fails open requests, and those no turn has seen, with DISPOSED. Nothing is in flight after it.
  void dispose() noexcept;

  // Throws std::logic_error.
  void check_invariants() const;

 private:
  bool drain_commands();
  void handle(SubmitCommand& command);
  void handle(CancelCommand& command);
  void cancel(int32_t id);
  void handle(AddAdapterCommand& command);
  void handle(RemoveAdapterCommand& command);
  void handle(RelocateAdapterCommand& command);
  void handle(PrefetchCommand& command);
  void handle(ImageReadCommand& command);
  void handle(HostRoomCommand& command);

  bool submit_next(Clock::time_point begin);
  void apply(const Schedule& schedule);
  void refuse_overflow();
  void plan(const Schedule& schedule, StepInFlight* step);
  void plan_adapters(StepInFlight* step);
  void note_submitted();

  void collect_oldest();
  void accept(const StepsInFlight::Collected& collected);
  void accept(Sequence& sequence, const SampleResult& result);
  void accept(Sequence& sequence, std::span<const float> sum);
  void finish_if_over(Sequence& sequence);
  void tell() noexcept;

  // step_loop_aside.cc
  void begin_serving_light();
  void serve_light();
  void cancel_later();
  void compute_aside(const Schedule& schedule);

  // step_loop_grammar.cc
  void begin_governed(Sequence& sequence);
  void make_masks(StepInFlight* step);
  void fill_masks(StepInFlight* step);
  void sample_newest();
  void fill_mask(Sequence& sequence, std::span<uint32_t> mask);
  void accept_none(Sequence& sequence);
  bool follow_grammar(Sequence& sequence);
  void append_forced(Sequence& sequence, std::vector<int32_t> tokens);

  // step_loop_deadlines.cc
  void end_expired(Clock::time_point now);
  void refuse_late(Clock::time_point begin);
  static int64_t deadline_ms(const Sequence& sequence);

  // Each writes the one terminal event and frees everything the sequence holds.
  void finish(Sequence& sequence, FinishReason reason);
  void fail(Sequence& sequence, Failure failure);
  void fail_all(const Failure& failure) noexcept;
  void lose(const std::exception& error) noexcept;

  Model& model_;
  const ModelLimits model_limits_;
  const EngineLimits limits_;
  CommandQueue& commands_;
  Reporter reporter_;
  SequenceTable sequences_;
  StepsInFlight in_flight_;
  QueuePace pace_;
  Clock::time_point next_look_;  // for those that will be late
  const Failure disposed_{"DISPOSED", "The engine was stopped.", {}};
  std::optional<Failure> lost_;  // what every later request is refused with
  std::atomic<bool> is_lost_ = false;
  int64_t step_number_ = 0;  // of the newest step planned

  std::vector<Command> in_hand_;  // taken from the queue; those before num_handled_ are done
  size_t num_handled_ = 0;

  // Of the step being planned, until it was submitted; buffers are reused.
  struct Planning {
    std::vector<Sequence*> scheduled;        // by chunk
    std::vector<PlannedSequence> sequences;  // by chunk
    std::vector<PlannedAdapter> adapters;    // of all chunks
    std::vector<int32_t> sampled;            // [logits rows] -> chunk
    std::vector<int32_t> embedded;           // [sums that end] -> chunk
  };
  Planning planning_;
  std::vector<float> embedding_;  // being told

  // Of the step whose layers are being computed; step_loop_aside.cc.
  Planning planning_aside_;
  bool is_paused_ = false;
  bool has_looked_ = false;         // for prompts of the light
  int32_t rows_left_ = 0;           // for those
  std::vector<int32_t> cancelled_;  // meanwhile: ids
};

}  // namespace lorax
