// Sums of final hidden states against float64 on the host, and cut into steps.
#include "cuda/pool.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cuda/device_array.h"

namespace lorax::cuda {
namespace {

using Bf16s = std::vector<__nv_bfloat16>;
using Spans = std::vector<DevicePooledSpan>;

constexpr float kEps = 1e-5f;

struct PoolCase {
  int32_t rows, hidden;
  int32_t parts = 0;  // that the delta is in
};

// Device memory of one step: what pool() reads and what it leaves.
class PoolStep {
 public:
  PoolStep(const PoolCase& c, std::mt19937& random) : case_(c) {
    std::normal_distribution<float> normal(0.0f, 3.0f);
    const size_t size = static_cast<size_t>(c.rows) * c.hidden;
    x_.resize(size);
    for (float& x : x_) x = normal(random);
    for (int32_t i = 0; i < c.hidden; ++i) x_[i] *= 1e-4f;  // eps matters in row 0
    delta_ = random_bf16(random, size * std::max(c.parts, 1), 2.0f);
    gain_.resize(c.hidden);
    for (float& g : gain_) g = normal(random);
    residual_ = DeviceArray<float>(x_);
    device_delta_ = DeviceArray<__nv_bfloat16>(delta_);
    device_gain_ = DeviceArray<float>(gain_);
    factors_ = DeviceArray<float>(c.rows);
  }

  void run(const Spans& spans, const DeviceArray<float>& sums, const DeviceArray<float>& results) {
    const DeviceArray<DevicePooledSpan> device_spans(spans);
    PoolArguments a;
    a.residual = residual_.data();
    a.delta = device_delta_.data();
    if (case_.parts > 0) {
      a.split = {device_delta_.data(), case_.parts, static_cast<int64_t>(x_.size())};
    }
    a.gain = device_gain_.data();
    a.eps = kEps;
    a.rows = case_.rows;
    a.hidden = case_.hidden;
    a.spans = device_spans.data();
    a.num_spans = static_cast<int32_t>(spans.size());
    a.factors = factors_.data();
    a.sums = sums.data();
    a.results = results.data();
    pool(a, nullptr);
    LORAX_CUDA(cudaDeviceSynchronize());
  }

  // Of rows [begin, begin + count), in float64.
  std::vector<double> expected(int32_t begin, int32_t count) const {
    std::vector<double> sum(case_.hidden, 0.0);
    for (int32_t row = begin; row < begin + count; ++row) {
      const size_t at = static_cast<size_t>(row) * case_.hidden;
      std::vector<double> h(case_.hidden);
      double squares = 0.0;
      for (int32_t i = 0; i < case_.hidden; ++i) {
        double delta = 0.0;
        for (int32_t part = 0; part < std::max(case_.parts, 1); ++part) {
          delta += to_float(delta_[part * x_.size() + at + i]);
        }
        h[i] = x_[at + i] + delta;
        squares += h[i] * h[i];
      }
      const double factor = 1.0 / std::sqrt(squares / case_.hidden + kEps);
      for (int32_t i = 0; i < case_.hidden; ++i) sum[i] += h[i] * factor * gain_[i];
    }
    return sum;
  }

  // The residual is left as it was.
  void check_inputs() const { EXPECT_EQ(residual_.read(), x_); }

 private:
  const PoolCase case_;
  std::vector<float> x_, gain_;
  Bf16s delta_;
  DeviceArray<float> residual_, device_gain_, factors_;
  DeviceArray<__nv_bfloat16> device_delta_;
};

std::vector<float> row_of(const DeviceArray<float>& values, int32_t row, int32_t hidden) {
  const std::vector<float> all = values.read();
  return {all.begin() + int64_t{row} * hidden, all.begin() + int64_t{row + 1} * hidden};
}

TEST(CudaPool, AgreesWithTheReference) {
  std::mt19937 random(1);
  for (const int32_t hidden : {1, 30, 128, 576, 4096, 4100}) {
    for (const int32_t parts : {0, 2, 4}) {
      SCOPED_TRACE(testing::Message() << "hidden " << hidden << " parts " << parts);
      const PoolCase c{.rows = 67, .hidden = hidden, .parts = parts};
      PoolStep step(c, random);
      const size_t width = hidden;
      const DeviceArray<float> sums(5 * width), results(3 * width);
      step.run({{3, 0, 40, 1, 0}, {0, 41, 1, 1, -1}, {2, 50, 17, 1, 1}}, sums, results);
      EXPECT_LT(relative_error(row_of(results, 0, hidden), step.expected(0, 40)), 1e-6);
      EXPECT_LT(relative_error(row_of(results, 1, hidden), step.expected(50, 17)), 1e-6);
      EXPECT_LT(relative_error(row_of(sums, 0, hidden), step.expected(41, 1)), 1e-6);
      for (const float untouched : row_of(results, 2, hidden)) ASSERT_TRUE(std::isnan(untouched));
      for (const int32_t slot : {1, 4}) {
        for (const float untouched : row_of(sums, slot, hidden)) ASSERT_TRUE(std::isnan(untouched));
      }
      step.check_inputs();
    }
  }
}

TEST(CudaPool, StepsAndNeighboursChangeNoBit) {
  std::mt19937 random(2);
  const int32_t hidden = 576, rows = 300;
  PoolStep step({.rows = rows, .hidden = hidden}, random);
  const DeviceArray<float> sums(4 * hidden);
  DeviceArray<float> results(2 * hidden);
  step.run({{1, 10, 250, 1, 0}}, sums, results);
  const std::vector<float> whole = row_of(results, 0, hidden);
  EXPECT_LT(relative_error(whole, step.expected(10, 250)), 1e-5);
  for (const int32_t chunk : {1, 7, 64, 249}) {
    results.poison();
    for (int32_t begin = 0; begin < 250; begin += chunk) {
      const int32_t count = std::min(chunk, 250 - begin);
      const bool ends = begin + count == 250;
      step.run({{0, 0, 9, 1, ends ? 0 : -1}, {2, 10 + begin, count, begin == 0, ends ? 1 : -1}},
               sums, results);
    }
    EXPECT_EQ(row_of(results, 1, hidden), whole) << "chunk " << chunk;
  }
}

TEST(CudaPool, NothingPooledDoesNothing) {
  std::mt19937 random(3);
  PoolStep step({.rows = 4, .hidden = 8}, random);
  const DeviceArray<float> sums(8), results(8);
  step.run({}, sums, results);
  for (const float untouched : sums.read()) ASSERT_TRUE(std::isnan(untouched));
}

}  // namespace
}  // namespace lorax::cuda
