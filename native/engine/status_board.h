// What other threads may read of the engine: counters, recent steps, adapters.
//
// The engine thread copies its numbers here once per step; a reader holds the lock for one small
// copy, so it never makes a step wait for long. Adapters appear here before the engine thread knows
// them, so that add_adapter is followed by adapters() that has it.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "engine/adapter_cache.h"
#include "engine/engine.h"

namespace lorax {

class StatusBoard {
 public:
  StatusBoard() { stats_.recent_steps.reserve(kRecentSteps); }

  // `stats` without recent_steps; `step` when one was computed. Engine thread.
  void publish(const EngineStats& stats, const std::optional<EngineStats::Step>& step,
               const std::vector<AdapterCache::Change>& changes);

  EngineStats stats() const;
  std::vector<AdapterStatus> adapters() const;

  // A new handle, 0 or more, never used before.
  int32_t add_adapter(int64_t bytes);

  // Throws ADAPTER_NOT_FOUND when the handle is unknown or was removed already.
  void remove_adapter(int32_t handle);

 private:
  static constexpr size_t kRecentSteps = 256;
  struct Adapter {
    AdapterStatus status;
    bool removed = false;  // drains; still listed
  };

  mutable std::mutex mutex_;
  EngineStats stats_;       // recent_steps is a ring
  size_t oldest_step_ = 0;  // into the ring once it is full
  std::map<int32_t, Adapter> adapters_;
  int32_t next_handle_ = 0;
};

}  // namespace lorax
