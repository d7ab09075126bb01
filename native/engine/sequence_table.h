// The open sequences of an engine and the pages they hold: who waits, who runs, with which adapters
// and prefixes.
//
// Always holds: running sequences are in the order of their turns, and all of them had theirs
// before those that were preempted, who come back before anyone has a first turn; only running
// sequences hold pages, and a sum where they are embedded; an adapter is resident while one of its
// sequences runs. A sequence whose last token is in flight ends: it holds nothing and waits for
// that token. free + held by sequences + cold + adapter + retiring = all pages. Changed by the
// engine thread alone.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/adapter_cache.h"
#include "engine/eviction_queue.h"
#include "engine/fair_queue.h"
#include "engine/prefix_cache.h"
#include "engine/queue_pace.h"
#include "engine/scheduler.h"
#include "engine/sequence.h"
#include "engine/step_length.h"
#include "memory/page_pool.h"

namespace lorax {

class SequenceTable {
 public:
  SequenceTable(Model& model, SchedulerLimits limits, const HostTier& host);

  // Queues a sequence that was found to fit. When it throws, nothing was added.
  // `max_tokens` as in Sequence.
  Sequence& add(Request request, Clock::time_point submitted, int32_t max_tokens);

  // One adapter more of those hinted at is on its way into pages, if there are some for it. Before
  // schedule(). False when nothing has changed.
  bool place_expected();

  // What make_schedule says of the state as it is, on a device of which steps take that.
  Schedule schedule(const StepCosts& costs);

  // Likewise of a step for which the one in flight is set aside, of so many rows: nothing, unless
  // one tenant floods the engine.
  Schedule schedule_light(int32_t max_rows);

  // That have anything open, or had while others had.
  int32_t num_tenants() const { return queue_.num_tenants(); }
  // Whether one tenant floods the engine beside others.
  bool is_flooded() const { return queue_.is_flooded(); }

  // Whether that found anybody but those who wait for adapters on disk.
  bool any_ready() const { return any_ready_; }

  // Preempts and admits as `schedule` says (its pool_full was closed before), the one just made.
  // Returns the sequence of each chunk, with pages for all its tokens.
  std::vector<Sequence*> apply(const Schedule& schedule);

  // A running sequence's newest chunk was submitted: what it has computed may be found.
  void publish(Sequence& sequence);

  // An output token is being sampled for it.
  void charge_output(const Sequence& sequence) { queue_.charge(sequence, kOutputTokenCost); }

  // A running sequence whose last token is in flight gives up its place, pages and adapters.
  void expect_end(Sequence& sequence);

  // Frees everything the sequence holds, and the sequence. Throws std::logic_error alone.
  void close(Sequence& sequence);

  Sequence* find(int32_t id) const;                   // null when no such request is open
  Sequence* find(int32_t id, int64_t arrival) const;  // null also when the id is another's by now
  Sequence* waiting_for(int32_t adapter) const;       // to be placed; null when none does
  Sequence* any() const { return by_id_.empty() ? nullptr : by_id_.begin()->second.get(); }
  Sequence& running(int32_t index) const { return *running_[index]; }
  // Those open that have one, the earliest first; of equal ones in order of arrival.
  using ByDeadline = std::map<std::pair<Clock::time_point, int64_t>, Sequence*>;
  const ByDeadline& by_deadline() const { return by_deadline_; }

  // What has to be computed before a waiting sequence has its turn.
  struct Ahead {
    int64_t num_requests = 0;       // that wait
    int64_t num_tokens = 0;         // of those that run
    int64_t num_prompt_tokens = 0;  // of those that wait, whether the cache has them or not
  };
  // Visits those that wait in the order of their turns, as far as one has a deadline. `visit`
  // returns false for one that it has closed, which then counts no more.
  void each_waiting(const std::function<bool(Sequence&, const Ahead&)>& visit);
  // Of a waiting sequence's tokens, those that no cache has.
  int32_t num_missing(const Sequence& sequence) const;
  const QueuePace::Admitted& admitted() const { return admitted_; }
  // Who goes where too many wait: the last in the longest line of a tenant. Null: all have started.
  Sequence* last_of_longest() const { return static_cast<Sequence*>(queue_.last_of_longest()); }
  int32_t num_open() const { return static_cast<int32_t>(by_id_.size()); }
  int32_t num_running() const { return static_cast<int32_t>(running_.size() + ending_.size()); }
  // That are left for more to run, memory permitting.
  int32_t num_places() const { return limits_.max_running - static_cast<int32_t>(running_.size()); }
  int32_t num_waiting() const { return static_cast<int32_t>(preempted_.size()) + queue_.size(); }
  int64_t num_preemptions() const { return num_preemptions_; }

  PagePool& pool() { return pool_; }
  AdapterCache& adapters() { return adapters_; }
  const AdapterCache& adapters() const { return adapters_; }
  const PrefixCache& prefixes() const { return prefixes_; }

  // Throws std::logic_error. `in_flight`: how many samples of each arrival are.
  void check_invariants(const std::map<int64_t, int32_t>& in_flight) const;

 private:
  // Who waits so near the front has its adapters read from disk.
  static constexpr int32_t kReadAhead = 32;
  // In one schedule, for their adapters are on disk.
  static constexpr int32_t kMostPassedOver = 256;
  // To its tenant, beside a prompt token's 1: Sheng et al. take the same.
  static constexpr int64_t kOutputTokenCost = 2;
  // One place in so many is kept for tenants that are within their share.
  static constexpr int32_t kLightShare = 16;

  SchedulerState describe_all();
  int32_t num_places_in_all() const;
  int32_t flood_rows(const StepCosts& costs) const;
  ScheduledSequence describe(const Sequence& sequence, int32_t num_computed,
                             std::span<const int32_t> pages);
  void describe_waiting(std::vector<ScheduledSequence>* waiting);
  bool bring_adapters(const Sequence& sequence);
  int32_t num_first(std::span<const int32_t> pages);
  void preempt_newest();
  void claim(Sequence& sequence, const PrefixCache::Found& found);
  void admit(Sequence& sequence);
  void let_go(Sequence& sequence);

  const ModelLimits model_limits_;
  const SchedulerLimits limits_;
  PagePool pool_;
  SumSlots sums_;
  EvictionQueue evictable_;
  PrefixCache prefixes_;
  AdapterCache adapters_;
  std::unordered_map<int32_t, std::unique_ptr<Sequence>> by_id_;
  ByDeadline by_deadline_;
  std::vector<Sequence*> running_;
  std::vector<Sequence*> ending_;
  std::deque<Sequence*> preempted_;
  FairQueue queue_;  // those that were never admitted
  // Of the schedule being made; buffers are reused.
  std::vector<ScheduledAdapter> described_adapters_;
  std::vector<ScheduledSequence> described_running_, described_waiting_;
  std::vector<int32_t> handles_;           // [adapters]
  std::vector<Sequence*> next_;            // waiting sequences described
  std::vector<PrefixCache::Found> found_;  // [next_]
  std::vector<int64_t> seen_;  // [pages]: the newest schedule in which a sequence had it
  bool any_ready_ = false;
  bool others_waited_ = false;  // Schedule::others_wait of the newest schedule
  int64_t num_schedules_ = 0;
  int64_t num_arrivals_ = 0;
  QueuePace::Admitted admitted_;
  StepLength step_length_;
  int64_t num_preemptions_ = 0;
};

}  // namespace lorax
