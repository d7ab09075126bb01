// The tile loop of AMX on tiles in plain C++, so that its indexing is tested on every machine.
//
// The emulated tiles follow the instructions: pairs along k, float32 accumulation, only the
// configured rows loaded and stored. What they cannot show is the processor's own behaviour; the
// amx_* cases of the other suites do, where there is AMX.
#include "cpu/amx_gemm.h"

#include "backend_cases.h"
#include "cpu/amx_check.h"
#include "cpu/packed_weight.h"
#include "cpu/thread_pool.h"

namespace lorax::cpu {
namespace {

using cpu_test::bf16_round;
using cpu_test::Random;

struct EmulatedTiles {
  static inline uint8_t data[8][16][64];
  static inline int rows[8];
  static inline bool configured = false;

  static void configure(int m0, int m1) {
    const int r[8] = {m0, m0, m1, m1, m0, m1, 16, 16};
    std::copy(r, r + 8, rows);
    std::memset(data, 0xff, sizeof data);  // NaN: nothing may be read before it is set
    configured = true;
  }
  static void release() { configured = false; }
  template <int T>
  static void zero() {
    EXPECT_TRUE(configured);
    std::memset(data[T], 0, sizeof data[T]);
  }
  template <int T>
  static void load(const void* p, int64_t stride) {
    for (int r = 0; r < rows[T]; ++r) {
      std::memcpy(data[T][r], static_cast<const uint8_t*>(p) + r * stride, 64);
    }
  }
  template <int T>
  static void store(void* p, int64_t stride) {
    for (int r = 0; r < rows[T]; ++r) {
      std::memcpy(static_cast<uint8_t*>(p) + r * stride, data[T][r], 64);
    }
  }
  static float half(const uint8_t* at) {
    uint16_t h;
    std::memcpy(&h, at, 2);
    const uint32_t bits = uint32_t{h} << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
  template <int C, int A, int B>
  static void multiply() {
    EXPECT_EQ(rows[C], rows[A]);
    for (int m = 0; m < rows[C]; ++m) {
      for (int pair = 0; pair < 16; ++pair) {
        for (int n = 0; n < 16; ++n) {
          float c;
          std::memcpy(&c, data[C][m] + n * 4, 4);
          c += half(data[A][m] + pair * 4) * half(data[B][pair] + n * 4);
          c += half(data[A][m] + pair * 4 + 2) * half(data[B][pair] + n * 4 + 2);
          std::memcpy(data[C][m] + n * 4, &c, 4);
        }
      }
    }
  }
  static void prefetch(const uint8_t*) {}
};

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
  EXPECT_TRUE(multiplies_exactly(amx_gemm_on<EmulatedTiles>));
  EXPECT_FALSE(multiplies_exactly([](const AmxGemmArgs&) {}));   // writes nothing
  EXPECT_FALSE(multiplies_exactly([](const AmxGemmArgs& args) {  // the last element is off by one
    amx_gemm_on<EmulatedTiles>(args);
    args.y[(args.rows - 1) * args.y_stride + args.columns - 1] += 1.0f;
  }));
}

}  // namespace
}  // namespace lorax::cpu
