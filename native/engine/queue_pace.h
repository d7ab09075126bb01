// How fast the queue moves, as measured here: what a request waits for that is so far down in it.
//
// While requests wait, one is admitted every so often: a part of that time goes by their tokens, at
// the speed of prefill; the rest (`turn_ns`) is what decoding and waiting for a place take for
// each, whatever its length. Both are measured; nothing is guessed before. Engine thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "backend/recent_rate.h"

namespace lorax {

class QueuePace {
 public:
  using Clock = std::chrono::steady_clock;

  // First admissions since the engine began.
  struct Admitted {
    int64_t requests = 0;
    int64_t prompt_tokens = 0;
    int64_t computed_tokens = 0;  // of the prompts, those that no cache had
  };

  // Of prefill; 0: unknown.
  void set_token_ns(int64_t token_ns) { token_ns_ = token_ns; }

  // After each schedule. `waits`: somebody is left waiting.
  void observe(Clock::time_point now, const Admitted& so_far, bool waits) {
    const int64_t requests = so_far.requests - before_.requests;
    const int64_t computed = so_far.computed_tokens - before_.computed_tokens;
    if (waits_) {
      each_.add(requests, std::chrono::nanoseconds(now - at_).count());
      tokens_each_.add(requests, computed);
    }
    computed_share_.add(so_far.prompt_tokens - before_.prompt_tokens, computed * kShare);
    num_refused_ = std::max<int64_t>(0, num_refused_ - requests);
    before_ = so_far;
    at_ = now;
    waits_ = waits;
  }

  // From one admission to the next while others wait; 0: unknown.
  int64_t admission_ns() const { return each_.ns_each(); }

  // False until there is anything to tell from.
  bool is_known() const { return token_ns_ > 0 || each_.ns_each() > 0; }

  // Of that many waiting requests, these among them, until the last of them has its first token.
  // `tokens` are to be computed for them, beside `num_prompt` more that a cache may have; with
  // nobody left waiting by the last schedule, `num_places` of them need not wait for a place.
  int64_t wait_ns(int64_t requests, int64_t num_places, int64_t tokens, int64_t num_prompt) const {
    const int64_t turns = waits_ ? requests : std::max<int64_t>(0, requests - num_places);
    const int64_t share = before_.prompt_tokens == 0 ? kShare : computed_share_.ns_each();
    const int64_t computed = tokens + num_prompt * share / kShare;
    return turns * turn_ns() + computed * token_ns_;
  }

  // One more was refused for want of a place in the queue: in about this time one is there that is
  // not for those refused before it. 0: unknown.
  int64_t refused() { return each_.ns_each() * ++num_refused_; }

 private:
  static constexpr int64_t kShare = 1 << 10;

  int64_t turn_ns() const {
    return std::max<int64_t>(0, each_.ns_each() - tokens_each_.ns_each() * token_ns_);
  }

  RecentRate each_{64};  // admissions while others wait
  RecentRate tokens_each_{64};
  RecentRate computed_share_{1 << 14};  // of prompt tokens, times kShare
  Admitted before_;
  Clock::time_point at_;
  bool waits_ = false;
  int64_t token_ns_ = 0;
  int64_t num_refused_ = 0;
};

}  // namespace lorax
