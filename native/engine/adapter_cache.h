// The adapters of one engine by handle: on disk, in host memory (host_tier.h) and in pool pages.
//
// Always holds: an adapter with running sequences is resident, one that is resident without them
// waits in the eviction queue; one that was removed takes no new requests and is freed with the
// last it has, and what was computed with it goes too. Changed by the engine thread alone, which
// reports what changed to the status board.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/eviction_queue.h"
#include "engine/host_tier.h"
#include "engine/prefix_cache.h"
#include "engine/scheduler.h"
#include "memory/page_pool.h"

namespace lorax {

class AdapterCache {
 public:
  AdapterCache(Model& model, PagePool& pool, EvictionQueue& queue, PrefixCache& prefixes,
               const HostTier& host)
      : model_(model), pool_(pool), queue_(queue), prefixes_(prefixes), host_(host) {}

  void add(int32_t handle, LoadedAdapter& adapter);  // when it throws, `adapter` is as it was

  // It is read again from there.
  void relocate(int32_t handle, std::shared_ptr<const AdapterSpec> spec);

  // Frees it now or with its last open request.
  void remove(int32_t handle);

  // Pages it takes; nothing when it is unknown or was removed.
  std::optional<int32_t> num_pages(int32_t handle) const;

  // What never fits in host memory together.
  std::optional<Failure> refuse(std::span<const AdapterUse> adapters) const;

  // Whether it is in pages or can be placed there. Its image is held for this turn, or read soon.
  bool bring(int32_t handle);
  void arrived(ImageRead& result);
  // Some are nowhere else.
  bool any_on_disk() const;

  // A hint: placed as soon as it and so many pages may be had, one adapter at a time.
  void expect(int32_t handle);
  // The first of those expected that can be placed now, and its pages; what cannot be is being
  // read.
  struct Expected {
    int32_t handle;
    int32_t num_pages;
    int64_t priority;  // that it would have in the eviction queue
  };
  std::optional<Expected> next_expected();
  void place_expected(int32_t handle);
  void give_up_expected(int32_t handle);
  bool any_expected() const { return !expected_.empty(); }

  // A request is open from its submission to its terminal event, and running while it holds pages.
  // One that starts to run keeps the adapter from being evicted, and has it placed.
  void open_request(int32_t handle);
  void close_request(int32_t handle);
  void start_running(int32_t handle);
  void place(int32_t handle);  // unless it is resident; when it throws, nothing has changed
  void stop_running(int32_t handle);

  // A step that uses it holds it until it is over, whatever becomes of the adapter meanwhile.
  const std::shared_ptr<const ResidentAdapter>& resident(int32_t handle) const;

  // For the scheduler, ascending by handle: `handles[i]` is the adapter of index i.
  void describe(std::vector<ScheduledAdapter>* adapters, std::vector<int32_t>* handles);

  // Adapters whose status changed since the last call; one that was freed has no status.
  struct Change {
    int32_t handle;
    std::optional<AdapterStatus> status;
  };
  std::vector<Change> take_changes();  // when it throws, nothing was taken

  int64_t num_hits() const { return num_hits_; }  // of requests that found one resident
  int64_t num_loads() const { return num_loads_; }
  int64_t num_evictions() const { return num_evictions_; }
  HostTier& host() { return host_; }
  const HostTier& host() const { return host_; }

  // Throws std::logic_error. `running` and `open`: how many sequences name each handle.
  void check_invariants(const std::map<int32_t, int32_t>& running,
                        const std::map<int32_t, int32_t>& open) const;

 private:
  static constexpr size_t kExpectedAtOnce = 4;  // read ahead

  struct Entry final : Evictable {
    Entry(AdapterCache& in_cache, int32_t handle, LoadedAdapter& adapter)
        : Evictable(in_cache.queue_, adapter.image->num_pages),
          cache(in_cache),
          copy(handle, adapter) {}

    // Its pages are dropped, its image stays.
    void evict() noexcept override;

    AdapterCache& cache;
    HostTier::Copy copy;
    PageRun pages;  // dropped after `resident`, which steps in flight may hold longer: the pages
                    // retire until they are over
    std::shared_ptr<const ResidentAdapter> resident;
    int32_t num_running = 0;
    int32_t num_open = 0;
    bool expected = false;  // by a hint
    bool removed = false;
    bool has_arrived = false;  // in its pages
    bool changed = true;       // since the last take_changes()
    bool gone = false;         // freed; kept until that is told, for freeing may not allocate
  };

  Entry* find(int32_t handle);
  const Entry* find(int32_t handle) const;
  void free_if_drained(int32_t handle, Entry& entry);
  void place(Entry& entry);
  int64_t reload_cost(const Entry& entry) const;

  Model& model_;
  PagePool& pool_;
  EvictionQueue& queue_;
  PrefixCache& prefixes_;
  HostTier host_;
  std::map<int32_t, Entry> entries_;
  std::vector<int32_t> expected_;  // in the order of the hints
  int32_t coming_ = -1;            // of them, the one placed last
  int64_t num_hits_ = 0;
  int64_t num_loads_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace lorax
