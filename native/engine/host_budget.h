// Bytes of host memory for the images of adapters: nothing is read before there is room for it.
//
// Who wants to bring an adapter in from another thread waits in line until images were dropped for
// it; the engine thread, which drops them, never waits. Any thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <utility>

namespace lorax {

class HostBudget {
 public:
  // Move-only; given back when it is destroyed. Must not outlive its budget.
  class Share {
   public:
    Share() = default;
    Share(Share&& other) noexcept { swap(other); }
    Share& operator=(Share&& other) noexcept {
      Share taken(std::move(other));
      swap(taken);
      return *this;
    }
    ~Share() {
      if (budget_ != nullptr) budget_->give_back(bytes_);
    }

    int64_t bytes() const { return bytes_; }

    // What it turned out to be: may exceed the budget until others were dropped. Throws as take().
    void resize(int64_t bytes);

   private:
    friend class HostBudget;
    Share(HostBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}
    void swap(Share& other) noexcept {
      std::swap(budget_, other.budget_);
      std::swap(bytes_, other.bytes_);
    }

    HostBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // `wake`: images have to be dropped, or may be read now. Must not throw.
  HostBudget(int64_t bytes, std::function<void()> wake)
      : total_bytes_(bytes), wake_(std::move(wake)) {}

  // Waits for its turn. Throws HOST_MEMORY_EXHAUSTED for more than there is at all, DISPOSED once
  // closed.
  Share take(int64_t bytes);

  // Engine thread. Nothing when there is no room: it is woken when that changes.
  std::optional<Share> try_take(int64_t bytes);

  // So many bytes have to be dropped before the first in line has its turn.
  int64_t missing_bytes() const;

  // That somebody waits for; 0: nobody does.
  int64_t first_in_line_bytes() const;

  int64_t used_bytes() const;
  int64_t total_bytes() const { return total_bytes_; }

  // Nobody waits any more.
  void close();

 private:
  struct Waiter {
    int64_t bytes;
    bool granted = false;
  };
  void give_back(int64_t bytes) noexcept;
  void grant();  // with the lock held
  void check(int64_t bytes) const;

  const int64_t total_bytes_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  std::condition_variable granted_;
  std::deque<Waiter*> line_;
  int64_t used_bytes_ = 0;
  bool engine_waits_ = false;
  bool closed_ = false;
};

}  // namespace lorax
