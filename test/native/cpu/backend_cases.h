// What the CPU backend's tests share: every instruction set with both precisions, random tensors,
// plans, and comparisons. References are written beside each test, in double.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/cpu_backend.h"
#include "cpu/cpu_backend_impl.h"
#include "emulated_kernels.h"

namespace lorax::cpu_test {

inline float bf16_round(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  bits = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
  std::memcpy(&x, &bits, 4);
  return x;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  float value() { return std::normal_distribution<float>()(engine_); }
  int32_t integer(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(engine_);
  }
  std::vector<float> values(int64_t n, float scale = 1.0f) {
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = value() * scale;
    return v;
  }

 private:
  std::mt19937 engine_;
};

inline TensorView view(const std::vector<float>& v, int64_t rows, int64_t cols,
                       const char* name = "tensor") {
  return {v.data(), DType::kF32, rows, cols, name};
}

// A backend per (instruction set, precision). Where there is no AMX its tiles are emulated: what is
// then tested is everything but the processor's own behaviour.
class CpuBackendTest : public testing::TestWithParam<std::tuple<Isa, Precision>> {
 protected:
  void SetUp() override {
    if (!isa_available(isa()) && !amx()) {
      GTEST_SKIP() << "this processor or build has no " << isa_name(isa());
    }
    if (amx() && !bf16()) GTEST_SKIP() << "tiles multiply bf16 only";
  }
  Isa isa() const { return std::get<0>(GetParam()); }
  bool bf16() const { return std::get<1>(GetParam()) == Precision::kBFloat16; }
  bool amx() const { return isa() == Isa::kAmx; }
  std::unique_ptr<Backend> make(int threads = 2) const {
    if (amx() && !isa_available(Isa::kAmx)) {
      return std::make_unique<cpu::CpuBackend>(Precision::kBFloat16, Isa::kPortable, threads,
                                               &emulated_amx_kernels());
    }
    return make_cpu_backend({std::get<1>(GetParam()), threads, isa()});
  }
  // As the backend stores weights, KV and adapters.
  float stored(float x) const { return bf16() ? bf16_round(x) : x; }
};

inline std::string backend_case_name(
    const testing::TestParamInfo<std::tuple<Isa, Precision>>& info) {
  return std::string(isa_name(std::get<0>(info.param))) +
         (std::get<1>(info.param) == Precision::kBFloat16 ? "_bf16" : "_float32");
}

#define LORAX_INSTANTIATE_BACKENDS(Suite)                                                    \
  INSTANTIATE_TEST_SUITE_P(                                                                  \
      Cpu, Suite,                                                                            \
      testing::Combine(testing::Values(Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAmx), \
                       testing::Values(Precision::kBFloat16, Precision::kFloat32)),          \
      backend_case_name)

// A plan of `rows` unrelated rows (one sequence each), with no segments.
inline StepPlan rows_plan(int32_t rows) {
  StepPlan plan;
  for (int32_t r = 0; r < rows; ++r) {
    plan.token_ids.push_back(0);
    plan.positions.push_back(0);
    plan.spans.push_back({r, 1, 0, r, 1});
    plan.block_tables.push_back(r);
  }
  return plan;
}

inline std::vector<float> copy(const Activation& a) {
  const float* p = static_cast<const float*>(a.data);
  return {p, p + int64_t{a.rows} * a.cols};
}

// So that an element that is not written shows.
inline void poison(const Activation& a) {
  float* p = static_cast<float*>(a.data);
  for (int64_t i = 0; i < int64_t{a.rows} * a.cols; ++i) {
    p[i] = std::numeric_limits<float>::quiet_NaN();
  }
}

inline bool same_bits(const float* a, const float* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * 4) == 0;
}

inline double relative_error(const std::vector<float>& got, const std::vector<double>& want) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(difference / std::max(norm, 1e-300));
}

}  // namespace lorax::cpu_test
