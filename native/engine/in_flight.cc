// A ring of steps between the model and the pool's fence.
#include "engine/in_flight.h"

#include <algorithm>

namespace lorax {

StepsInFlight::StepsInFlight(Model& model, PagePool& pool)
    : model_(model), pool_(pool), ahead_(std::min(model.steps_ahead(), kMaxAhead)) {}

void StepsInFlight::submit() {
  const StepPlan& plan = next().plan;
  results_.reserve(plan.samples.size());  // so that collect() allocates nothing
  // Before the model sees it: should submit throw, some of it may be under way.
  newest_step_ = plan.step;
  pool_.submitted(plan.step);
  model_.submit(plan);
  ++size_;
  sampled_ = false;
}

void StepsInFlight::sample() {
  sampled_ = true;  // or never will be
  model_.sample();
}

void StepsInFlight::forget_sample(int64_t arrival) {
  for (StepInFlight::Sampled& sampled : newest().sampled) {
    if (sampled.arrival == arrival) sampled.arrival = StepInFlight::kNobody;
  }
}

StepsInFlight::Collected StepsInFlight::collect() {
  StepInFlight& step = slots_[first_];
  first_ = (first_ + 1) % static_cast<int32_t>(slots_.size());
  --size_;
  results_.resize(step.sampled.size());
  try {
    model_.collect(results_);
  } catch (...) {
    over(step);
    throw;
  }
  over(step);
  return {step, results_, model_.pooled()};
}

StepsInFlight::Collected StepsInFlight::compute_aside() {
  results_.resize(aside_.sampled.size());
  model_.set_aside();
  model_.submit(aside_.plan);
  model_.sample();
  model_.collect(results_);
  const std::span<const float> sums = model_.pooled();
  model_.resume();
  aside_.adapters.clear();
  return {aside_, results_, sums};
}

void StepsInFlight::abandon() noexcept {
  try {
    if (!sampled_) sample();
  } catch (...) {
    // As below.
  }
  while (size_ > 0) {
    try {
      collect();
    } catch (...) {
      // One failure was told already; that of a later step says no more.
    }
  }
  next().adapters.clear();
  aside_.adapters.clear();
  pool_.completed(newest_step_);
}

void StepsInFlight::over(StepInFlight& step) {
  step.adapters.clear();
  pool_.completed(step.plan.step);
}

std::map<int64_t, int32_t> StepsInFlight::num_samples() const {
  std::map<int64_t, int32_t> counts;
  for (int32_t i = 0; i < size_; ++i) {
    const StepInFlight& step = slots_[(first_ + i) % slots_.size()];
    for (const StepInFlight::Sampled& sampled : step.sampled) ++counts[sampled.arrival];
    for (const StepInFlight::Embedded& embedded : step.embedded) ++counts[embedded.arrival];
  }
  return counts;
}

}  // namespace lorax
