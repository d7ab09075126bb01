// What a step takes by its rows: t = step + rows row, fitted by least squares over recent steps.
//
// In sums that fade, so that a machine that gets faster or slower is noticed. While all steps are
// of one size nothing is said of what a row takes: what was known of it holds. Owned by StepTimer.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lorax {

class StepFit {
 public:
  void add(int32_t num_rows, int64_t ns) {
    const auto rows = static_cast<double>(num_rows), t = static_cast<double>(ns);
    count_ += 1;
    rows_ += rows;
    ns_ += t;
    rows_rows_ += rows * rows;
    rows_ns_ += rows * t;
    if (count_ >= kFew) learn();
    if (count_ <= 2 * kHalfLife) return;
    for (double* sum : {&count_, &rows_, &ns_, &rows_rows_, &rows_ns_}) *sum /= 2;
  }

  // False until steps of different sizes were seen, the larger ones of which take longer.
  bool is_known() const { return slope_ > 0; }

  // A step takes something without rows, or nothing.
  double row_ns() const { return std::min(slope_, ns_ / rows_); }
  double step_ns() const { return (ns_ - row_ns() * rows_) / count_; }

 private:
  void learn() {
    const double spread = count_ * rows_rows_ - rows_ * rows_;
    // All within a tenth of their mean: what differs is chance.
    if (spread <= 0.01 * rows_ * rows_) return;
    slope_ = std::max(0.0, (count_ * rows_ns_ - rows_ * ns_) / spread);
  }

  static constexpr double kFew = 16;         // steps
  static constexpr double kHalfLife = 1024;  // likewise

  double count_ = 0, rows_ = 0, ns_ = 0, rows_rows_ = 0, rows_ns_ = 0;
  double slope_ = 0;  // ns a row takes; 0: unknown
};

}  // namespace lorax
