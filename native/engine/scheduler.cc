// The scheduling policy; scheduler.h says what it guarantees.
#include "engine/scheduler.h"

#include <algorithm>

#include "memory/block_table.h"

namespace lorax {

namespace {

// Of a step's rows beside a flood, one in so many is for prompts within a tenant's part of what
// runs, however many the light have.
constexpr int32_t kFewRows = 16;

// The pages and adapters as they will be once what was decided so far is applied.
class Ledger {
 public:
  explicit Ledger(const SchedulerState& state)
      : available_(state.available_pages),
        coming_(state.coming_pages),
        in_flight_(state.in_flight),
        copies_beside_steps_(state.limits.copies_beside_steps),
        adapters_(state.adapters.begin(), state.adapters.end()) {}

  int32_t available() const { return available_; }
  // Now or when the steps in flight are over.
  int32_t expected() const { return available_ + coming_; }
  int32_t num_taken() const { return num_taken_; }

  void take(int32_t pages) {
    available_ -= pages;
    num_taken_ += pages;
  }
  // Keeps later sequences from pages that an earlier one waits for.
  void set_aside(int32_t pages) { coming_ -= pages; }

  struct Cost {
    int32_t taken;    // pages that have to be free
    int32_t claimed;  // pages that nobody uses and it will
    int32_t pages() const { return taken + claimed; }
  };

  // What admitting a sequence takes that has `kv_pages` in all.
  Cost cost_of(const ScheduledSequence& sequence, int32_t kv_pages) const {
    Cost cost{kv_pages - sequence.num_blocks, sequence.num_first_blocks};
    for (const int32_t i : sequence.adapters) {
      const ScheduledAdapter& adapter = adapters_[i];
      if (adapter.num_running > 0) continue;
      (adapter.resident ? cost.claimed : cost.taken) += adapter.num_pages;
    }
    return cost;
  }

  void admit(const ScheduledSequence& sequence, Cost cost) {
    take(cost.taken);
    available_ -= cost.claimed;
    for (const int32_t i : sequence.adapters) ++adapters_[i].num_running;
  }

  // An adapter of it is on its way, or will be once it is admitted.
  bool awaits_adapter(const ScheduledSequence& sequence) const {
    return copies_beside_steps_ && std::ranges::any_of(sequence.adapters, [this](int32_t i) {
             return !adapters_[i].has_arrived;
           });
  }

  // All that came after it has been released.
  void release(const ScheduledSequence& sequence) {
    int32_t pages = sequence.num_first_blocks;
    for (const int32_t i : sequence.adapters) {
      if (--adapters_[i].num_running == 0) pages += adapters_[i].num_pages;
    }
    (in_flight_ ? coming_ : available_) += pages;
  }

