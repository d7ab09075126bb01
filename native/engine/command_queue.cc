// A mutex, a vector and a condition variable.
#include "engine/command_queue.h"

#include <string>
#include <utility>

namespace lorax {

void CommandQueue::post(Command command) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) throw Error("DISPOSED", "The engine was stopped.");
    // What may throw comes before the id is taken.
    if (commands_.size() == commands_.capacity()) commands_.reserve(2 * commands_.size() + 1);
    if (const auto* submit = std::get_if<SubmitCommand>(&command)) {
      const int32_t id = submit->request.id;
      if (id <= 0 || !open_ids_.insert(id).second) {
        throw Error("INVALID_OPTIONS",
                    "Request id " + std::to_string(id) +
                        (id <= 0 ? " is not positive." : " is in use by an open request."),
                    {{"field", "request"}, {"value", static_cast<double>(id)}});
      }
    }
    commands_.push_back(std::move(command));
  }
  changed_.notify_one();
}

std::vector<Command> CommandQueue::take_all() {
  const std::lock_guard lock(mutex_);
  return std::exchange(commands_, {});
}

void CommandQueue::wait(std::optional<std::chrono::milliseconds> limit) {
  std::unique_lock lock(mutex_);
  const auto is_over = [&] { return closed_ || !commands_.empty(); };
  if (limit) {
    changed_.wait_for(lock, *limit, is_over);
  } else {
    changed_.wait(lock, is_over);
  }
}

void CommandQueue::forget(std::span<const int32_t> ids) {
  const std::lock_guard lock(mutex_);
  for (const int32_t id : ids) open_ids_.erase(id);
}

void CommandQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_all();
}

bool CommandQueue::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

}  // namespace lorax
