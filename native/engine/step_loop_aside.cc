// What a turn does at the pauses of the step that it computes: twice in each layer.
//
// Whoever is light beside a flood waits for half a layer then, not for a step: its prompts are
// computed whole, and its first token is told, before the step goes on. Of what is asked meanwhile,
// only cancelling has to wait for it, which reads what the cancelled hold.
#include <algorithm>
#include <utility>

#include "engine/step_loop.h"

namespace lorax {

namespace {

constexpr int32_t kMostRows = 15;  // for each of the step that is set aside

}  // namespace

// The others get on too, whatever comes: they have one row in sixteen. For a step of few rows the
// light may have one full step, as it would have been beside their prompts.
void StepLoop::begin_serving_light() {
  has_looked_ = false;
  rows_left_ = std::max(kMostRows * in_flight_.next().plan.num_rows(), limits_.max_batch_tokens);
}

void StepLoop::serve_light() {
  is_paused_ = true;
  std::swap(planning_, planning_aside_);
  while (rows_left_ > 0 && (drain_commands() || !has_looked_)) {
    has_looked_ = true;
    if (sequences_.num_tenants() < 2) continue;
    const Schedule schedule =
        sequences_.schedule_light(std::min(rows_left_, limits_.max_batch_tokens));
    apply(schedule);
    if (!planning_.scheduled.empty()) compute_aside(schedule);
  }
  std::swap(planning_, planning_aside_);
  is_paused_ = false;
}

void StepLoop::cancel_later() {
  for (const int32_t id : std::exchange(cancelled_, {})) cancel(id);
}

void StepLoop::compute_aside(const Schedule& schedule) {
  StepInFlight& step = in_flight_.aside();
  step.begin = Clock::now();
  plan(schedule, &step);
  fill_masks(&step);
  rows_left_ -= step.plan.num_rows();
  has_looked_ = false;
  const StepsInFlight::Collected collected = in_flight_.compute_aside();
  note_submitted();
  accept(collected);
  reporter_.collected_aside(step.stats, step.begin);
  reporter_.tell(sequences_);
}

}  // namespace lorax