 private:
  int32_t available_;
  int32_t coming_;
  int32_t num_taken_ = 0;
  bool in_flight_;
  bool copies_beside_steps_;
  std::vector<ScheduledAdapter> adapters_;
};

int32_t remaining(const ScheduledSequence& sequence) {
  return sequence.num_tokens - sequence.num_computed;
}

bool decodes(const ScheduledSequence& sequence) {
  return sequence.generates || remaining(sequence) == 1;
}

// Nobody else is held up: the first whose adapter is on its way goes on, and meets it layer by
// layer.
void schedule_one_that_waits(const SchedulerState& state, Ledger* ledger, Schedule* schedule) {
  const auto num_running = static_cast<int32_t>(state.running.size());
  const int32_t gone =
      static_cast<int32_t>(schedule->preempted.size()) + (schedule->pool_full >= 0);
  for (int32_t i = 0; i < num_running + schedule->num_admitted; ++i) {
    if (i >= num_running - gone && i < num_running) continue;
    const bool runs = i < num_running;
    const ScheduledSequence& sequence = runs ? state.running[i] : state.waiting[i - num_running];
    if (!ledger->awaits_adapter(sequence)) continue;
    if (runs && decodes(sequence)) {
      const int32_t missing =
          blocks_for(sequence.num_tokens, state.limits.block_tokens) - sequence.num_blocks;
      if (ledger->available() < missing) continue;
      ledger->take(missing);
    }
    const int32_t tokens = std::min(remaining(sequence), state.limits.max_batch_tokens);
    schedule->chunks.push_back({i, tokens});
    return;
  }
}

}  // namespace

int32_t max_running_sequences(int32_t max_sequences, int32_t max_batch_tokens) {
  return std::max(1, std::min(max_sequences, max_batch_tokens / 2));
}

Schedule make_schedule(const SchedulerState& state) {
  const SchedulerLimits& limits = state.limits;
  const bool only_light = state.kind == StepKind::kLight;
  Schedule schedule;
  Ledger ledger(state);
  int32_t budget = limits.max_batch_tokens;
  // Running sequences [0, num_running) stay; victims are taken from the end.
  int32_t num_running = static_cast<int32_t>(state.running.size());
  int32_t num_waiting = static_cast<int32_t>(state.waiting.size());

  // Decodes. A sequence that finds no page preempts the newest, which is at worst itself. Each has
  // its row; what is left of their half goes to those with more tokens, the oldest first.
  int32_t spare = limits.max_batch_tokens / 2 -
                  static_cast<int32_t>(std::ranges::count_if(state.running, decodes));
  for (int32_t i = 0; i < num_running && budget > 0 && !only_light; ++i) {
    const ScheduledSequence& sequence = state.running[i];
    if (!decodes(sequence) || ledger.awaits_adapter(sequence)) continue;
    const int32_t missing =
        blocks_for(sequence.num_tokens, limits.block_tokens) - sequence.num_blocks;
    while (i < num_running && ledger.expected() < missing) {
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
    if (ledger.available() < missing) {
      ledger.set_aside(missing);
      continue;
    }
    ledger.take(missing);
    const int32_t tokens = std::min(remaining(sequence), 1 + std::max(0, spare));
    schedule.chunks.push_back({i, tokens});
    budget -= tokens;
    spare -= tokens - 1;
  }

  const int32_t num_stayed = num_running;
  // Rows that prompts of the light may have beside what is left: of those that yield, and of a
  // whole step, but for a few with which others get on whatever comes.
  const auto yields = [&schedule](const ScheduledSequence& s) {
    return !s.is_light && (schedule.others_wait || !s.keeps);
  };
  int32_t few = 0, light_rows = 0;
  for (const Chunk& chunk : schedule.chunks) {
    if (yields(state.running[chunk.sequence])) light_rows += chunk.num_tokens;
  }
  const bool is_flooded = state.flood_rows > 0 && state.flood_rows < limits.max_batch_tokens;
  if (is_flooded) {
    const int32_t more = limits.max_batch_tokens - state.flood_rows;
    few = std::min(more, std::max(1, state.flood_rows / kFewRows));
    budget -= more;
    light_rows += more - few;
  }
  const auto is_for_others = [&](const ScheduledSequence& sequence) {
    return sequence.is_light && state.kind == StepKind::kWithoutLight;
  };
  const auto rows_for = [&](const ScheduledSequence& sequence) {
    if (sequence.is_light) return budget + light_rows;
    return sequence.keeps ? std::max(budget, few) : budget;
  };

  const auto add_chunk = [&](int32_t index, const ScheduledSequence& sequence) {
    const int32_t tokens = std::min(remaining(sequence), rows_for(sequence));
    schedule.chunks.push_back({index, tokens});
    budget -= tokens;
    if (!sequence.is_light) few -= std::min(few, tokens);
  };

  // Prefill chunks. Their pages were taken at admission.
  const auto prefill = [&](bool light) {
    for (int32_t i = 0; i < num_stayed; ++i) {
      const ScheduledSequence& sequence = state.running[i];
      if (only_light ? sequence.generates || sequence.is_set_aside : decodes(sequence)) continue;
      if (sequence.is_light != light || rows_for(sequence) <= 0) continue;
      if (is_for_others(sequence)) continue;
      if (!ledger.awaits_adapter(sequence)) add_chunk(i, sequence);
    }
  };

  // Admissions, strictly in order: one that does not fit holds the others back, so it waits only
  // for those before it. Beside others a page is kept in reserve for each running sequence, or the
  // newcomer would be preempted at once; and nobody comes in the step in which somebody had to go,
  // who may have had what a newcomer found.
  if (num_running < static_cast<int32_t>(state.running.size())) num_waiting = 0;
  const auto admit = [&](bool light) {
    while (schedule.num_admitted < num_waiting && num_running < limits.max_running) {
      const int32_t i = schedule.num_admitted;
      const ScheduledSequence& sequence = state.waiting[i];
      if ((light && !sequence.is_light) || rows_for(sequence) <= 0) break;
      if (!sequence.is_light && num_running >= limits.max_running - state.light_places) break;
      const int32_t kv_pages = blocks_for(sequence.num_tokens, limits.block_tokens);
      const Ledger::Cost cost = ledger.cost_of(sequence, kv_pages);
      if (cost.pages() + num_running > ledger.expected()) break;
      if (ledger.available() < cost.pages()) break;
      ledger.admit(sequence, cost);
      ++num_running;
      ++schedule.num_admitted;
      if (is_for_others(sequence) || ledger.awaits_adapter(sequence)) continue;
      add_chunk(static_cast<int32_t>(state.running.size()) + i, sequence);
    }
  };

  prefill(true);
  admit(true);
  // Where decodes and prompts of the light make it longer than it should be, what is others'
  // whatever comes waits as well, but not in two such steps in a row.
  if (is_flooded && budget < 0 && !state.others_waited) {
    schedule.others_wait = true;
    few = 0;
  }
  if (!only_light) prefill(false), admit(false);
  // The newest of those that yield do.
  for (auto chunk = schedule.chunks.end(); budget < 0 && chunk != schedule.chunks.begin();) {
    --chunk;
    const size_t index = static_cast<size_t>(chunk->sequence);
    if (index >= state.running.size() || !yields(state.running[index])) continue;
    if (!decodes(state.running[index])) continue;
    budget += chunk->num_tokens;
    chunk = schedule.chunks.erase(chunk);
  }
  if (schedule.chunks.empty() && state.kind == StepKind::kAll) {
    schedule_one_that_waits(state, &ledger, &schedule);
  }

  schedule.num_taken_pages = ledger.num_taken();
  const auto by_arrival = [](const Chunk& a, const Chunk& b) { return a.sequence < b.sequence; };
  std::sort(schedule.chunks.begin(), schedule.chunks.end(), by_arrival);
  return schedule;
}

}  // namespace lorax
