// Two ordered sets whose nodes go with the items, so that none is allocated or freed in between.
#include "engine/eviction_queue.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace lorax {

namespace {

// So that nothing overflows, however long the engine runs.
constexpr int64_t kMostUses = 1 << 12;
constexpr int64_t kMostCostNs = int64_t{1} << 44;  // hours
constexpr int64_t kMostPriority = int64_t{1} << 61;

int64_t cost_of_page(int64_t cost_ns, int32_t num_pages) {
  return std::clamp<int64_t>(cost_ns, 0, kMostCostNs) / std::max(1, num_pages);
}

}  // namespace

Evictable::Evictable(EvictionQueue& queue, int32_t num_pages)
    : queue_(queue), num_pages_(num_pages), order_(++queue.num_rested_) {
  node_ = queue.ready_.extract(queue.ready_.insert(this).first);
}

Evictable::~Evictable() { queue_.take_out(*this); }

void EvictionQueue::take_out(Evictable& item) noexcept {
  if (!item.is_idle()) return;
  const bool ready = item.state_ == Evictable::State::kReady;
  Evictable::Set& set = ready ? ready_ : fresh_;
  item.node_ = set.extract(&item);
  (ready ? num_ready_pages_ : num_fresh_pages_) -= item.num_pages_;
  item.state_ = Evictable::State::kInUse;
}

void EvictionQueue::use(Evictable& item) noexcept {
  take_out(item);
  item.num_uses_ = std::min(item.num_uses_ + 1, kMostUses);
}

int64_t EvictionQueue::priority_of_new(int64_t cost_ns, int32_t num_pages) const {
  return std::min(clock_ + cost_of_page(cost_ns, num_pages), kMostPriority);
}

std::optional<int64_t> EvictionQueue::least_priority() const {
  if (ready_.empty()) return std::nullopt;
  return (*ready_.begin())->priority_;
}

void EvictionQueue::rest(Evictable& item, int64_t cost_ns, int64_t at_least) noexcept {
  take_out(item);
  const int64_t cost = cost_of_page(cost_ns, item.num_pages_);
  raise(item, std::max(at_least, std::min(clock_ + item.num_uses_ * cost, kMostPriority)));
  item.order_ = ++num_rested_;
  item.last_step_ = pool_.submitted_step();
  const bool ready = item.last_step_ <= pool_.completed_step();
  item.state_ = ready ? Evictable::State::kReady : Evictable::State::kFresh;
  (ready ? ready_ : fresh_).insert(std::move(item.node_));
  (ready ? num_ready_pages_ : num_fresh_pages_) += item.num_pages_;
}

void EvictionQueue::raise(Evictable& item, int64_t at_least) noexcept {
  item.priority_ = std::max(item.priority_, at_least);
}

void EvictionQueue::refresh() noexcept {
  for (auto next = fresh_.begin(); next != fresh_.end();) {
    Evictable& item = **next++;
    if (item.last_step_ > pool_.completed_step()) continue;
    take_out(item);
    item.state_ = Evictable::State::kReady;
    ready_.insert(std::move(item.node_));
    num_ready_pages_ += item.num_pages_;
  }
}

bool EvictionQueue::evict_least() noexcept {
  if (ready_.empty()) return false;
  Evictable& item = **ready_.begin();
  take_out(item);
  clock_ = std::max(clock_, item.priority_);
  item.num_uses_ = 0;
  item.priority_ = 0;
  item.evict();
  return true;
}

void EvictionQueue::check_invariants() const {
  const auto check = [&](const Evictable::Set& set, Evictable::State state, int32_t num_pages) {
    for (const Evictable* item : set) {
      if (item->state_ != state) throw std::logic_error("eviction queue: an item is misplaced");
      num_pages -= item->num_pages_;
    }
    if (num_pages != 0) throw std::logic_error("eviction queue: pages are miscounted");
  };
  check(ready_, Evictable::State::kReady, num_ready_pages_);
  check(fresh_, Evictable::State::kFresh, num_fresh_pages_);
}

}  // namespace lorax
