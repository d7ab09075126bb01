// Command lines of the benchmarks without Node, and the backend they ask for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "cuda/cuda_backend.h"

namespace lorax::bench {

// "--name value" pairs and "--name" flags, taken one by one; finish() throws for what is left.
class Arguments {
 public:
  Arguments(int argc, char** argv) : left_(argv + std::min(argc, 1), argv + argc) {}

  bool flag(const std::string& name);
  std::string value(const std::string& name, const std::string& fallback);
  int64_t number(const std::string& name, int64_t fallback);
  std::string positional(const std::string& fallback);  // the first that is no option
  void finish() const;

 private:
  std::vector<std::string> left_;
};

std::vector<std::string> split(const std::string& text, char separator);

double median(std::vector<double> values);  // 0 of none

// 'cuda', or 'cpu': to try a benchmark out where there is no GPU.
std::unique_ptr<Backend> bench_backend(const std::string& device, const CudaOptions& cuda);

}  // namespace lorax::bench
