// Small copies under one mutex.
#include "engine/status_board.h"

#include <algorithm>

#include "engine/admission.h"

namespace lorax {

void StatusBoard::publish(const EngineStats& stats, const std::optional<EngineStats::Step>& step,
                          const std::vector<AdapterCache::Change>& changes) {
  const std::lock_guard lock(mutex_);
  std::vector<EngineStats::Step> steps = std::move(stats_.recent_steps);
  if (step && steps.size() < kRecentSteps) {
    steps.push_back(*step);
  } else if (step) {
    steps[oldest_step_] = *step;
    oldest_step_ = (oldest_step_ + 1) % kRecentSteps;
  }
  stats_ = stats;
  stats_.recent_steps = std::move(steps);
  for (const AdapterCache::Change& change : changes) {
    if (change.status) {
      adapters_[change.handle].status = *change.status;
    } else {
      adapters_.erase(change.handle);
    }
  }
}

EngineStats StatusBoard::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  std::rotate(stats.recent_steps.begin(), stats.recent_steps.begin() + oldest_step_,
              stats.recent_steps.end());
  return stats;
}

std::vector<AdapterStatus> StatusBoard::adapters() const {
  const std::lock_guard lock(mutex_);
  std::vector<AdapterStatus> statuses;
  for (const auto& [handle, adapter] : adapters_) statuses.push_back(adapter.status);
  return statuses;
}

int32_t StatusBoard::add_adapter(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  const int32_t handle = next_handle_++;
  adapters_[handle].status = AdapterStatus{handle, bytes, false, 0, true};
  return handle;
}

void StatusBoard::remove_adapter(int32_t handle) {
  const std::lock_guard lock(mutex_);
  const auto found = adapters_.find(handle);
  if (found == adapters_.end() || found->second.removed) {
    const Failure failure = adapter_not_found(handle);
    throw Error(failure.code, failure.message, failure.data);
  }
  found->second.removed = true;
}

}  // namespace lorax
