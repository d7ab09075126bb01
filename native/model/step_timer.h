// How long steps take, from when one could begin, which is when it was submitted or when the one
// before it was over, until it was collected.
//
// From it: how long a token takes that is computed with others, in steps that mostly prefill, which
// is what it costs to compute a prefix again; what a step takes by its rows; and until when the one
// behind the one in flight need not be planned. A step that is set aside does not take the time of
// those that are computed meanwhile. Owned by the decoder; engine thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <tuple>
#include <utility>

#include "backend/recent_rate.h"
#include "backend/step_plan.h"
#include "model/model.h"
#include "model/step_fit.h"
#include "model/step_lead.h"

namespace lorax {

class StepTimer {
 public:
  using Clock = std::chrono::steady_clock;

  // `idle`: the steps before it are over, as its first kernels are launched.
  void submitted(const StepPlan& plan, Clock::time_point at, bool idle) {
    if (!steps_.empty()) steps_.back().was_late = idle;
    int32_t num_prefilled = 0;
    for (const SequenceSpan& span : plan.spans) {
      if (span.num_rows > 1) num_prefilled += span.num_rows;
    }
    const bool prefills = 2 * num_prefilled > plan.num_rows();
    steps_.push_back({at, plan.num_rows(), prefills});
  }

  void collected(Clock::time_point at) {
    const Step step = steps_.front();
    steps_.pop_front();
    const std::chrono::nanoseconds took = at - begin_of(step);
    last_collected_ = at;
    fit_.add(step.num_rows, took.count());
    if (step.prefills) tokens_.add(step.num_rows, took.count());
    if (step.was_awaited && step.was_late) lead_.observe(*step.was_late, took);
  }

  // All in flight are, until they resume.
  void set_aside(Clock::time_point at) {
    aside_ = {std::exchange(steps_, {}), last_collected_};
    last_collected_ = set_aside_at_ = at;
  }
  void resume(Clock::time_point at) {
    std::tie(steps_, last_collected_) = std::move(aside_);
    for (Step& step : steps_) step.submitted += at - set_aside_at_;
  }

  // 0: nothing was measured yet.
  int64_t token_ns() const { return tokens_.ns_each(); }

  StepCosts step_costs() const {
    if (!fit_.is_known()) return {};
    return {static_cast<int64_t>(fit_.step_ns()), static_cast<int64_t>(fit_.row_ns())};
  }

  // Until when the next step may be planned so that it is there when the only one in flight is
  // over, by what such steps take and what planning was seen to; else, or where that is unknown,
  // `now`.
  Clock::time_point plan_next_at(Clock::time_point now) {
    const StepCosts costs = step_costs();
    if (steps_.size() != 1 || costs.row_ns == 0) return now;
    Step& step = steps_.front();
    step.was_awaited = true;
    const std::chrono::nanoseconds takes(costs.step_ns + step.num_rows * costs.row_ns);
    constexpr std::chrono::nanoseconds kLongest = std::chrono::milliseconds(200);
    return begin_of(step) + std::min(takes - lead_.of(takes), kLongest);
  }

 private:
  struct Step {
    Clock::time_point submitted;
    int32_t num_rows;
    bool prefills;  // most of it
    bool was_awaited = false;
    std::optional<bool> was_late = {};  // over before the next one was launched, if one was
  };

  Clock::time_point begin_of(const Step& step) const {
    return std::max(step.submitted, last_collected_);
  }

  std::deque<Step> steps_;
  Clock::time_point last_collected_;
  std::pair<std::deque<Step>, Clock::time_point> aside_;  // both
  Clock::time_point set_aside_at_;
  RecentRate tokens_{1 << 14};
  StepFit fit_;
  StepLead lead_;
};

}  // namespace lorax
