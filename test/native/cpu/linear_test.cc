// linear on every instruction set: against double, and bit for bit across rows and threads.
#include "backend_cases.h"

namespace lorax::cpu_test {
namespace {

class LinearTest : public CpuBackendTest {
 protected:
  std::vector<double> reference(const std::vector<float>& x, const std::vector<float>& w,
                                const std::vector<float>& bias, int rows, int n, int k) const {
    std::vector<double> y(static_cast<size_t>(rows) * n);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < n; ++c) {
        double sum = bias.empty() ? 0.0 : bias[c];
        for (int j = 0; j < k; ++j) sum += double{x[r * k + j]} * stored(w[c * k + j]);
        y[r * n + c] = sum;
      }
    }
    return y;
  }
};

TEST_P(LinearTest, MatchesDoubleOnAwkwardShapes) {
  struct Shape {
    int n, k;
  };
  auto backend = make();
  Random random(1);
  for (const Shape s : {Shape{1, 1},
                        {7, 5},
                        {16, 32},
                        {17, 33},
                        {49, 96},
                        {100, 31},
                        {63, 64},
                        {80, 576},
                        {333, 130},
                        {160, 777}}) {
    const auto w = random.values(int64_t{s.n} * s.k);
    const auto bias = random.values(s.n);
    const TensorView tensor = view(w, s.n, s.k);
    const TensorView bias_view = view(bias, 1, s.n);
    auto plain = backend->pack_weight({&tensor, 1}, {});
    auto biased = backend->pack_weight({&tensor, 1}, {&bias_view, 1});
    for (const int rows : {1, 2, 3, 4, 5, 7, 12, 13, 16, 17, 31, 32, 33, 48, 70, 200}) {
      auto x = random.values(int64_t{rows} * s.k);
      const StepPlan plan = rows_plan(rows);
      backend->begin_step(plan);
      const Activation in{x.data(), rows, s.k};
      poison(backend->linear(in, *plain, nullptr));
      const double tolerance = amx() ? 6e-3 : 2e-6;
      EXPECT_LE(relative_error(copy(backend->linear(in, *plain, nullptr)),
                               reference(x, w, {}, rows, s.n, s.k)),
                tolerance)
          << rows << " x " << s.n << " x " << s.k;
      EXPECT_LE(relative_error(copy(backend->linear(in, *biased, nullptr)),
                               reference(x, w, bias, rows, s.n, s.k)),
                tolerance)
          << "bias, " << rows << " x " << s.n << " x " << s.k;
    }
  }
}

TEST_P(LinearTest, StacksTensorsOfEveryType) {
  auto backend = make();
  Random random(2);
  const int k = 40;
  const auto first = random.values(24 * k);
  std::vector<uint16_t> second(10 * k);  // bf16
  std::vector<float> all = first;
  for (auto& h : second) {
    const float x = bf16_round(random.value());
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    h = static_cast<uint16_t>(bits >> 16);
    all.push_back(x);
  }
  std::vector<uint16_t> third(5 * k);  // f16
  for (size_t i = 0; i < third.size(); ++i) {
    const int fraction = random.integer(0, 127) * 8;  // exact in bf16 too
    const int exponent = random.integer(i % 7 == 0 ? 1 : 10, 16);
    const bool negative = random.integer(0, 1) == 1;
    third[i] = static_cast<uint16_t>((negative ? 0x8000 : 0) | (exponent << 10) | fraction);
    const float x = std::ldexp(1.0f + static_cast<float>(fraction) / 1024.0f, exponent - 15);
    all.push_back(negative ? -x : x);
  }
  const TensorView tensors[] = {view(first, 24, k, "first"),
                                {second.data(), DType::kBF16, 10, k, "second"},
                                {third.data(), DType::kF16, 5, k, "third"}};
  auto weight = backend->pack_weight(tensors, {});
  ASSERT_EQ(weight->n, 39);
  ASSERT_EQ(weight->k, k);
  auto x = random.values(3 * k);
  const StepPlan plan = rows_plan(3);
  backend->begin_step(plan);
  EXPECT_LE(relative_error(copy(backend->linear({x.data(), 3, k}, *weight, nullptr)),
                           reference(x, all, {}, 3, 39, k)),
            amx() ? 6e-3 : 2e-6);
}

