// embed, rms_norm and silu_mul against float64 on the host.
#include <gtest/gtest.h>

#include <cmath>

#include "cuda/device_array.h"
#include "cuda/embed.h"
#include "cuda/norm.h"
#include "cuda/silu_mul.h"

namespace lorax::cuda {
namespace {

using Bf16s = std::vector<__nv_bfloat16>;

std::vector<float> random_floats(std::mt19937& random, size_t size, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> out(size);
  for (float& x : out) x = normal(random);
  return out;
}

TEST(CudaEmbed, CopiesRowsAndTakesTokensOfTheStepBefore) {
  std::mt19937 random(1);
  for (const int32_t hidden : {8, 30, 576, 4096, 4100}) {
    const int32_t vocab = 97;
    const Bf16s table = random_bf16(random, static_cast<size_t>(vocab * hidden), 2.0f);
    // The last previous sample failed; the last two rows are padding.
    const std::vector<int32_t> ids = {5, -1, 96, -3, 0, -2, -4, 0, 0};
    const std::vector<int32_t> previous = {11, 0, 42, -1};
    const std::vector<int32_t> tokens = {5, 11, 96, 42, 0, 0, 0, 0, 0};
    const auto rows = static_cast<int32_t>(ids.size());
    const DeviceArray<__nv_bfloat16> device_table(table);
    const DeviceArray<int32_t> device_ids(ids), device_previous(previous), input(ids.size());
    const DeviceArray<float> residual(static_cast<size_t>(rows * hidden));
    embed({.table = device_table.data(),
           .token_ids = device_ids.data(),
           .previous_tokens = device_previous.data(),
           .residual = residual.data(),
           .input_tokens = input.data(),
           .rows = rows,
           .hidden = hidden,
           .vocab = vocab},
          nullptr);
    EXPECT_EQ(input.read(), tokens);
    const std::vector<float> out = residual.read();
    for (int32_t row = 0; row < rows; ++row) {
      for (int32_t i = 0; i < hidden; ++i) {
        ASSERT_EQ(out[row * hidden + i], to_float(table[tokens[row] * hidden + i]))
            << "hidden " << hidden << " row " << row << " column " << i;
      }
    }
  }
}

struct NormCase {
  int32_t rows, hidden;
  bool adds, gathers;
  int32_t parts = 0;  // that the delta is in
};

void check_norm(const NormCase& c, std::mt19937& random) {
  const size_t size = static_cast<size_t>(c.rows) * c.hidden;
  std::vector<float> x = random_floats(random, size, 3.0f);
  for (int32_t i = 0; i < c.hidden; ++i) x[i] *= 1e-4f;  // eps matters in row 0
  const Bf16s delta = random_bf16(random, size, 2.0f);
  const std::vector<float> gain = random_floats(random, c.hidden, 1.0f);
  const float eps = 1e-5f;
  std::vector<int32_t> gather;
  for (int32_t row = c.rows - 1; row >= 0; row -= 3) gather.push_back(row);
  const auto gathered = static_cast<int32_t>(gather.size());
  const int32_t out_rows = c.gathers ? gathered + 2 : c.rows;  // two rows of padding
  gather.resize(gathered + 2, 0);

  const DeviceArray<float> residual(x), device_gain(gain);
  const DeviceArray<__nv_bfloat16> device_delta(delta);
  // [parts][rows, hidden], of few bits, so that no order matters.
  Bf16s sums;
  Bf16s whole = delta;
  for (int32_t part = 0; part < c.parts; ++part) {
    for (size_t i = 0; i < size; ++i) {
      const auto share = static_cast<float>(static_cast<int32_t>((i * 7 + part * 5) % 17) - 8);
      sums.push_back(to_bf16(share));
      whole[i] = to_bf16((part == 0 ? 0.0f : to_float(whole[i])) + share);
    }
  }
  const DeviceArray<__nv_bfloat16> device_sums(sums);
  const DeviceArray<int32_t> device_gather(gather), count(std::vector<int32_t>{gathered});
  const DeviceArray<__nv_bfloat16> y(static_cast<size_t>(out_rows) * c.hidden);
  NormArguments arguments;
  arguments.residual = residual.data();
  arguments.delta = c.adds && c.parts == 0 ? device_delta.data() : nullptr;
  if (c.parts > 0) arguments.split = {device_sums.data(), c.parts, static_cast<int64_t>(size)};
  arguments.gain = device_gain.data();
  arguments.y = y.data();
  arguments.eps = eps;
  arguments.rows = out_rows;
  arguments.hidden = c.hidden;
  arguments.gather = c.gathers ? device_gather.data() : nullptr;
  arguments.gather_count = c.gathers ? count.data() : nullptr;
  rms_norm(arguments, nullptr);

  std::vector<float> sum = x;  // the residual afterwards
  const int32_t used = c.gathers ? gathered : c.rows;
  std::vector<double> expected(static_cast<size_t>(used) * c.hidden);
  for (int32_t i = 0; i < used; ++i) {
    const size_t row = static_cast<size_t>(c.gathers ? gather[i] : i) * c.hidden;
    double squares = 0.0;
    for (int32_t j = 0; j < c.hidden; ++j) {
      if (c.adds) sum[row + j] += to_float(whole[row + j]);
      squares += static_cast<double>(sum[row + j]) * sum[row + j];
    }
    for (int32_t j = 0; j < c.hidden; ++j) {
      expected[static_cast<size_t>(i) * c.hidden + j] =
          sum[row + j] / std::sqrt(squares / c.hidden + eps) * gain[j];
    }
  }
  EXPECT_EQ(residual.read(), sum);
  const Bf16s out = y.read();
  EXPECT_LT(relative_error(out, expected), 3e-3);
  for (size_t i = expected.size(); i < out.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint16_t>(out[i]), 0xFFFF) << "padding is left alone";
  }
}

TEST(CudaNorm, AgreesWithTheReference) {
  std::mt19937 random(2);
  for (const int32_t hidden : {2, 8, 30, 100, 576, 2048, 4096, 4098, 8192, 12288}) {
    for (const int32_t rows : {1, 2, 37, 129}) {
      for (const bool adds : {false, true}) {
        for (const bool gathers : {false, true}) {
          SCOPED_TRACE(testing::Message() << "rows " << rows << " hidden " << hidden << " adds "
                                          << adds << " gathers " << gathers);
          check_norm({rows, hidden, adds, gathers}, random);
          if (adds) check_norm({rows, hidden, adds, gathers, 2 + rows % 3}, random);
        }
      }
    }
  }
  check_norm({8192, 576, true, false}, random);
}

TEST(CudaNorm, ARowDoesNotDependOnTheOthers) {
  std::mt19937 random(3);
  const int32_t hidden = 4096, rows = 64;
  const std::vector<float> x = random_floats(random, static_cast<size_t>(rows) * hidden, 3.0f);
  const DeviceArray<float> residual(x), gain(random_floats(random, hidden, 1.0f));
  const DeviceArray<__nv_bfloat16> all(x.size()), one(hidden);
  NormArguments a;
  a.residual = residual.data();
  a.gain = gain.data();
  a.y = all.data();
  a.eps = 1e-6f;
  a.rows = rows;
  a.hidden = hidden;
  rms_norm(a, nullptr);
  a.residual += 17 * hidden;
  a.y = one.data();
  a.rows = 1;
  rms_norm(a, nullptr);
  const Bf16s of_all = all.read(), of_one = one.read();
  for (int32_t i = 0; i < hidden; ++i) {
    ASSERT_EQ(std::bit_cast<uint16_t>(of_one[i]), std::bit_cast<uint16_t>(of_all[17 * hidden + i]));
  }
}

TEST(CudaSiluMul, AgreesWithTheReference) {
  std::mt19937 random(4);
  for (const int32_t inner : {2, 8, 30, 1536, 14336, 5461}) {
    for (const int32_t rows : {1, 3, 130}) {
      Bf16s x = random_bf16(random, static_cast<size_t>(rows) * 2 * inner, 8.0f);
      x[0] = to_bf16(-200.0f);  // exp(200) is infinite: silu is 0
      x[inner] = to_bf16(3.0f);
      x[1] = to_bf16(200.0f);
      const DeviceArray<__nv_bfloat16> device_x(x), y(static_cast<size_t>(rows) * inner);
      silu_mul(device_x.data(), y.data(), rows, inner, nullptr);
      std::vector<double> expected(y.size());
      for (int32_t row = 0; row < rows; ++row) {
        for (int32_t i = 0; i < inner; ++i) {
          const double gate = to_float(x[static_cast<size_t>(row) * 2 * inner + i]);
          const double up = to_float(x[static_cast<size_t>(row) * 2 * inner + inner + i]);
          expected[static_cast<size_t>(row) * inner + i] = gate / (1.0 + std::exp(-gate)) * up;
        }
      }
      EXPECT_LT(relative_error(y.read(), expected), 3e-3) << "rows " << rows << " inner " << inner;
    }
  }
  // 8192 rows: the grid's second dimension.
  const int32_t rows = 8192, inner = 64;
  const Bf16s x = random_bf16(random, size_t{8192} * 2 * inner, 4.0f);
  const DeviceArray<__nv_bfloat16> device_x(x), y(size_t{8192} * inner);
  silu_mul(device_x.data(), y.data(), rows, inner, nullptr);
  const Bf16s out = y.read();
  const double gate = to_float(x[size_t{8191} * 2 * inner]);
  const double up = to_float(x[size_t{8191} * 2 * inner + inner]);
  const double expected = gate / (1.0 + std::exp(-gate)) * up;
  EXPECT_NEAR(to_float(out[size_t{8191} * inner]), expected, 5e-3 * std::abs(expected));
}

}  // namespace
}  // namespace lorax::cuda
