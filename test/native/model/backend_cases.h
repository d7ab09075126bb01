// The backends that the decoder suite runs on: the naive reference and every CPU variant that this
// machine can execute.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"

namespace lorax {

struct BackendCase {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
  Precision precision = Precision::kFloat32;
};

std::vector<BackendCase> all_backends();

// ||x - y|| / ||y||
double relative_error(const std::vector<float>& x, const std::vector<float>& y);

}  // namespace lorax
