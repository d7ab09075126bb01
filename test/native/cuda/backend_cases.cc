// The decoder suite (test/native/model) on the CUDA backend.
#include "model/backend_cases.h"

#include "cuda/cuda_backend.h"

namespace lorax {

std::vector<BackendCase> all_backends() {
  BackendCase cuda;
  cuda.name = "cuda";
  cuda.make = [] { return make_cuda_backend({}); };
  cuda.precision = Precision::kBFloat16;
  cuda.exact = false;
  cuda.odd_sizes = false;
  return {cuda};
}

}  // namespace lorax
