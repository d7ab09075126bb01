// One list, so that a new backend or instruction set joins every suite by one entry.
#include "backend_cases.h"

#include <cmath>
#include <stdexcept>

#include "../reference/reference_backend.h"

namespace lorax {

std::vector<BackendCase> all_backends() {
  return {{"reference", [] { return std::make_unique<ReferenceBackend>(); }, Precision::kFloat32}};
}

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
