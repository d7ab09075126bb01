// Applying schedules: the only place where sequences gain and lose pages.
#include "engine/sequence_table.h"

#include <algorithm>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

namespace lorax {

namespace {

[[noreturn]] void broken(const std::string& what) {
  throw std::logic_error("sequence table: " + what);
}

SequenceTable::ByDeadline::key_type deadline_key(const Sequence& sequence) {
  return {sequence.deadline, sequence.arrival};
}

TenantKey tenant_of(const Request& request) {
  TenantKey key{request.tenant, {}};
  if (!request.tenant.empty()) return key;
  for (const AdapterUse& use : request.adapters) key.adapters.push_back(use.handle);
  return key;
}

}  // namespace

SequenceTable::SequenceTable(Model& model, SchedulerLimits limits, const HostTier& host)
    : model_limits_(model.limits()),
      limits_(limits),
      pool_(model_limits_.num_pages),
      sums_(limits.max_running),
      evictable_(pool_),
      prefixes_(model, pool_, evictable_),
      adapters_(model, pool_, evictable_, prefixes_, host),
      seen_(model_limits_.num_pages, 0) {}

Sequence& SequenceTable::add(Request request, Clock::time_point submitted, int32_t max_tokens) {
  TenantKey tenant = tenant_of(request);
  auto owned = std::make_unique<Sequence>(std::move(request), submitted, ++num_arrivals_,
                                          max_tokens, model_limits_, prefixes_);
  Sequence& sequence = *owned;
  by_id_[sequence.id] = std::move(owned);
  try {
    sequence.num_new_tokens = sequence.num_prompt;
    if (sequence.deadline != kNoDeadline) by_deadline_[deadline_key(sequence)] = &sequence;
    queue_.add(std::move(tenant), sequence);
  } catch (...) {
    by_deadline_.erase(deadline_key(sequence));
    by_id_.erase(sequence.id);
    throw;
  }
  for (const AdapterUse& use : sequence.adapters) adapters_.open_request(use.handle);
  return sequence;
}

// ---- schedules ----

Schedule SequenceTable::schedule(const StepCosts& costs) {
  SchedulerState state = describe_all();
  if (model_limits_.can_set_aside && queue_.is_flooded()) {
    state.kind = StepKind::kWithoutLight;
  } else {
    state.flood_rows = flood_rows(costs);
  }
  Schedule schedule = make_schedule(state);
  if (schedule.chunks.empty() && state.kind == StepKind::kWithoutLight) {
    // Nobody else has anything to compute: it is their step.
    state.kind = StepKind::kAll;
    schedule = make_schedule(state);
  }
  others_waited_ = schedule.others_wait;
  any_ready_ = !state.running.empty() || !state.waiting.empty();
  if (schedule.chunks.empty() && schedule.pool_full < 0 && any_ready_ && !state.in_flight) {
    broken("there are sequences but nothing to schedule");
  }
  return schedule;
}

Schedule SequenceTable::schedule_light(int32_t max_rows) {
  SchedulerState state = describe_all();
  if (!queue_.is_flooded()) return {};
  state.kind = StepKind::kLight;
  state.limits.max_batch_tokens = max_rows;
  return make_schedule(state);
}

// As it is; what it refers to is this table's until the next one.
SchedulerState SequenceTable::describe_all() {
  evictable_.refresh();
  ++num_schedules_;
  adapters_.describe(&described_adapters_, &handles_);
  queue_.share_places(num_places_in_all(), static_cast<int32_t>(running_.size()),
                      limits_.max_batch_tokens);
  described_running_.clear();
  for (const Sequence* sequence : running_) {
    described_running_.push_back(
        describe(*sequence, sequence->num_computed, sequence->blocks.pages()));
  }
  described_waiting_.clear();
  describe_waiting(&described_waiting_);
  SchedulerState state;
  state.limits = limits_;
  state.available_pages = pool_.num_free() + evictable_.num_ready_pages();
  state.running = described_running_;
  state.waiting = described_waiting_;
  state.adapters = described_adapters_;
  state.in_flight = pool_.in_flight();
  state.coming_pages = pool_.counts().retiring + evictable_.num_fresh_pages();
  state.light_places = queue_.num_tenants() > 1 ? limits_.max_running / kLightShare : 0;
  state.others_waited = others_waited_;
  return state;
}

// With as many pages each as those that run have.
int32_t SequenceTable::num_places_in_all() const {
  const auto num_running = static_cast<int64_t>(running_.size());
  const int64_t num_held = pool_.counts().kv - prefixes_.num_cold();
  if (num_running == 0 || num_held <= 0) return limits_.max_running;
  const int64_t available = pool_.num_free() + evictable_.num_ready_pages();
  const int64_t more = available * num_running / num_held;
  return static_cast<int32_t>(std::min<int64_t>(limits_.max_running, num_running + more));
}

int32_t SequenceTable::flood_rows(const StepCosts& costs) const {
  if (!queue_.is_flooded()) return 0;
  const int32_t full = step_length_.full(num_places_in_all(), limits_.max_batch_tokens);
  return StepLength::beside_flood(full, limits_.max_batch_tokens, model_limits_.row_tile, costs);
}

// Of pages that the sequences described so far have, those that come for the first time.
int32_t SequenceTable::num_first(std::span<const int32_t> pages) {
  int32_t count = 0;
  for (const int32_t page : pages) {
    count += seen_[page] != num_schedules_;
    seen_[page] = num_schedules_;
  }
  return count;
}

ScheduledSequence SequenceTable::describe(const Sequence& sequence, int32_t num_computed,
                                          std::span<const int32_t> pages) {
  ScheduledSequence described{sequence.num_tokens_ahead(),
                              num_computed,
                              static_cast<int32_t>(pages.size()),
                              num_first(pages),
                              {},
                              sequence.generates};
  described.is_set_aside = pool_.in_flight() && sequence.newest_step == pool_.submitted_step();
  Tenant& tenant = sequence.tenant->second;
  described.keeps = tenant.num_placed++ < tenant.part;
  // Its prompts come first too, where they make no step longer than others are.
  described.is_light = tenant.is_light || (described.keeps && !queue_.is_flooded());
  for (const AdapterUse& use : sequence.adapters) {
    const auto found = std::ranges::lower_bound(handles_, use.handle);
    described.adapters.push_back(static_cast<int32_t>(found - handles_.begin()));
  }
  return described;
}

// Those that may be admitted in one step, in the order of their turns: no more than the places that
// are left, or than have a token each to compute. Those whose adapters are on disk are passed over,
// and have them read; so have some who come after, while any is on disk. Who was preempted keeps
// its place before all others.
void SequenceTable::describe_waiting(std::vector<ScheduledSequence>* waiting) {
  next_.clear();
  found_.clear();
  const size_t num_places = limits_.max_running - running_.size();
  FairQueue::Order order = queue_.order();
  int32_t num_rows = 0;
  int32_t num_ahead = adapters_.any_on_disk() ? kReadAhead : 0;
  int32_t num_passed_over = 0;
  while (num_passed_over < kMostPassedOver) {
    const bool is_full = waiting->size() >= num_places || num_rows >= limits_.max_batch_tokens;
    if (is_full && num_ahead-- == 0) break;
    const bool returns = next_.size() < preempted_.size();
    Sequence* sequence = returns ? preempted_[next_.size()] : static_cast<Sequence*>(order.next());
    if (sequence == nullptr) break;
    const bool is_ready = bring_adapters(*sequence);
    if (returns && (is_full || !is_ready)) break;
    if (!is_ready) ++num_passed_over;
    if (is_full || !is_ready) continue;
    next_.push_back(sequence);
    found_.emplace_back();
    // What is pooled has to be computed.
    if (!sequence->embedding) found_.back() = prefixes_.find(sequence->prefix, sequence->tokens);
    const std::vector<int32_t>& pages = found_.back().pages;
    const int32_t num_found = static_cast<int32_t>(pages.size()) * limits_.block_tokens;
    waiting->push_back(describe(*sequence, num_found, pages));
    num_rows += waiting->back().num_tokens - num_found;
  }
}

bool SequenceTable::bring_adapters(const Sequence& sequence) {
  bool here = true;
  for (const AdapterUse& use : sequence.adapters) here &= adapters_.bring(use.handle);
  return here;
}

// Each running sequence keeps a page in reserve, and nothing goes that is worth more.
bool SequenceTable::place_expected() {
  const std::optional<AdapterCache::Expected> next = adapters_.next_expected();
  if (!next) return false;
  evictable_.refresh();
  const int32_t wanted = next->num_pages + num_running();
  while (pool_.num_free() < wanted) {
    const std::optional<int64_t> least = evictable_.least_priority();
    if (!least || *least > next->priority || !evictable_.evict_least()) break;
  }
  if (pool_.num_free() >= wanted) {
    adapters_.place_expected(next->handle);
  } else if (pool_.num_free() + pool_.counts().retiring + evictable_.num_fresh_pages() >= wanted) {
    return false;  // after the steps in flight
  } else {
    adapters_.give_up_expected(next->handle);
  }
  return true;
}

std::vector<Sequence*> SequenceTable::apply(const Schedule& schedule) {
  // Chunks count the running sequences as they were before anyone left, then the waiting ones.
  const size_t num_left = schedule.preempted.size() + (schedule.pool_full >= 0 ? 1 : 0);
  for (size_t i = 0; i < schedule.preempted.size(); ++i) preempt_newest();
  // Before anything is given up, those who come hold what they need of it.
  for (int32_t i = 0; i < schedule.num_admitted; ++i) claim(*next_[i], found_[i]);
  while (pool_.num_free() < schedule.num_taken_pages) {
    if (!evictable_.evict_least()) broken("nothing is left to be given up");
  }
  const size_t num_stayed = running_.size();
  for (int32_t i = 0; i < schedule.num_admitted; ++i) admit(*next_[i]);

  std::vector<Sequence*> scheduled;
  for (const Chunk& chunk : schedule.chunks) {
    const auto index = static_cast<size_t>(chunk.sequence);
    Sequence& sequence = *running_[index < num_stayed ? index : index - num_left];
    // A prefill's pages were taken at admission: this takes a decode's next pages.
    if (!sequence.blocks.append(pool_, sequence.num_tokens_ahead())) broken("a page is missing");
    scheduled.push_back(&sequence);
  }
  return scheduled;
}

// ---- what sequences hold ----

void SequenceTable::preempt_newest() {
  preempted_.push_front(running_.back());  // what may throw comes before anything has moved
  running_.pop_back();
  let_go(*preempted_.front());
  ++num_preemptions_;
}

void SequenceTable::claim(Sequence& sequence, const PrefixCache::Found& found) {
  prefixes_.hold(found, &sequence.prefix, &sequence.blocks);
  sequence.num_computed = sequence.prefix.num_blocks() * limits_.block_tokens;
  for (const AdapterUse& use : sequence.adapters) adapters_.start_running(use.handle);
  sequence.uses_adapters = true;
}

void SequenceTable::admit(Sequence& sequence) {
  running_.reserve(running_.size() + 1);  // as above
  for (const AdapterUse& use : sequence.adapters) adapters_.place(use.handle);
  running_.push_back(&sequence);
  if (sequence.turn > 0) {
    preempted_.pop_front();
  } else {
    sequence.num_new_tokens = sequence.num_tokens() - sequence.num_computed;
    queue_.take_turn(sequence);
    sequence.turn = ++admitted_.requests;
    admitted_.prompt_tokens += sequence.num_tokens();
    admitted_.computed_tokens += sequence.num_new_tokens;
  }
  if (!sequence.blocks.append(pool_, sequence.num_tokens())) broken("a page is missing");
  if (sequence.embedding) sequence.sum = sums_.take();
}

void SequenceTable::publish(Sequence& sequence) {
  if (sequence.embedding) return;
  const int32_t num_known = std::min(sequence.num_computed, sequence.num_tokens());
  prefixes_.publish(sequence.tokens, num_known, &sequence.prefix, &sequence.blocks);
}

void SequenceTable::expect_end(Sequence& sequence) {
  ending_.push_back(&sequence);  // as above
  std::erase(running_, &sequence);
  let_go(sequence);
}

void SequenceTable::let_go(Sequence& sequence) {
  sequence.blocks.truncate(0);
  sequence.prefix.release();
  sequence.sum = {};
  sequence.num_computed = 0;
  sequence.generates = false;
  if (!std::exchange(sequence.uses_adapters, false)) return;
  for (const AdapterUse& use : sequence.adapters) adapters_.stop_running(use.handle);
}

void SequenceTable::close(Sequence& sequence) {
  const auto owned = by_id_.extract(sequence.id);  // forgotten, also where the rest throws
  std::erase(running_, &sequence);
  std::erase(ending_, &sequence);
  std::erase(preempted_, &sequence);
  by_deadline_.erase(deadline_key(sequence));
  queue_.close(sequence);
  if (sequence.num_outputs() > 0) {
    step_length_.observe(sequence.num_tokens() - sequence.num_cached, sequence.num_outputs());
  }
  let_go(sequence);
  for (const AdapterUse& use : sequence.adapters) adapters_.close_request(use.handle);
}

void SequenceTable::each_waiting(const std::function<bool(Sequence&, const Ahead&)>& visit) {
  Ahead ahead;
  for (const Sequence* sequence : running_) {
    ahead.num_tokens += sequence->num_tokens_ahead() - sequence->num_computed;
  }
  int64_t num_left = 0;  // of those that wait with a deadline
  for (const auto& [key, sequence] : by_deadline_) num_left += sequence->turn == 0;
  for (const Sequence* sequence : preempted_) {
    ++ahead.num_requests;
    ahead.num_prompt_tokens += sequence->num_tokens();
  }
  // Of the queue as it is, which a closed one leaves.
  std::vector<Sequence*> waiting;
  FairQueue::Order order = queue_.order();
  while (num_left > 0) {
    waiting.push_back(static_cast<Sequence*>(order.next()));
    num_left -= waiting.back()->deadline != kNoDeadline;
  }
  for (Sequence* sequence : waiting) {
    const int32_t num_tokens = sequence->num_tokens();
    if (!visit(*sequence, ahead)) continue;
    ++ahead.num_requests;
    ahead.num_prompt_tokens += num_tokens;
  }
}

int32_t SequenceTable::num_missing(const Sequence& sequence) const {
  if (sequence.embedding) return sequence.num_tokens();
  const PrefixCache::Found found = prefixes_.find(sequence.prefix, sequence.tokens);
  return sequence.num_tokens() - static_cast<int32_t>(found.pages.size()) * limits_.block_tokens;
}

Sequence* SequenceTable::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second.get();
}

