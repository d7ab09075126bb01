// How long before the end of a step the next one is begun to be planned, where it is planned as
// late as may be: so long that the device waits for one in twenty.
//
// What planning and submitting take, and how far off what is expected of a step is, is not
// modelled: the lead follows that quantile (Robbins and Monro 1951, "A Stochastic Approximation
// Method"). Each step it is shortened a little; one that was late lengthens it by nineteen times as
// much. Owned by StepTimer.
#pragma once

#include <algorithm>
#include <chrono>

namespace lorax {

class StepLead {
 public:
  using Duration = std::chrono::nanoseconds;

  // Of a step that is expected to take so long: at most half of it, and at first a quarter.
  Duration of(Duration takes) const { return std::min(known_ ? lead_ : takes / 4, takes / 2); }

  // A step that took so long was over before the next one was launched, or was not.
  void observe(bool late, Duration took) {
    if (!known_) lead_ = took / 4;
    known_ = true;
    const Duration little = took / kLittle;
    lead_ = std::clamp(lead_ + (late ? (kSteps - 1) * little : -little), Duration(0), took / 2);
  }

 private:
  static constexpr int kSteps = 20;    // of which one is late
  static constexpr int kLittle = 500;  // parts of a step

  Duration lead_{0};
  bool known_ = false;
};

}  // namespace lorax
