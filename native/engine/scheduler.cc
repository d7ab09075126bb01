// The scheduling policy; scheduler.h says what it guarantees.
#include "engine/scheduler.h"

#include <algorithm>

#include "memory/block_table.h"

namespace lorax {

namespace {

// The pages and adapters as they will be once what was decided so far is applied.
class Ledger {
 public:
  Ledger(const SchedulerState& state, Schedule* schedule)
      : schedule_(schedule),
        free_(state.free_pages),
        coming_(state.retiring_pages),
        in_flight_(state.in_flight),
        adapters_(state.adapters.begin(), state.adapters.end()) {}

  int32_t free() const { return free_; }
  // Free now or when the steps in flight are over.
  int32_t expected() const { return free_ + coming_; }

  // Pages of those that are not resident.
  int32_t pages_to_load(std::span<const int32_t> adapters) const {
    int32_t pages = 0;
    for (const int32_t i : adapters) {
      if (!adapters_[i].resident) pages += adapters_[i].num_pages;
    }
    return pages;
  }

  // Pages of idle adapters, without those of `except`.
  int32_t evictable(std::span<const int32_t> except) const {
    int32_t pages = 0;
    for (int32_t i = 0; i < static_cast<int32_t>(adapters_.size()); ++i) {
      if (idle(i) && !contains(except, i)) pages += adapters_[i].num_pages;
    }
    return pages;
  }

  // Evicts idle adapters, the least recently used first, until `pages` are expected; bringing one
  // back is a copy, while a preempted sequence has to be computed again. False if that is not
  // enough.
  bool make_room(int32_t pages, std::span<const int32_t> except) {
    while (expected() < pages) {
      int32_t victim = -1;
      for (int32_t i = 0; i < static_cast<int32_t>(adapters_.size()); ++i) {
        if (!idle(i) || contains(except, i)) continue;
        const bool older =
            victim < 0 || adapters_[i].last_used_step < adapters_[victim].last_used_step;
        if (older) victim = i;
      }
      if (victim < 0) return false;
      adapters_[victim].resident = false;
      give_up(adapters_[victim].num_pages);
      schedule_->evicted.push_back(victim);
    }
    return true;
  }

  void take(int32_t pages) { free_ -= pages; }
  // Keeps later sequences from pages that an earlier one waits for.
  void set_aside(int32_t pages) { coming_ -= pages; }

  void admit(const ScheduledSequence& sequence, int32_t kv_pages) {
    take(kv_pages + pages_to_load(sequence.adapters));
    for (const int32_t i : sequence.adapters) {
      adapters_[i].resident = true;
      ++adapters_[i].num_running;
    }
  }

  void release(const ScheduledSequence& sequence) {
    give_up(sequence.num_blocks);
    for (const int32_t i : sequence.adapters) --adapters_[i].num_running;
  }

 private:
  static bool contains(std::span<const int32_t> adapters, int32_t i) {
    return std::ranges::find(adapters, i) != adapters.end();
  }
  bool idle(int32_t i) const { return adapters_[i].resident && adapters_[i].num_running == 0; }
  void give_up(int32_t pages) { (in_flight_ ? coming_ : free_) += pages; }

  Schedule* schedule_;
  int32_t free_;
  int32_t coming_;
  bool in_flight_;
  std::vector<ScheduledAdapter> adapters_;
};

int32_t remaining(const ScheduledSequence& sequence) {
  return sequence.num_tokens - sequence.num_computed;
}

bool decodes(const ScheduledSequence& sequence) {
  return sequence.generates || remaining(sequence) == 1;
}

}  // namespace

int32_t max_running_sequences(int32_t max_sequences, int32_t max_batch_tokens) {
  return std::max(1, std::min(max_sequences, max_batch_tokens / 2));
}

Schedule make_schedule(const SchedulerState& state) {
  const SchedulerLimits& limits = state.limits;
  Schedule schedule;
  Ledger ledger(state, &schedule);
  int32_t budget = limits.max_batch_tokens;
  // Running sequences [0, num_running) stay; victims are taken from the end.
  int32_t num_running = static_cast<int32_t>(state.running.size());

  // Decodes. A sequence that finds no page preempts the newest, which is at worst itself. Each has
  // its row; what is left of their half goes to those with more tokens, the oldest first.
  int32_t spare = limits.max_batch_tokens / 2 -
                  static_cast<int32_t>(std::ranges::count_if(state.running, decodes));
  for (int32_t i = 0; i < num_running && budget > 0; ++i) {
    const ScheduledSequence& sequence = state.running[i];
    if (!decodes(sequence)) continue;
    const int32_t missing =
        blocks_for(sequence.num_tokens, limits.block_tokens) - sequence.num_blocks;
    while (i < num_running && !ledger.make_room(missing, {})) {
      const int32_t newest = num_running - 1;
      if (newest == 0 && state.in_flight) break;
      ledger.release(state.running[newest]);
      if (decodes(state.running[newest])) ++spare;
      if (newest == 0) {
        schedule.pool_full = newest;
      } else {
        schedule.preempted.push_back(newest);
      }
      --num_running;
    }
    if (i >= num_running) break;
    if (ledger.free() < missing) {
      ledger.set_aside(missing);
      continue;
    }
    ledger.take(missing);
    const int32_t tokens = std::min(remaining(sequence), 1 + std::max(0, spare));
    schedule.chunks.push_back({i, tokens});
    budget -= tokens;
    spare -= tokens - 1;
  }

  // Prefill chunks. Their pages were taken at admission.
  for (int32_t i = 0; i < num_running && budget > 0; ++i) {
    if (decodes(state.running[i])) continue;
    const int32_t tokens = std::min(remaining(state.running[i]), budget);
    schedule.chunks.push_back({i, tokens});
    budget -= tokens;
  }

  // Admissions, strictly in order: one that does not fit holds the others back, so it waits only
  // for those before it. Beside others a page is kept in reserve for each running sequence, or the
  // newcomer would be preempted at once; and nobody comes in the step in which somebody had to go.
  for (int32_t i = 0; schedule.preempted.empty() && i < static_cast<int32_t>(state.waiting.size());
       ++i) {
    if (budget <= 0 || num_running >= limits.max_running) break;
    const ScheduledSequence& sequence = state.waiting[i];
    const int32_t kv_pages = blocks_for(sequence.num_tokens, limits.block_tokens);
    const int32_t pages = kv_pages + ledger.pages_to_load(sequence.adapters);
    if (pages + num_running > ledger.expected() + ledger.evictable(sequence.adapters)) break;
    ledger.make_room(pages, sequence.adapters);
    if (ledger.free() < pages) break;
    ledger.admit(sequence, kv_pages);
    ++num_running;
    ++schedule.num_admitted;
    const int32_t tokens = std::min(remaining(sequence), budget);
    schedule.chunks.push_back({static_cast<int32_t>(state.running.size()) + i, tokens});
    budget -= tokens;
  }

  const auto by_arrival = [](const Chunk& a, const Chunk& b) { return a.sequence < b.sequence; };
  std::sort(schedule.chunks.begin(), schedule.chunks.end(), by_arrival);
  return schedule;
}

}  // namespace lorax
