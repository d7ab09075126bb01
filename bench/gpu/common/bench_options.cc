// See bench_options.h.
#include "common/bench_options.h"

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "cpu/cpu_backend.h"

namespace lorax::bench {

bool Arguments::flag(const std::string& name) {
  const auto at = std::find(left_.begin(), left_.end(), name);
  if (at == left_.end()) return false;
  left_.erase(at);
  return true;
}

std::string Arguments::value(const std::string& name, const std::string& fallback) {
  const auto at = std::find(left_.begin(), left_.end(), name);
  if (at == left_.end()) return fallback;
  if (at + 1 == left_.end()) throw std::runtime_error(name + " takes a value");
  const std::string out = *(at + 1);
  left_.erase(at, at + 2);
  return out;
}

int64_t Arguments::number(const std::string& name, int64_t fallback) {
  const std::string text = value(name, std::to_string(fallback));
  size_t end = 0;
  const int64_t out = std::stoll(text, &end);
  if (end != text.size()) throw std::runtime_error(name + " takes a number, not " + text);
  return out;
}

std::string Arguments::positional(const std::string& fallback) {
  if (left_.empty() || left_[0].rfind("--", 0) == 0) return fallback;
  const std::string out = left_[0];
  left_.erase(left_.begin());
  return out;
}

void Arguments::finish() const {
  if (!left_.empty()) throw std::runtime_error("what is " + left_[0] + "?");
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, separator);) {
    if (!part.empty()) out.push_back(part);
  }
  return out;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::unique_ptr<Backend> bench_backend(const std::string& device, const CudaOptions& cuda) {
  if (device == "cuda") return make_cuda_backend(cuda);
  if (device == "cpu") return make_cpu_backend({});
  throw std::runtime_error("--device is cuda or cpu, not " + device);
}

}  // namespace lorax::bench
