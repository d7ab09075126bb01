// The steps that were submitted to the model and not collected: their plans, who waits for which
// sample or sum, and what they hold.
//
// Always holds: a plan and the adapters it names live until their step is over; the pool's fence
// passes a step when it is over, after what it held was dropped. Engine thread.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/sequence.h"
#include "memory/page_pool.h"

namespace lorax {

struct StepInFlight {
  // Its id may be another request's when the sample is there; its arrival never is. Nobody waits
  // for a sample of kNobody.
  static constexpr int64_t kNobody = 0;
  struct Sampled {
    int32_t id;
    int64_t arrival;
    bool decodes;
  };

  struct Embedded {
    int32_t id;
    int64_t arrival;
  };

  StepPlan plan;
  std::vector<Sampled> sampled;    // [plan.samples.size()]
  std::vector<Embedded> embedded;  // [sums that end]
  std::vector<uint32_t> masks;     // those that plan.samples name, in their order
  std::vector<std::shared_ptr<const ResidentAdapter>> adapters;
  EngineStats::Step stats;
  Clock::time_point begin;  // of the turn that planned it
};

class StepsInFlight {
 public:
  StepsInFlight(Model& model, PagePool& pool);

  // Steps that may still be in flight at the end of a turn that submitted one.
  int32_t ahead() const { return ahead_; }
  int32_t size() const { return size_; }

  // To be planned into; its buffers are an older step's.
  StepInFlight& next() { return slots_[(first_ + size_) % slots_.size()]; }

  // Submits next(), which becomes newest().
  void submit();
  StepInFlight& newest() { return slots_[(first_ + size_ - 1) % slots_.size()]; }

  // Samples newest(), once its masks are filled.
  void sample();
  bool is_sampled() const { return sampled_; }

  // The newest step's sample for `arrival` is not waited for any more.
  void forget_sample(int64_t arrival);

  // Waits for the oldest step; it is over, also when this throws. `results` [sampled.size()],
  // `sums` [embedded.size(), hidden]. All are valid until next() is filled.
  struct Collected {
    StepInFlight& step;
    std::span<const SampleResult> results;
    std::span<const float> sums;
  };
  Collected collect();

  // To be planned into, for a step that is computed whole while the newest is set aside: its masks
  // are filled by then. No page that was dropped since that one was submitted is used again before
  // it is over, so the fence need not know of it. The rest as of next() and collect().
  StepInFlight& aside() { return aside_; }
  Collected compute_aside();

  // Waits for all of them and forgets what they sampled.
  void abandon() noexcept;

  // How many samples, or sums that end, of each arrival are in flight.
  std::map<int64_t, int32_t> num_samples() const;

 private:
  void over(StepInFlight& step);

  // A plan names samples of the step before alone, so there is never more than one ahead.
  static constexpr int32_t kMaxAhead = 1;

  Model& model_;
  PagePool& pool_;
  const int32_t ahead_;
  std::array<StepInFlight, kMaxAhead + 1> slots_;  // a ring of size_ from first_ on
  StepInFlight aside_;
  int32_t first_ = 0;
  int32_t size_ = 0;
  bool sampled_ = true;  // newest() is, if there is one
  int64_t newest_step_ = 0;
  std::vector<SampleResult> results_;
};

}  // namespace lorax