TEST_P(LinearTest, ARowIsTheSameInAnyCompanyAndOnAnyThreads) {
  Random random(3);
  for (const auto& [n, k] : {std::pair{145, 576}, {96, 1536}, {33, 45}}) {
    const auto w = random.values(int64_t{n} * k);
    const auto x = random.values(int64_t{200} * k);
    const TensorView tensor = view(w, n, k);
    std::vector<float> alone(static_cast<size_t>(200) * n);
    for (const int threads : {1, 2, 5}) {
      auto backend = make(threads);
      auto weight = backend->pack_weight({&tensor, 1}, {});
      for (const int rows : {1, 2, 3, 4, 6, 11, 12, 13, 16, 17, 24, 32, 33, 64, 97, 200}) {
        for (int first = 0; first < 200; first += rows == 1 ? 1 : 67) {
          const int count = std::min(rows, 200 - first);
          auto part = std::vector<float>(x.begin() + int64_t{first} * k,
                                         x.begin() + int64_t{first + count} * k);
          const StepPlan plan = rows_plan(count);
          backend->begin_step(plan);
          const auto y = copy(backend->linear({part.data(), count, k}, *weight, nullptr));
          float* expected = alone.data() + int64_t{first} * n;
          if (rows == 1 && threads == 1) {
            std::memcpy(expected, y.data(), y.size() * 4);
          } else {
            ASSERT_TRUE(same_bits(y.data(), expected, static_cast<int64_t>(y.size())))
                << rows << " rows from " << first << ", " << threads << " threads";
          }
        }
      }
    }
  }
}

TEST_P(LinearTest, EmbedGathersRowsOfAPackedTable) {
  auto backend = make();
  Random random(4);
  const int vocab = 77;
  const int hidden = 50;
  const auto w = random.values(vocab * hidden);
  const TensorView tensor = view(w, vocab, hidden);
  auto table = backend->pack_weight({&tensor, 1}, {});
  StepPlan plan = rows_plan(5);
  plan.token_ids = {0, 76, 15, 16, 33};
  backend->begin_step(plan);
  poison(backend->embed(*table, nullptr));
  const auto y = copy(backend->embed(*table, nullptr));
  for (int r = 0; r < 5; ++r) {
    for (int j = 0; j < hidden; ++j) {
      ASSERT_EQ(y[r * hidden + j], stored(w[plan.token_ids[r] * hidden + j]));
    }
  }
}

TEST_P(LinearTest, NamesATensorThatIsNotFinite) {
  auto backend = make();
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    std::vector<float> good(32, 1.0f);
    std::vector<float> damaged(32, 1.0f);
    damaged[31] = bad;
    const TensorView tensors[] = {view(good, 4, 8, "good.weight"),
                                  view(damaged, 4, 8, "damaged.weight")};
    try {
      backend->pack_weight(tensors, {});
      FAIL() << "packed";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), "MODEL_INVALID");
      EXPECT_NE(std::string(e.what()).find("damaged.weight"), std::string::npos);
    }
    EXPECT_THROW(backend->pack_vector(tensors[1]), Error);
    EXPECT_THROW(backend->pack_weight({&tensors[0], 1}, {&tensors[1], 1}), Error);
  }
}

LORAX_INSTANTIATE_BACKENDS(LinearTest);

TEST(MakeCpuBackend, RefusesAnInstructionSetTheProcessorLacks) {
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa_available(isa)) {
      EXPECT_NE(make_cpu_backend({Precision::kBFloat16, 1, isa}), nullptr);
    } else {
      EXPECT_THROW(make_cpu_backend({Precision::kBFloat16, 1, isa}), Error);
    }
  }
}

}  // namespace
}  // namespace lorax::cpu_test
