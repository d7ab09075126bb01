// One head normed (where it has a gain) and rotated, in float64.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace lorax::cuda {

// `head`: 2 * inv_freq.size() values.
inline std::vector<double> rotated(std::vector<double> head, int32_t position,
                                   const std::vector<float>& inv_freq, float magnitude,
                                   const std::vector<float>* gain, double eps) {
  if (gain != nullptr) {
    double squares = 0.0;
    for (const double value : head) squares += value * value;
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(head.size()) + eps);
    for (size_t i = 0; i < head.size(); ++i) head[i] *= inverse * double{(*gain)[i]};
  }
  const size_t half = inv_freq.size();
  std::vector<double> out(head.size());
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<float>(position) * inv_freq[i];  // rounded to float32
    const double cos = std::cos(angle) * magnitude;
    const double sin = std::sin(angle) * magnitude;
    out[i] = head[i] * cos - head[i + half] * sin;
    out[i + half] = head[i + half] * cos + head[i] * sin;
  }
  return out;
}

}  // namespace lorax::cuda
