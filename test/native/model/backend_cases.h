// The backends that the decoder suite runs on: in lorax_tests the naive reference and every CPU
// variant that this machine can execute, in lorax_cuda_tests the CUDA backend.
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
  bool exact = true;      // chunks and neighbours do not change a bit; else only a little
  bool odd_sizes = true;  // takes sizes that are no multiple of 8
};

std::vector<BackendCase> all_backends();

// ||x - y|| / ||y||
double relative_error(const std::vector<float>& x, const std::vector<float>& y);

}  // namespace lorax
