// Counters, lines and turns; see fair_queue.h for what always holds.
#include "engine/fair_queue.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <tuple>

namespace lorax {

namespace {

// A token of a tenant of weight 1 in a counter.
constexpr float kToken = 1024.0f;
// Turns of others after which a tenant is next, beside one of each that waits.
constexpr int64_t kPatience = 64;
constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
constexpr size_t kFewTenants = 64;
// Who had nothing open for so many turns is not there any more.
constexpr int64_t kOfLate = 1024;
// A flood has one place in so many at least: else it is a crowd of tenants, who wait for each
// other.
constexpr int32_t kFloodShare = 4;
// A line is long that would take one place in so many, a few requests aside, which are begun in one
// step; or whose prompts, if they are more than two, are more than a step computes, and most of
// what waits. A flood is known by it before it has filled the places, which takes a while, or its
// first steps, which would be full ones.
constexpr int32_t kLongLine = 16;
constexpr int32_t kFewRequests = 8;
constexpr size_t kFewPrompts = 2;
constexpr double kMost = 0.8;

float weight_of(const Ticket& ticket) { return std::clamp(ticket.weight, 1e-3f, 1e3f); }

int64_t cost_of(const Ticket& ticket, int64_t num_tokens) {
  return num_tokens * static_cast<int64_t>(kToken / weight_of(ticket));
}

// All lines, to say which are long. No more than a few tickets of each are looked at.
class Lines {
 public:
  Lines(const std::map<TenantKey, Tenant>& tenants, int32_t num_places, int32_t step_tokens)
      : most_(static_cast<size_t>(std::max(kFewRequests, num_places / kLongLine))),
        step_tokens_(step_tokens) {
    for (const auto& [key, tenant] : tenants) {
      if (tenant.waiting.size() > most_) {
        any_has_more_ = true;
      } else {
        num_tokens_ += tokens_of(tenant);
      }
    }
  }

  bool has_long_one(const Tenant& tenant) const {
    const size_t size = tenant.waiting.size();
    if (size > most_ || size <= kFewPrompts || any_has_more_) return size > most_;
    const int64_t num_tokens = tokens_of(tenant);
    return num_tokens > step_tokens_ &&
           static_cast<double>(num_tokens) > kMost * static_cast<double>(num_tokens_);
  }

 private:
  static int64_t tokens_of(const Tenant& tenant) {
    int64_t num_tokens = 0;
    for (const Ticket* ticket : tenant.waiting) num_tokens += ticket->num_new_tokens;
    return num_tokens;
  }

