// What other threads ask of the engine thread, in order; the only way in.
//
// Also keeps the ids of open requests, so that a doubled one is refused where it is submitted. Once
// closed it takes nothing more. Any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_set>
#include <variant>
#include <vector>

#include "engine/engine.h"
#include "engine/host_budget.h"
#include "engine/sequence.h"

namespace lorax {

struct SubmitCommand {
  Request request;
  Clock::time_point submitted;
};
struct CancelCommand {
  int32_t id;
};
// Where it lies on disk, and its image with the share of host memory that it takes.
struct LoadedAdapter {
  std::shared_ptr<const AdapterSpec> spec;
  std::shared_ptr<const AdapterImage> image;
  HostBudget::Share share;
};
struct AddAdapterCommand {
  int32_t handle;
  LoadedAdapter adapter;
};
struct RemoveAdapterCommand {
  int32_t handle;
};
// It is read from elsewhere, from now on.
struct RelocateAdapterCommand {
  int32_t handle;
  std::shared_ptr<const AdapterSpec> spec;
};
// It will be wanted soon.
struct PrefetchCommand {
  int32_t handle;
};
// A dropped image was read again, or why it could not be.
struct ImageRead {
  int32_t handle = 0;
  std::shared_ptr<const AdapterImage> image;
  HostBudget::Share share;
  Failure failure = {};
};
struct ImageReadCommand {
  std::shared_ptr<ImageRead> result;
};
// There is room in host memory, or somebody wants some.
struct HostRoomCommand {};
using Command =
    std::variant<SubmitCommand, CancelCommand, AddAdapterCommand, RemoveAdapterCommand,
                 RelocateAdapterCommand, PrefetchCommand, ImageReadCommand, HostRoomCommand>;

class CommandQueue {
 public:
  // Throws DISPOSED once closed; INVALID_OPTIONS for a submission whose id is open or not positive.
  void post(Command command);

  std::vector<Command> take_all();

  // Sleeps until there is a command or the queue is closed; no longer than `limit`, if given.
  void wait(std::optional<std::chrono::milliseconds> limit = std::nullopt);

  // The requests' terminal events are about to be seen: their ids may be used again.
  void forget(std::span<const int32_t> ids);

  void close();
  bool closed() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Command> commands_;
  std::unordered_set<int32_t> open_ids_;
  bool closed_ = false;
};

}  // namespace lorax
