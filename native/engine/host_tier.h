// The images of adapters in host memory, within a budget: what was dropped is read again from disk
// when somebody wants it.
//
// Which one is dropped: LFU with dynamic aging (Arlitt et al. 2000, "Evaluating content management
// techniques for Web proxy caches"), what GreedyDual-Size-Frequency (eviction_queue.h) comes to
// where a byte of each costs the same to bring back. Each turn looks at those who wait, in their
// order, and *brings* what they need: what is here of it is held until the next turn, what is not
// is read, as far as the budget goes. So the first always gets all it needs, whatever others have
// got of theirs. Owned by the adapter cache; outlives its copies. Engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <set>

#include "engine/background_jobs.h"
#include "engine/command_queue.h"
#include "engine/host_budget.h"
#include "model/model.h"

namespace lorax {

class HostTier {
 public:
  struct Copy;

 private:
  struct Before {
    bool operator()(const Copy* a, const Copy* b) const;
  };
  using Set = std::set<Copy*, Before>;

 public:
  // An adapter's place in the tier; its image comes and goes without taking memory.
  struct Copy {
    // When it throws, `from` is as it was.
    Copy(int32_t of, LoadedAdapter& from);
    Copy(const Copy&) = delete;
    Copy& operator=(const Copy&) = delete;

   private:
    Set::node_type node;  // its place in the set, where it is not in it

   public:
    const int32_t handle;
    std::shared_ptr<const AdapterSpec> spec;  // where it is read from
    const int32_t num_pages;
    const int64_t bytes;
    std::shared_ptr<const AdapterImage> image;  // null: on disk alone
    bool has_moved = false;                     // in or out; the owner's to unset

   private:
    friend class HostTier;
    HostBudget::Share share;  // of an image that is here
    bool is_being_read = false;
    int64_t held_in = 0;   // turn
    int64_t num_uses = 0;  // since it came
    int64_t priority = 0;
    int64_t order = 0;
  };

  HostTier(Model& model, CommandQueue& commands, HostBudget& budget, BackgroundJobs& readers)
      : model_(model), commands_(commands), budget_(budget), readers_(readers) {}

  // Its image has just been read.
  void add(Copy& copy) noexcept;
  void forget(Copy& copy) noexcept;
  void use(Copy& copy) noexcept;

  // What was held is held no more. Drops images for those who wait in the budget's line.
  void begin_turn();
  // Whether its image is here; it is held, then.
  bool bring(Copy& copy);
  // What became of a reading; read_ended() also when the copy is gone.
  void read_ended();
  void arrived(Copy& copy, ImageRead& result);

  struct Counts {
    int64_t images = 0, reads = 0, drops = 0;
  };
  Counts counts() const;
  const HostBudget& budget() const { return budget_; }

  // Throws std::logic_error.
  void check(const Copy& copy) const;

 private:
  // Read or about to be: one more who comes first waits for so many at most.
  static constexpr int32_t kMostReadings = 8;

  void insert(Copy& copy) noexcept;
  bool drop_least();
  void read(Copy& copy, HostBudget::Share share);

  Model& model_;
  CommandQueue& commands_;
  HostBudget& budget_;
  BackgroundJobs& readers_;
  Set present_;
  int64_t turn_ = 1;
  int64_t held_bytes_ = 0;  // in this turn, or to be
  int64_t holdable_bytes_ = 0;
  int32_t num_being_read_ = 0;
  int64_t clock_ = 0;
  int64_t num_used_ = 0;
  int64_t num_reads_ = 0;
  int64_t num_drops_ = 0;
};

}  // namespace lorax