Sequence* SequenceTable::find(int32_t id, int64_t arrival) const {
  Sequence* sequence = find(id);
  return sequence == nullptr || sequence->arrival != arrival ? nullptr : sequence;
}

Sequence* SequenceTable::waiting_for(int32_t adapter) const {
  for (const auto& [id, sequence] : by_id_) {
    if (sequence->uses_adapters || std::ranges::count(ending_, sequence.get()) > 0) continue;
    if (std::ranges::count(sequence->adapters, adapter, &AdapterUse::handle) > 0) {
      return sequence.get();
    }
  }
  return nullptr;
}

void SequenceTable::check_invariants(const std::map<int64_t, int32_t>& in_flight) const {
  pool_.check_invariants();
  queue_.check_invariants();
  if (by_id_.size() != running_.size() + ending_.size() + static_cast<size_t>(num_waiting())) {
    broken("sequences and ids differ");
  }
  if (running_.size() > static_cast<size_t>(limits_.max_running)) broken("too many sequences run");
  std::map<int32_t, int32_t> running_by_adapter, open_by_adapter;
  std::vector<int32_t> num_holders(model_limits_.num_pages, 0);  // paths
  std::vector<int32_t> num_holds(model_limits_.num_pages, 0);    // all that hold pages of KV
  int32_t num_sums = 0;
  size_t num_deadlines = 0;
  int64_t last_turn = 0;
  const auto check_open = [&](const Sequence& sequence) {
    if (find(sequence.id) != &sequence) broken("a sequence is not found by its id");
    for (const AdapterUse& use : sequence.adapters) ++open_by_adapter[use.handle];
    num_deadlines += sequence.deadline != kNoDeadline;
    if (by_deadline_.contains(deadline_key(sequence)) != (sequence.deadline != kNoDeadline)) {
      broken("a sequence is not found by its deadline, or is by none");
    }
    const auto sampled = in_flight.find(sequence.arrival);
    if (sequence.num_in_flight != (sampled == in_flight.end() ? 0 : sampled->second)) {
      broken("a sequence miscounts its tokens in flight");
    }
  };
  const auto check = [&](const Sequence& sequence, bool runs) {
    check_open(sequence);
    if (sequence.turn > 0 ? sequence.turn <= last_turn : runs) broken("turns are out of order");
    last_turn = std::max(last_turn, sequence.turn);
    if (sequence.is_complete()) broken("a sequence that ends is still to be scheduled");
    if (!runs && sequence.num_in_flight > 0) broken("a waiting sequence has a token in flight");
    for (const AdapterUse& use : sequence.adapters) running_by_adapter[use.handle] += runs;
    if (sequence.num_computed >= sequence.num_tokens_ahead()) broken("all is computed already");
    if (sequence.num_computed > sequence.blocks.capacity()) broken("KV lies outside its pages");
    if (!runs && sequence.blocks.num_blocks() > 0) broken("a waiting sequence holds pages");
    if (sequence.prefix.num_blocks() > sequence.blocks.num_blocks()) broken("a path has no pages");
    const bool has_sum = sequence.sum.index() >= 0;
    if (has_sum != (runs && sequence.embedding)) broken("a sum is missing, or held for nothing");
    num_sums += has_sum;
    if (!runs && sequence.generates) broken("a waiting sequence generates");
    if (sequence.uses_adapters != runs) broken("a sequence has its adapters, or has not");
    const std::span<const int32_t> pages = sequence.blocks.pages();
    for (const int32_t page : pages) {
      if (pool_.use_of(page) != PageKind::kKv) broken("a sequence holds a page that is not its");
      ++num_holds[page];
    }
    for (const int32_t page : pages.first(sequence.prefix.num_blocks())) ++num_holders[page];
    if (sequence.prefix.num_blocks() * limits_.block_tokens > sequence.num_computed) {
      broken("a block was published that is not computed");
    }
    prefixes_.check_path(sequence.prefix, sequence.tokens, pages);
  };
  for (const Sequence* sequence : running_) check(*sequence, true);
  for (const Sequence* sequence : preempted_) check(*sequence, false);
  FairQueue::Order order = queue_.order();
  while (const Ticket* ticket = order.next()) check(static_cast<const Sequence&>(*ticket), false);
  for (const Sequence* sequence : ending_) {
    check_open(*sequence);
    if (!sequence->is_complete() || sequence->num_in_flight == 0) broken("an end is not in flight");
    if (sequence->blocks.num_blocks() > 0) broken("a sequence that ends holds pages");
    if (sequence->sum.index() >= 0) broken("a sequence that ends holds a sum");
  }
  if (num_sums != sums_.num_taken()) broken("sums leaked");
  if (num_deadlines != by_deadline_.size()) broken("a deadline is nobody's");
  prefixes_.check_invariants(num_holders, &num_holds);
  for (int32_t page = 0; page < model_limits_.num_pages; ++page) {
    if (pool_.use_of(page) == PageKind::kAdapter) continue;
    if (num_holds[page] != pool_.num_holds(page)) broken("a hold on a page of KV leaked");
  }
  adapters_.check_invariants(running_by_adapter, open_by_adapter);
}

}  // namespace lorax
