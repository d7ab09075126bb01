// Sums of final hidden states: every row is normed by itself, then each column of a sum adds its
// rows in their order, whichever thread does it.
#include <algorithm>
#include <cstring>

#include "cpu/cpu_backend_impl.h"

namespace lorax::cpu {

void CpuBackend::pool(const Activation& residual, Activation& delta, const Vector& gain,
                      float eps) {
  const int32_t cols = residual.cols;
  const auto* x = static_cast<const float*>(residual.data);
  auto* d = static_cast<float*>(delta.data);
  const float* g = static_cast<const FloatVector&>(gain).values.data();

  pooled_rows_.clear();
  for (const PooledSpan& span : step_.plan->pooled) {
    for (int32_t i = 0; i < span.num_rows; ++i) pooled_rows_.push_back(span.first_row + i);
    const auto slots = static_cast<size_t>(span.slot) + 1;
    if (sums_.size() < slots) sums_.resize(slots);
    std::vector<float>& sum = sums_[span.slot];
    if (span.starts) sum.assign(cols, 0.0f);
  }
  const auto num_rows = static_cast<int32_t>(pooled_rows_.size());
  pooled_out_.ensure(int64_t{num_rows} * cols * 4);
  float* out = pooled_out_.as<float>();
  for_rows(num_rows, cols, [&](int32_t i) {
    float* h = out + int64_t{i} * cols;
    const int64_t at = int64_t{pooled_rows_[i]} * cols;
    std::memcpy(h, x + at, static_cast<size_t>(cols) * 4);
    kernels_.rms_norm(h, d + at, g, eps, cols, h);
  });

  constexpr int32_t kColumns = 64;  // of one task
  const int32_t parts = (cols + kColumns - 1) / kColumns;
  for (const PooledSpan& span : step_.plan->pooled) {
    float* sum = sums_[span.slot].data();
    for_rows(parts, int64_t{span.num_rows} * kColumns, [&](int32_t part) {
      const int32_t begin = part * kColumns;
      const int32_t count = std::min(kColumns, cols - begin);
      for (int32_t i = 0; i < span.num_rows; ++i) {
        kernels_.add_scaled(out + int64_t{i} * cols + begin, 1.0f, count, sum + begin);
      }
    });
    out += int64_t{span.num_rows} * cols;
    if (span.ends) step_.ended_sums.insert(step_.ended_sums.end(), sum, sum + cols);
  }
}

}  // namespace lorax::cpu
