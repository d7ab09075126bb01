// The linears' tile loop of AMX on emulated tiles, and the check that is run before AMX is chosen.
#include "cpu/amx_gemm.h"

#include "backend_cases.h"
#include "cpu/amx_check.h"
#include "cpu/packed_weight.h"
#include "cpu/thread_pool.h"
#include "emulated_kernels.h"
#include "emulated_tiles.h"

namespace lorax::cpu {
namespace {

using cpu_test::bf16_round;
using cpu_test::EmulatedTiles;
using cpu_test::Random;

TEST(AmxGemm, MatchesDoubleForAllRowsAndPanelsAndKeepsEachRowsBits) {
  Random random(40);
  ThreadPool pool(1);
  for (const auto& [n, k] : {std::pair{16, 32}, {33, 64}, {70, 45}, {100, 576}}) {
    const auto w = random.values(int64_t{n} * k);
    const TensorView tensor = cpu_test::view(w, n, k);
    const auto weight = pack_weight({&tensor, 1}, {}, true, pool);
    const int most = 70;
    std::vector<float> x(static_cast<size_t>(most) * k);
    std::vector<uint16_t> xb(static_cast<size_t>(most) * weight->k_padded, 0);
    for (int r = 0; r < most; ++r) {
      for (int j = 0; j < k; ++j) {
        x[r * k + j] = bf16_round(random.value());
        xb[r * weight->k_padded + j] = to_bf16(x[r * k + j]);
      }
    }
    std::vector<float> expected;
    for (int rows = most; rows >= 1; rows -= rows > 34 ? 9 : 1) {
      std::vector<float> y(static_cast<size_t>(rows) * n + 1, -7.0f);
      amx_gemm_on<EmulatedTiles>({xb.data(), weight->k_padded, weight->data.as<uint8_t>(),
                                  weight->panel_bytes, y.data(), n, rows, n, weight->k_padded});
      EXPECT_FALSE(EmulatedTiles::configured);
      EXPECT_EQ(y.back(), -7.0f);
      if (expected.empty()) {
        for (int r = 0; r < rows; ++r) {
          for (int c = 0; c < n; ++c) {
            double want = 0;
            double size = 0;
            for (int j = 0; j < k; ++j) {
              const double term = double{x[r * k + j]} * bf16_round(w[c * k + j]);
              want += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(y[r * n + c], want, 1e-6 * size) << r << ", " << c;
          }
        }
        expected = y;
      }
      ASSERT_TRUE(cpu_test::same_bits(y.data(), expected.data(), int64_t{rows} * n)) << rows;
    }
  }
}

TEST(AmxCheck, AcceptsTilesThatAreRightAndRefusesOthers) {
  const auto exact = [](void (*gemm)(const AmxGemmArgs& args)) {
    AmxKernels kernels = cpu_test::emulated_amx_kernels();
    kernels.gemm = gemm;
    return computes_exactly(kernels);
  };
  EXPECT_TRUE(exact(amx_gemm_on<EmulatedTiles>));
  EXPECT_FALSE(exact([](const AmxGemmArgs&) {}));   // writes nothing
  EXPECT_FALSE(exact([](const AmxGemmArgs& args) {  // the last element is off by one
    amx_gemm_on<EmulatedTiles>(args);
    args.y[(args.rows - 1) * args.y_stride + args.columns - 1] += 1.0f;
  }));
}

}  // namespace
}  // namespace lorax::cpu
