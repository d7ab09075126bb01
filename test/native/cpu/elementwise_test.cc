// Norms and silu on every instruction set, against double and row by row.
#include "backend_cases.h"

namespace lorax::cpu_test {
namespace {

class ElementwiseTest : public CpuBackendTest {};

std::vector<double> norm_reference(const std::vector<float>& x, const std::vector<float>& gain,
                                   int rows, int n, float eps) {
  std::vector<double> y;
  for (int r = 0; r < rows; ++r) {
    double squares = 0;
    for (int j = 0; j < n; ++j) squares += double{x[r * n + j]} * x[r * n + j];
    for (int j = 0; j < n; ++j) {
      y.push_back(x[r * n + j] / std::sqrt(squares / n + eps) * gain[j]);
    }
  }
  return y;
}

TEST_P(ElementwiseTest, NormsMatchDouble) {
  auto backend = make();
  Random random(30);
  for (const int n : {1, 15, 16, 33, 576, 1000}) {
    const auto gain = random.values(n);
    auto vector = backend->pack_vector(view(gain, 1, n));
    for (const int rows : {1, 3, 16, 70}) {
      auto x = random.values(int64_t{rows} * n);
      auto delta = random.values(int64_t{rows} * n);
      const Activation in{x.data(), rows, n};
      poison(backend->rms_norm(in, *vector, 1e-5f));
      EXPECT_LE(relative_error(copy(backend->rms_norm(in, *vector, 1e-5f)),
                               norm_reference(x, gain, rows, n, 1e-5f)),
                1e-6);
      std::vector<float> sum = x;
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];
      Activation residual{x.data(), rows, n};
      poison(backend->rms_norm(in, *vector, 1e-5f));
      // Some rows only: the same bits as among all.
      std::vector<int32_t> some;
      for (int r = rows - 1; r >= 0; r -= 2) some.insert(some.begin(), r);
      StepPlan sampled = rows_plan(rows);
      sampled.logits_rows = some;
      backend->begin_step(sampled);
      const auto y =
          copy(backend->add_rms_norm(residual, {delta.data(), rows, n}, *vector, 1e-5f, false));
      EXPECT_EQ(x, sum);  // in place
      EXPECT_LE(relative_error(y, norm_reference(sum, gain, rows, n, 1e-5f)), 1e-6);

      std::vector<float> zero(x.size(), 0.0f);
      const Activation picked =
          backend->add_rms_norm(residual, {zero.data(), rows, n}, *vector, 1e-5f, true);
      ASSERT_EQ(picked.rows, static_cast<int32_t>(some.size()));
      const auto z = copy(picked);
      for (size_t i = 0; i < some.size(); ++i) {
        EXPECT_TRUE(same_bits(z.data() + i * n, y.data() + some[i] * n, n));
      }
    }
  }
}

TEST_P(ElementwiseTest, SiluMatchesDoubleAtAllMagnitudes) {
  auto backend = make();
  Random random(31);
  for (const int width : {1, 17, 1536}) {
    for (const int rows : {1, 16, 33}) {
      auto x = random.values(int64_t{rows} * 2 * width, 3.0f);
      for (size_t i = 0; i < x.size(); i += 5) x[i] *= 40.0f;  // far into both tails
      const Activation in{x.data(), rows, 2 * width};
      poison(backend->silu_mul(in));
      const auto y = copy(backend->silu_mul(in));
      std::vector<double> want;
      for (int r = 0; r < rows; ++r) {
        for (int j = 0; j < width; ++j) {
          const double g = x[r * 2 * width + j];
          want.push_back(g / (1.0 + std::exp(-g)) * x[r * 2 * width + width + j]);
        }
      }
      EXPECT_LE(relative_error(y, want), 1e-6);
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_NEAR(y[i], want[i], 1e-5 * std::abs(want[i]) + 1e-30) << i;
      }
    }
  }
}

TEST_P(ElementwiseTest, SamplesEveryRow) {
  auto backend = make(3);
  StepPlan plan = rows_plan(7);
  plan.samples.resize(7);  // greedy
  backend->begin_step(plan);
  const int vocab = 1001;
  Random random(32);
  auto logits = random.values(7 * vocab);
  for (int r = 0; r < 7; ++r) logits[r * vocab + (r * 397) % vocab] = 50.0f;
  std::vector<SampleResult> results(7);
  backend->sample({logits.data(), 7, vocab});
  backend->collect(results);
  for (int r = 0; r < 7; ++r) EXPECT_EQ(results[r].token, (r * 397) % vocab);
  std::vector<float> out(7 * vocab);
  backend->read_logits({logits.data(), 7, vocab}, out);
  EXPECT_EQ(out, logits);
}

LORAX_INSTANTIATE_BACKENDS(ElementwiseTest);

}  // namespace
}  // namespace lorax::cpu_test
