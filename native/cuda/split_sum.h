// A linear's result that the streaming GEMM left in parts of k, which the operation that follows
// adds in their order: y[row, column] = sum over parts of sums[part * stride + row * n + column].
//
// Parts are bf16, as y itself would be: of P parts of random sums each is sqrt(P) times smaller, so
// their roundings together are no larger than one of y.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace lorax::cuda {

struct SplitSum {
  static constexpr int32_t kMaxParts = 4;
  const __nv_bfloat16* sums = nullptr;  // [parts][rows][n]
  int32_t parts = 0;                    // 0: the result is whole, and elsewhere
  int64_t stride = 0;                   // from a part to the next
};

#ifdef __CUDACC__
// y[0 .. kWidth): neighbours, kWidth 8, 4 or 1; aligned to it. All parts are under way at once, and
// unpacked as they are added: few registers.
template <int kWidth>
__device__ __forceinline__ void load_split(const SplitSum& split, int64_t at, float* y) {
  uint32_t words[SplitSum::kMaxParts][(kWidth + 1) / 2];
#pragma unroll
  for (int p = 0; p < SplitSum::kMaxParts; ++p) {
    if (p >= split.parts) continue;
    const __nv_bfloat16* from = split.sums + p * split.stride + at;
    if constexpr (kWidth == 8) {
      const uint4 raw = *reinterpret_cast<const uint4*>(from);
      words[p][0] = raw.x, words[p][1] = raw.y, words[p][2] = raw.z, words[p][3] = raw.w;
    } else if constexpr (kWidth == 4) {
      const uint2 raw = *reinterpret_cast<const uint2*>(from);
      words[p][0] = raw.x, words[p][1] = raw.y;
    } else {
      words[p][0] = *reinterpret_cast<const uint16_t*>(from);
    }
  }
#pragma unroll
  for (int p = 0; p < SplitSum::kMaxParts; ++p) {
    if (p >= split.parts) continue;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      const uint32_t word = words[p][i / 2];
      const float value = __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
      y[i] = p == 0 ? value : y[i] + value;
    }
  }
}
#endif

}  // namespace lorax::cuda
