// Mean and length.
#include "engine/embedding.h"

#include <cmath>

namespace lorax {

int32_t first_pooled(Pooling pooling, int32_t num_prompt) {
  return pooling == Pooling::kMean ? 0 : num_prompt - 1;
}

bool make_embedding(std::span<const float> sum, int32_t count, bool normalize,
                    std::vector<float>* embedding) {
  embedding->resize(sum.size());
  double squares = 0.0;
  for (size_t i = 0; i < sum.size(); ++i) {
    const float mean = sum[i] / static_cast<float>(count);
    (*embedding)[i] = mean;
    squares += static_cast<double>(mean) * mean;
  }
  if (!std::isfinite(squares)) return false;
  if (!normalize || squares == 0.0) return true;
  const double length = std::sqrt(squares);
  for (float& value : *embedding) value = static_cast<float>(value / length);
  return true;
}

}  // namespace lorax
