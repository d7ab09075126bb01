// Requests that wait for their first turn, and whose turn is next: virtual token counters (Sheng et
// al. 2024, "Fairness in Serving Large Language Models").
//
// Each tenant's requests wait in a line of their own, those of higher priority first. A tenant's
// counter grows by what is computed for it, tokens over its weight; the one with the lowest counter
// is next; those that ask for no more than their share of places, and have no long line, come
// before those that ask for more. Who comes back is lifted to where the others are, so that nobody
// saves up while away. Debts stay, until nobody has anything open. Always holds: no tenant starves,
// however many others come: one that has waited for enough turns of others is next, whatever its
// counter, unless it runs its part of the places already. Within a tenant its priorities say who is
// first. Pure integers; owned by the sequence table, which owns the requests. Engine thread.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace lorax {

// By name, or by the handles of its adapters where it has none.
struct TenantKey {
  std::string name;
  std::vector<int32_t> adapters;
  auto operator<=>(const TenantKey&) const = default;
};

struct Tenant {
  std::deque<struct Ticket*> waiting;  // by priority, then by arrival
  int64_t counter = 0;
  int64_t due = 0;   // in turns: it is next then at the latest; of one that waits
  int64_t seen = 0;  // the newest turn when it had something open
  int32_t num_open = 0;
  float weight = 1.0f;  // of its newest request
  // As share_places() has found: of those that run by its weight alone, and of all places with what
  // others do not need; light: it asks for no more than that, and its prompts alone fill no steps.
  double part = 0;
  double share = 0;
  bool is_light = false;
  int32_t num_placed = 0;

  // As many of it run as its weight alone says: it does not starve.
  bool has_its_part() const {
    return part > 0 && num_open - static_cast<int32_t>(waiting.size()) >= part;
  }
};

// What a request is to the queue.
struct Ticket {
  int64_t arrival = 0;  // ascends with submission
  int32_t priority = 0;
  float weight = 1.0f;                                // of its tenant
  int32_t num_new_tokens = 0;                         // to be computed in its turn
  std::map<TenantKey, Tenant>::iterator tenant = {};  // the queue's
};

class FairQueue {
 public:
  FairQueue();

  // When it throws, nothing was added.
  void add(TenantKey key, Ticket& ticket);

  // It has its turn, being the first of order() that can: it waits no more, and its tenant is
  // charged.
  void take_turn(Ticket& ticket) noexcept;

  // So many tokens more were computed for it.
  void charge(const Ticket& ticket, int64_t num_tokens) noexcept;

  // It is over, while it waited or after.
  void close(Ticket& ticket) noexcept;

  // Who is next, and then, as if each took its turn.
  class Order {
   public:
    Ticket* next();  // null: there are no more

   private:
    friend class FairQueue;
    struct Line {
      const std::deque<Ticket*>* waiting;
      int64_t counter;
      int64_t due;
      bool is_light;
      size_t first = 0;

      Ticket& head() const { return *(*waiting)[first]; }
    };
    std::vector<Line> lines_;
    int64_t turn_ = 0;
    int64_t patience_ = 0;
  };
  Order order() const;

  // Divides so many places among those with anything open: by weight, and what some do not need is
  // the others' (max-min fairness); and those that run by weight alone. Nobody is placed then.
  // `step_tokens`: a step computes no more of prompts.
  void share_places(int32_t num_places, int32_t num_running, int32_t step_tokens);

  // By that: some ask for more than their share, or have a long line, and have a good part of the
  // places; and there are others, or were of late, that have half their share at most.
  bool is_flooded() const { return is_flooded_; }

  // Who is refused where too many wait: the last in the longest line. Null: nobody waits.
  Ticket* last_of_longest() const;

  int32_t size() const { return size_; }
  int32_t num_tenants() const { return static_cast<int32_t>(tenants_.size()); }

  // Throws std::logic_error.
  void check_invariants() const;

 private:
  int64_t patience() const;
  void remove(Ticket& ticket) noexcept;
  void forget_idle() noexcept;

  std::map<TenantKey, Tenant> tenants_;
  int64_t turn_ = 0;   // how many were taken
  int64_t level_ = 0;  // to which is lifted who comes
  int32_t size_ = 0;
  int32_t num_open_ = 0;
  int32_t num_waiting_tenants_ = 0;
  bool is_flooded_ = false;
  size_t forget_at_;
};

}  // namespace lorax
