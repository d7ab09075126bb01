// The decoder suite (test/native/model) on the CUDA backend.
#include "model/backend_cases.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "cuda/cuda_backend.h"

namespace lorax {
namespace {

// What one backend measured need not be measured for the next. Of this process; removed with it.
class CacheDirectory {
 public:
  CacheDirectory()
      : path_(std::filesystem::path(testing::TempDir()) /
              ("lorax-cuda-tests-" + std::to_string(::getpid()))) {}
  ~CacheDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path() const { return path_.string(); }

 private:
  const std::filesystem::path path_;
};

std::unique_ptr<Backend> make(bool deterministic) {
  static const CacheDirectory cache;
  CudaOptions options;
  options.deterministic = deterministic;
  options.cache_directory = cache.path();
  return make_cuda_backend(options);
}

}  // namespace

std::vector<BackendCase> all_backends() {
  BackendCase cuda;
  cuda.name = "cuda";
  cuda.make = [] { return make(false); };
  cuda.precision = Precision::kBFloat16;
  cuda.exact = false;
  cuda.odd_sizes = false;
  BackendCase deterministic = cuda;
  deterministic.name = "cuda_deterministic";
  deterministic.make = [] { return make(true); };
  deterministic.exact = true;
  return {cuda, deterministic};
}

}  // namespace lorax
