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
  BackendCase deterministic = cuda;
  deterministic.name = "cuda_deterministic";
  deterministic.make = [] {
    CudaOptions options;
    options.deterministic = true;
    return make_cuda_backend(options);
  };
  deterministic.exact = true;
  return {cuda, deterministic};
}

}  // namespace lorax
