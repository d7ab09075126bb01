// How long a token takes that is computed with others: what it costs to compute a prefix again.
//
// Counts steps that mostly prefill, from when one could begin, which is when it was submitted or
// when the one before it was over, until it was collected. Owned by the decoder; engine thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>

#include "backend/recent_rate.h"
#include "backend/step_plan.h"

namespace lorax {

class StepTimer {
 public:
  using Clock = std::chrono::steady_clock;

  void submitted(const StepPlan& plan, Clock::time_point at) {
    int32_t num_prefilled = 0;
    for (const SequenceSpan& span : plan.spans) {
      if (span.num_rows > 1) num_prefilled += span.num_rows;
    }
    const bool prefills = 2 * num_prefilled > plan.num_rows();
    steps_.push_back({at, prefills ? plan.num_rows() : 0});
  }

  void collected(Clock::time_point at) {
    const Step step = steps_.front();
    steps_.pop_front();
    const auto took = at - std::max(step.submitted, last_collected_);
    last_collected_ = at;
    if (step.num_rows == 0) return;
    tokens_.add(step.num_rows, std::chrono::nanoseconds(took).count());
  }

  // 0: nothing was measured yet.
  int64_t token_ns() const { return tokens_.ns_each(); }

 private:
  struct Step {
    Clock::time_point submitted;
    int32_t num_rows;  // 0: not counted
  };
  std::deque<Step> steps_;
  Clock::time_point last_collected_;
  RecentRate tokens_{1 << 14};
};

}  // namespace lorax
