// What lies in pages and is used by nobody, blocks of prefixes and adapters alike, in the order in
// which it is given up when somebody wants pages: the one place that chooses.
//
// The policy is GreedyDual-Size-Frequency (Cherkasova 1998, "Improving WWW Proxies Performance with
// Greedy-Dual-Size-Frequency Caching Policy"): an item that comes to rest gets
//   priority = clock + uses * cost to bring it back / pages,
// the lowest goes first, and the clock is then set to its priority, so that what was popular long
// ago does not stay for ever. Equals go in the order in which they came to rest. All integers:
// costs are nanoseconds.
//
// Always holds: an item in use is not in the queue. One that steps in flight may still read is
// *fresh*: it is given up once they are over, and what is given up can be used at once. Resting an
// item takes no memory. Owned by the sequence table; outlives its items. Engine thread.
#pragma once

#include <cstdint>
#include <optional>
#include <set>

#include "memory/page_pool.h"

namespace lorax {

class EvictionQueue;

class Evictable {
 public:
  Evictable(EvictionQueue& queue, int32_t num_pages);  // in use
  Evictable(const Evictable&) = delete;
  Evictable& operator=(const Evictable&) = delete;
  virtual ~Evictable();

  // Drops its pages, and may destroy it. Nothing is thrown.
  virtual void evict() noexcept = 0;

  bool is_idle() const { return state_ != State::kInUse; }
  int64_t priority() const { return priority_; }
  // No step after it touches its pages; of one that rests.
  int64_t last_step() const { return last_step_; }

 private:
  friend class EvictionQueue;
  enum class State : uint8_t { kInUse, kFresh, kReady };
  struct Before {
    bool operator()(const Evictable* a, const Evictable* b) const {
      return a->priority_ != b->priority_ ? a->priority_ < b->priority_ : a->order_ < b->order_;
    }
  };
  using Set = std::set<Evictable*, Before>;

  EvictionQueue& queue_;
  const int32_t num_pages_;
  State state_ = State::kInUse;
  int64_t num_uses_ = 0;  // since it was brought
  int64_t priority_ = 0;
  int64_t order_ = 0;
  int64_t last_step_ = 0;
  Set::node_type node_;  // its place in a set, where it is in none
};

class EvictionQueue {
 public:
  explicit EvictionQueue(const PagePool& pool) : pool_(pool) {}

  // One user more.
  void use(Evictable& item) noexcept;

  // That one would have which was used once and rests now.
  int64_t priority_of_new(int64_t cost_ns, int32_t num_pages) const;
  // Of the item that would be given up next; nothing when none is ready.
  std::optional<int64_t> least_priority() const;

  // Nobody uses it any more. `cost_ns`: to bring it back; `at_least`: its priority is.
  void rest(Evictable& item, int64_t cost_ns, int64_t at_least = 0) noexcept;

  // The priority of an item in use will be no lower than this.
  void raise(Evictable& item, int64_t at_least) noexcept;

  // Gone without being given up.
  void forget(Evictable& item) noexcept { take_out(item); }

  // Steps may have completed: what was fresh is ready.
  void refresh() noexcept;

  // Gives up the item of the lowest priority. False when none is ready.
  bool evict_least() noexcept;

  int32_t num_ready_pages() const { return num_ready_pages_; }  // of items ready to be given up
  int32_t num_fresh_pages() const { return num_fresh_pages_; }  // of those that will be
  int64_t clock() const { return clock_; }

  // Throws std::logic_error.
  void check_invariants() const;

 private:
  friend class Evictable;
  void take_out(Evictable& item) noexcept;

  const PagePool& pool_;
  Evictable::Set ready_, fresh_;
  int32_t num_ready_pages_ = 0;
  int32_t num_fresh_pages_ = 0;
  int64_t clock_ = 0;
  int64_t num_rested_ = 0;
};

}  // namespace lorax
