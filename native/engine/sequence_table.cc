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

// Where the sequence stands in a container of owners.
template <typename Owners>
auto position_of(const Sequence& sequence, Owners& owners) {
  return std::find_if(owners.begin(), owners.end(),
                      [&](const auto& owner) { return owner.get() == &sequence; });
}

}  // namespace

SequenceTable::SequenceTable(Model& model, SchedulerLimits limits)
    : model_limits_(model.limits()),
      limits_(limits),
      pool_(model_limits_.num_pages),
      sums_(limits.max_running),
      adapters_(model, pool_) {}

Sequence& SequenceTable::add(Request request, Clock::time_point submitted, int32_t max_tokens) {
  waiting_.push_back(std::make_unique<Sequence>(std::move(request), submitted, ++num_arrivals_,
                                                max_tokens, model_limits_));
  Sequence& sequence = *waiting_.back();
  try {
    by_id_[sequence.id] = &sequence;
  } catch (...) {
    waiting_.pop_back();
    throw;
  }
  for (const AdapterUse& use : sequence.adapters) adapters_.open_request(use.handle);
  return sequence;
}

Schedule SequenceTable::schedule() const {
  std::vector<ScheduledAdapter> adapters;
  std::vector<int32_t> handles;
  adapters_.describe(&adapters, &handles);
  const auto describe = [&](const SequencePtr& sequence) {
    ScheduledSequence described{sequence->num_tokens_ahead(),
                                sequence->num_computed,
                                sequence->blocks.num_blocks(),
                                {},
                                sequence->generates};
    for (const AdapterUse& use : sequence->adapters) {
      const auto found = std::lower_bound(handles.begin(), handles.end(), use.handle);
      described.adapters.push_back(static_cast<int32_t>(found - handles.begin()));
    }
    return described;
  };
  std::vector<ScheduledSequence> running, waiting;
  for (const SequencePtr& sequence : running_) running.push_back(describe(sequence));
  // No more than this can be admitted in one step.
  const size_t num_waiting = std::min(waiting_.size(), static_cast<size_t>(limits_.max_running));
  for (size_t i = 0; i < num_waiting; ++i) waiting.push_back(describe(waiting_[i]));

  const bool in_flight = pool_.in_flight();
  Schedule schedule = make_schedule(
      {limits_, pool_.num_free(), running, waiting, adapters, in_flight, pool_.counts().retiring});
  if (schedule.chunks.empty() && schedule.pool_full < 0 && !by_id_.empty() && !in_flight) {
    broken("there are sequences but nothing to schedule");
  }
  for (int32_t& adapter : schedule.evicted) adapter = handles[adapter];
  return schedule;
}

