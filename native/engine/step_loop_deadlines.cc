// Deadlines: who ends because its own has come, and who is told early that it cannot be met.
//
// A request that has generated something ends with what it has; one that has not, or whose grammar
// does not let it end there, fails. One that waits is refused as soon as even its first token would
// come too late, as the pace of the queue has it: how long the output will be nobody knows.
#include <algorithm>
#include <chrono>

#include "engine/admission.h"
#include "engine/step_loop.h"

namespace lorax {

namespace {

int64_t milliseconds(Clock::duration duration) {
  return std::chrono::ceil<std::chrono::milliseconds>(duration).count();
}

// Where many wait, looking for those that will be late takes one part in so many of the time.
constexpr int32_t kLookShare = 20;
constexpr int32_t kMany = 256;

}  // namespace

void StepLoop::end_expired(Clock::time_point now) {
  const SequenceTable::ByDeadline& deadlines = sequences_.by_deadline();
  for (auto next = deadlines.begin(); next != deadlines.end() && next->first.first <= now;) {
    Sequence& sequence = *(next++)->second;
    if (sequence.is_complete()) continue;  // its last token is under way
    const grammar::Matcher* matcher = sequence.matcher.get();
    if (sequence.num_reported() > 0 && (matcher == nullptr || matcher->may_end())) {
      finish(sequence, FinishReason::kDeadline);
    } else {
      fail(sequence, deadline_exceeded({.allowed_ms = deadline_ms(sequence),
                                        .waited_ms = milliseconds(now - sequence.submitted),
                                        .num_outputs = sequence.num_reported(),
                                        .started = sequence.started}));
    }
  }
}

// In the order of their turns; each counts all before it.
void StepLoop::refuse_late(Clock::time_point begin) {
  if (sequences_.by_deadline().empty() || !pace_.is_known()) return;
  if (sequences_.num_waiting() > kMany && begin < next_look_) return;
  const auto wait_of = [&](const SequenceTable::Ahead& ahead, int64_t own_tokens) {
    const int64_t ns = pace_.wait_ns(ahead.num_requests + 1, sequences_.num_places(),
                                     ahead.num_tokens + own_tokens, ahead.num_prompt_tokens);
    return std::chrono::duration_cast<Clock::duration>(std::chrono::nanoseconds(ns));
  };
  sequences_.each_waiting([&](Sequence& sequence, const SequenceTable::Ahead& ahead) {
    if (sequence.started || sequence.deadline == kNoDeadline) return true;
    const auto is_late = [&](int64_t own_tokens) {
      return begin + wait_of(ahead, own_tokens) > sequence.deadline;
    };
    if (!is_late(sequence.num_prompt) || !is_late(sequences_.num_missing(sequence))) return true;
    const Clock::duration wait = wait_of(ahead, sequences_.num_missing(sequence));
    fail(sequence, deadline_exceeded({.allowed_ms = deadline_ms(sequence),
                                      .waited_ms = milliseconds(begin - sequence.submitted),
                                      .wait_ms = milliseconds(wait),
                                      .late_ms = milliseconds(begin + wait - sequence.deadline)}));
    return false;
  });
  const Clock::time_point end = Clock::now();
  next_look_ = end + kLookShare * (end - begin);
}

std::optional<std::chrono::milliseconds> StepLoop::until_deadline() const {
  const SequenceTable::ByDeadline& deadlines = sequences_.by_deadline();
  if (deadlines.empty()) return std::nullopt;
  const Clock::duration left = deadlines.begin()->first.first - Clock::now();
  constexpr auto kLongest = std::chrono::milliseconds(std::chrono::hours(1));
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left);
  return std::clamp(ms, std::chrono::milliseconds(0), kLongest);
}

int64_t StepLoop::deadline_ms(const Sequence& sequence) {
  return std::chrono::floor<std::chrono::milliseconds>(sequence.deadline - sequence.submitted)
      .count();
}

}  // namespace lorax