  const size_t most_;
  const int32_t step_tokens_;
  bool any_has_more_ = false;
  int64_t num_tokens_ = 0;  // of all, where none has more
};

}  // namespace

FairQueue::FairQueue() : forget_at_(kFewTenants) {}

int64_t FairQueue::patience() const { return kPatience + num_waiting_tenants_; }

void FairQueue::add(TenantKey key, Ticket& ticket) {
  if (tenants_.size() >= forget_at_) forget_idle();
  const auto tenant = tenants_.try_emplace(std::move(key)).first;
  Tenant& owner = tenant->second;
  std::deque<Ticket*>& waiting = owner.waiting;
  const auto behind = std::ranges::upper_bound(waiting, -ticket.priority, {},
                                               [](const Ticket* t) { return -t->priority; });
  waiting.insert(behind, &ticket);
  ticket.tenant = tenant;
  if (waiting.size() == 1) {
    owner.counter = std::max(owner.counter, level_);
    owner.due = turn_ + patience();
    ++num_waiting_tenants_;
  }
  owner.weight = weight_of(ticket);
  ++owner.num_open;
  ++num_open_;
  ++size_;
}

void FairQueue::remove(Ticket& ticket) noexcept {
  Tenant& tenant = ticket.tenant->second;
  const auto found = std::ranges::find(tenant.waiting, &ticket);
  if (found == tenant.waiting.end()) return;
  tenant.waiting.erase(found);
  --size_;
  if (tenant.waiting.empty()) --num_waiting_tenants_;
}

void FairQueue::take_turn(Ticket& ticket) noexcept {
  Tenant& tenant = ticket.tenant->second;
  if (tenant.due > turn_) level_ = std::max(level_, tenant.counter);
  remove(ticket);
  charge(ticket, ticket.num_new_tokens);
  tenant.due = ++turn_ + patience();
  if (size_ == 0) level_ = std::max(level_, tenant.counter);
}

void FairQueue::charge(const Ticket& ticket, int64_t num_tokens) noexcept {
  ticket.tenant->second.counter += cost_of(ticket, num_tokens);
}

void FairQueue::close(Ticket& ticket) noexcept {
  remove(ticket);
  --ticket.tenant->second.num_open;
  if (--num_open_ == 0) tenants_.clear();
}

// Those whose counter would be lifted anyway.
void FairQueue::forget_idle() noexcept {
  std::erase_if(tenants_, [this](const auto& entry) {
    return entry.second.num_open == 0 && entry.second.counter <= level_;
  });
  forget_at_ = std::max(kFewTenants, 2 * tenants_.size());
}

FairQueue::Order FairQueue::order() const {
  Order order;
  order.turn_ = turn_;
  order.patience_ = patience();
  for (const auto& [key, tenant] : tenants_) {
    if (tenant.waiting.empty()) continue;
    const int64_t due = tenant.has_its_part() ? kNever : tenant.due;
    order.lines_.push_back({&tenant.waiting, tenant.counter, due, tenant.is_light});
  }
  return order;
}

Ticket* FairQueue::Order::next() {
  if (lines_.empty()) return nullptr;
  const auto rank = [this](const Line& line) {
    const bool is_due = line.due <= turn_;
    return std::tuple(!is_due, !is_due && !line.is_light, is_due ? line.due : line.counter,
                      line.head().arrival);
  };
  const auto first = std::ranges::min_element(lines_, {}, rank);
  Ticket& ticket = first->head();
  first->counter += cost_of(ticket, ticket.num_new_tokens);
  first->due = ++turn_ + patience_;
  if (++first->first == first->waiting->size()) lines_.erase(first);
  return &ticket;
}

void FairQueue::share_places(int32_t num_places, int32_t num_running, int32_t step_tokens) {
  // Each round those who need less than the level leave the rest to the others, which raises it.
  double level = 0;  // of a tenant of weight 1
  for (bool rises = true; rises;) {
    double places = num_places, weights = 0;
    for (const auto& [key, tenant] : tenants_) {
      const bool needs_less = tenant.num_open <= level * tenant.weight;
      (needs_less ? places : weights) += needs_less ? -tenant.num_open : tenant.weight;
    }
    const double next = weights > 0 ? places / weights : level;
    rises = next > level;
    level = std::max(level, next);
  }
  const Lines lines(tenants_, num_places, step_tokens);
  double all_weights = 0;
  for (const auto& [key, tenant] : tenants_) {
    if (tenant.num_open > 0) all_weights += tenant.weight;
  }
  bool any_light = false, any_heavy = false;
  int64_t num_light = 0;
  for (auto& [key, tenant] : tenants_) {
    tenant.part = std::max(1.0, num_running * tenant.weight / std::max(1e-9, all_weights));
    tenant.share = std::max(1.0, level * tenant.weight);
    tenant.is_light = tenant.num_open <= tenant.share && !lines.has_long_one(tenant);
    tenant.num_placed = 0;
    if (tenant.num_open > 0) tenant.seen = turn_;
    if (tenant.is_light) num_light += tenant.num_open;
    // Among tenants that all want about what there is for each, some are always a little below it.
    const bool is_far_below = tenant.is_light && 2 * tenant.num_open <= tenant.share;
    any_light |= is_far_below && turn_ - tenant.seen <= kOfLate;
    any_heavy |= !tenant.is_light;
  }
  is_flooded_ = any_light && any_heavy &&
                num_places - num_light >= (num_places + kFloodShare - 1) / kFloodShare;
}

Ticket* FairQueue::last_of_longest() const {
  const std::deque<Ticket*>* longest = nullptr;
  for (const auto& [key, tenant] : tenants_) {
    if (longest == nullptr || tenant.waiting.size() > longest->size()) longest = &tenant.waiting;
  }
  return longest == nullptr || longest->empty() ? nullptr : longest->back();
}

void FairQueue::check_invariants() const {
  const auto check = [](bool ok, const char* what) {
    if (!ok) throw std::logic_error(std::string("fair queue: ") + what);
  };
  int32_t size = 0, num_open = 0, num_waiting_tenants = 0;
  for (const auto& [key, tenant] : tenants_) {
    size += static_cast<int32_t>(tenant.waiting.size());
    num_open += tenant.num_open;
    num_waiting_tenants += !tenant.waiting.empty();
    check(tenant.num_open >= static_cast<int32_t>(tenant.waiting.size()),
          "more wait than are open");
    for (size_t i = 0; i < tenant.waiting.size(); ++i) {
      const Ticket& ticket = *tenant.waiting[i];
      check(&ticket.tenant->second == &tenant, "a request waits in another's line");
      if (i == 0) continue;
      const Ticket& before = *tenant.waiting[i - 1];
      check(before.priority != ticket.priority ? before.priority > ticket.priority
                                               : before.arrival < ticket.arrival,
            "a line is out of order");
    }
  }
  check(size == size_ && num_open == num_open_, "requests are miscounted");
  check(num_waiting_tenants == num_waiting_tenants_, "tenants are miscounted");
}

}  // namespace lorax
