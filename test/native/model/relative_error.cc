// Kept apart from the lists of backends: each test program has its own list.
#include <cmath>
#include <stdexcept>

#include "backend_cases.h"

namespace lorax {

double relative_error(const std::vector<float>& x, const std::vector<float>& y) {
  if (x.size() != y.size()) throw std::logic_error("relative_error: sizes differ");
  double difference = 0, norm = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    difference += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    norm += double{y[i]} * y[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace lorax
