// A counter under a mutex, and a line of those who wait for it to fall.
#include "engine/host_budget.h"

#include <algorithm>

#include "engine/admission.h"

namespace lorax {

void HostBudget::check(int64_t bytes) const {
  if (bytes <= total_bytes_) return;
  const Failure failure = host_memory_exhausted(bytes, total_bytes_);
  throw Error(failure.code, failure.message, failure.data);
}

HostBudget::Share HostBudget::take(int64_t bytes) {
  check(bytes);
  std::unique_lock lock(mutex_);
  Waiter waiter{bytes};
  line_.push_back(&waiter);
  grant();
  if (!waiter.granted && !closed_) {
    lock.unlock();
    wake_();
    lock.lock();
    granted_.wait(lock, [&] { return waiter.granted || closed_; });
  }
  if (!waiter.granted) {
    std::erase(line_, &waiter);
    throw Error("DISPOSED", "The engine was stopped.");
  }
  return Share(this, bytes);
}

std::optional<HostBudget::Share> HostBudget::try_take(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  engine_waits_ = used_bytes_ + bytes > total_bytes_;
  if (engine_waits_) return std::nullopt;
  used_bytes_ += bytes;
  return Share(this, bytes);
}

int64_t HostBudget::missing_bytes() const {
  const std::lock_guard lock(mutex_);
  const int64_t wanted = line_.empty() ? 0 : line_.front()->bytes;
  return std::max<int64_t>(0, used_bytes_ + wanted - total_bytes_);
}

int64_t HostBudget::first_in_line_bytes() const {
  const std::lock_guard lock(mutex_);
  return line_.empty() ? 0 : line_.front()->bytes;
}

int64_t HostBudget::used_bytes() const {
  const std::lock_guard lock(mutex_);
  return used_bytes_;
}

void HostBudget::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  granted_.notify_all();
}

void HostBudget::grant() {
  while (!line_.empty() && used_bytes_ + line_.front()->bytes <= total_bytes_) {
    used_bytes_ += line_.front()->bytes;
    line_.front()->granted = true;
    line_.pop_front();
    granted_.notify_all();
  }
}

void HostBudget::give_back(int64_t bytes) noexcept {
  bool wakes = false;
  {
    const std::lock_guard lock(mutex_);
    used_bytes_ -= bytes;
    grant();
    wakes = std::exchange(engine_waits_, false);
  }
  if (wakes) wake_();
}

void HostBudget::Share::resize(int64_t bytes) {
  if (bytes == bytes_) return;
  budget_->check(bytes);
  const int64_t before = std::exchange(bytes_, bytes);
  budget_->give_back(before - bytes);
  if (budget_->missing_bytes() > 0) budget_->wake_();
}

}  // namespace lorax
