// Which of the backend's sums (PooledSpan::slot) belong to sequences that run.
//
// A slot that was given back may be taken at once, also while a step that adds to it is in flight:
// steps come one after another, and the next owner's first one starts the sum anew. Owned by the
// sequence table; outlives its slots. Engine thread.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

namespace lorax {

class SumSlots {
 public:
  // Goes back when it is destroyed. Move-only.
  class Slot {
   public:
    Slot() = default;
    Slot(Slot&& other) noexcept
        : owner_(std::exchange(other.owner_, nullptr)), index_(std::exchange(other.index_, -1)) {}
    Slot& operator=(Slot&& other) noexcept {
      std::swap(owner_, other.owner_);
      std::swap(index_, other.index_);
      return *this;
    }
    ~Slot() {
      if (owner_ != nullptr) owner_->free_.push_back(index_);
    }

    int32_t index() const { return index_; }  // -1 = none

   private:
    friend class SumSlots;
    Slot(SumSlots* owner, int32_t index) : owner_(owner), index_(index) {}

    SumSlots* owner_ = nullptr;
    int32_t index_ = -1;
  };

  explicit SumSlots(int32_t size) : size_(size) {
    for (int32_t i = size - 1; i >= 0; --i) free_.push_back(i);
  }
  SumSlots(const SumSlots&) = delete;
  SumSlots& operator=(const SumSlots&) = delete;

  // The lowest slots are taken first where none was given back: a backend may hold only those.
  Slot take() {
    if (free_.empty()) throw std::logic_error("sum slots: more sequences run than may");
    const int32_t index = free_.back();
    free_.pop_back();
    return Slot(this, index);
  }

  int32_t num_taken() const { return size_ - static_cast<int32_t>(free_.size()); }

 private:
  const int32_t size_;
  std::vector<int32_t> free_;  // a stack of room for all, so that giving back never throws
};

}  // namespace lorax