std::vector<Sequence*> SequenceTable::apply(const Schedule& schedule, int64_t step) {
  // Chunks count the running sequences as they were before anyone left, then the waiting ones.
  const size_t num_left = schedule.preempted.size() + (schedule.pool_full >= 0 ? 1 : 0);
  for (size_t i = 0; i < schedule.preempted.size(); ++i) preempt_newest(step);
  for (const int32_t handle : schedule.evicted) adapters_.evict(handle);
  const size_t num_stayed = running_.size();
  for (int32_t i = 0; i < schedule.num_admitted; ++i) admit_next(step);

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

void SequenceTable::preempt_newest(int64_t step) {
  waiting_.emplace_front();  // what may throw comes before anything has moved
  waiting_.front() = std::move(running_.back());
  running_.pop_back();
  Sequence& sequence = *waiting_.front();
  sequence.blocks.truncate(0);
  sequence.sum = {};
  sequence.num_computed = 0;
  sequence.generates = false;
  stop_adapters(sequence, step);
  ++num_preemptions_;
}

void SequenceTable::admit_next(int64_t step) {
  Sequence& sequence = *waiting_.front();
  running_.reserve(running_.size() + 1);  // as above
  for (const AdapterUse& use : sequence.adapters) adapters_.place(use.handle);
  for (const AdapterUse& use : sequence.adapters) adapters_.start_running(use.handle, step);
  running_.push_back(std::move(waiting_.front()));
  waiting_.pop_front();
  if (!sequence.blocks.append(pool_, sequence.num_tokens())) broken("a page is missing");
  if (sequence.embedding) sequence.sum = sums_.take();
}

void SequenceTable::expect_end(Sequence& sequence, int64_t step) {
  ending_.reserve(ending_.size() + 1);  // as above
  const auto running = position_of(sequence, running_);
  ending_.push_back(std::move(*running));
  running_.erase(running);
  sequence.blocks.truncate(0);
  sequence.sum = {};
  stop_adapters(sequence, step);
}

void SequenceTable::stop_adapters(const Sequence& sequence, int64_t step) {
  for (const AdapterUse& use : sequence.adapters) adapters_.stop_running(use.handle, step);
}

void SequenceTable::close(Sequence& sequence, int64_t step) {
  by_id_.erase(sequence.id);
  const auto running = position_of(sequence, running_);
  if (running != running_.end()) stop_adapters(sequence, step);
  for (const AdapterUse& use : sequence.adapters) adapters_.close_request(use.handle);
  if (running != running_.end()) {
    running_.erase(running);
  } else if (const auto ending = position_of(sequence, ending_); ending != ending_.end()) {
    ending_.erase(ending);
  } else if (const auto waiting = position_of(sequence, waiting_); waiting != waiting_.end()) {
    waiting_.erase(waiting);
  }
}

Sequence* SequenceTable::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

Sequence* SequenceTable::find(int32_t id, int64_t arrival) const {
  Sequence* sequence = find(id);
  return sequence == nullptr || sequence->arrival != arrival ? nullptr : sequence;
}

void SequenceTable::check_invariants(const std::map<int64_t, int32_t>& in_flight) const {
  pool_.check_invariants();
  if (by_id_.size() != running_.size() + ending_.size() + waiting_.size()) {
    broken("sequences and ids differ");
  }
  if (running_.size() > static_cast<size_t>(limits_.max_running)) broken("too many sequences run");
  std::map<int32_t, int32_t> running_by_adapter, open_by_adapter;
  std::vector<bool> seen(model_limits_.num_pages, false);
  int32_t num_kv_pages = 0, num_sums = 0;
  int64_t last_arrival = 0;
  const auto check_open = [&](const Sequence& sequence) {
    if (find(sequence.id) != &sequence) broken("a sequence is not found by its id");
    for (const AdapterUse& use : sequence.adapters) ++open_by_adapter[use.handle];
    const auto sampled = in_flight.find(sequence.arrival);
    if (sequence.num_in_flight != (sampled == in_flight.end() ? 0 : sampled->second)) {
      broken("a sequence miscounts its tokens in flight");
    }
  };
  const auto check = [&](const Sequence& sequence, bool runs) {
    check_open(sequence);
    if (sequence.arrival <= last_arrival) broken("sequences are out of order");
    last_arrival = sequence.arrival;
    if (sequence.is_complete()) broken("a sequence that ends is still to be scheduled");
    if (!runs && sequence.num_in_flight > 0) broken("a waiting sequence has a token in flight");
    for (const AdapterUse& use : sequence.adapters) running_by_adapter[use.handle] += runs;
    if (sequence.num_computed >= sequence.num_tokens_ahead()) broken("all is computed already");
    if (sequence.num_computed > sequence.blocks.capacity()) broken("KV lies outside its pages");
    if (!runs && sequence.blocks.num_blocks() > 0) broken("a waiting sequence holds pages");
    const bool has_sum = sequence.sum.index() >= 0;
    if (has_sum != (runs && sequence.embedding)) broken("a sum is missing, or held for nothing");
    num_sums += has_sum;
    if (!runs && sequence.generates) broken("a waiting sequence generates");
    for (const int32_t page : sequence.blocks.pages()) {
      if (pool_.use_of(page) != PageKind::kKv) broken("a sequence holds a page that is not its");
      if (seen[page]) broken("two sequences share a page");
      seen[page] = true;
      ++num_kv_pages;
    }
  };
  for (const SequencePtr& sequence : running_) check(*sequence, true);
  for (const SequencePtr& sequence : waiting_) check(*sequence, false);
  for (const SequencePtr& sequence : ending_) {
    check_open(*sequence);
    if (!sequence->is_complete() || sequence->num_in_flight == 0) broken("an end is not in flight");
    if (sequence->blocks.num_blocks() > 0) broken("a sequence that ends holds pages");
    if (sequence->sum.index() >= 0) broken("a sequence that ends holds a sum");
  }
  if (num_sums != sums_.num_taken()) broken("sums leaked");
  if (num_kv_pages != pool_.counts().kv) broken("KV pages leaked");
  adapters_.check_invariants(running_by_adapter, open_by_adapter);
}

}  // namespace lorax
