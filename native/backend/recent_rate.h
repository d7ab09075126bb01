// What one of many equal things takes, of late: in sums that fade, so that those done in larger
// pieces count for more, and a machine that gets faster or slower is noticed.
#pragma once

#include <cstdint>

namespace lorax {

class RecentRate {
 public:
  // What was measured before counts for half once so many have come.
  explicit RecentRate(int64_t half_life) : half_life_(half_life) {}

  void add(int64_t count, int64_t ns) {
    count_ += count;
    ns_ += ns;
    if (count_ <= 2 * half_life_) return;
    count_ /= 2;
    ns_ /= 2;
  }

  // 0: nothing was measured yet.
  int64_t ns_each() const { return count_ == 0 ? 0 : ns_ / count_; }

 private:
  const int64_t half_life_;
  int64_t count_ = 0;
  int64_t ns_ = 0;
};

}  // namespace lorax
