// See amx_check.h.
#include "cpu/amx_check.h"

#include <vector>

#include "cpu/packed_weight.h"

namespace lorax::cpu {

bool multiplies_exactly(AmxGemm gemm) {
  constexpr int32_t kColumns = 37;
  constexpr int32_t kK = 64;
  constexpr int32_t kPanels = (kColumns + kPanel - 1) / kPanel;
  const auto x_at = [](int32_t r, int32_t j) { return (r * 7 + j * 3) % 11 - 5; };
  const auto w_at = [](int32_t c, int32_t j) { return (c * 5 + j * 2) % 13 - 6; };
  std::vector<uint16_t> w(size_t{kPanels} * kK * kPanel);  // [panels][k / 2][16][2]
  for (int32_t c = 0; c < kColumns; ++c) {
    for (int32_t j = 0; j < kK; ++j) {
      w[static_cast<size_t>(((c / kPanel * kK / 2 + j / 2) * kPanel + c % kPanel) * 2 + j % 2)] =
          to_bf16(static_cast<float>(w_at(c, j)));
    }
  }
  for (const int32_t rows : {1, 16, 33}) {
    std::vector<uint16_t> x(static_cast<size_t>(rows * kK));
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t j = 0; j < kK; ++j) {
        x[static_cast<size_t>(r * kK + j)] = to_bf16(static_cast<float>(x_at(r, j)));
      }
    }
    std::vector<float> y(static_cast<size_t>(rows * kColumns), -1e30f);
    gemm({x.data(), kK, reinterpret_cast<const uint8_t*>(w.data()), kK * kPanel * 2, y.data(),
          kColumns, rows, kColumns, kK});
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t c = 0; c < kColumns; ++c) {
        int32_t want = 0;
        for (int32_t j = 0; j < kK; ++j) want += x_at(r, j) * w_at(c, j);
        if (y[static_cast<size_t>(r * kColumns + c)] != static_cast<float>(want)) return false;
      }
    }
  }
  return true;
}

}  // namespace lorax::cpu
