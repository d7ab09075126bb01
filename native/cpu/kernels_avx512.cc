// The kernels compiled for avx512; see kernels.h.
// Each is written on those before it.
// clang-format off
#include "cpu/vec_avx512.h"
#include "cpu/gemm_impl.h"
#include "cpu/elementwise_impl.h"
#include "cpu/attention_impl.h"
// clang-format on

namespace lorax::cpu {

const Kernels& avx512_kernels(bool bf16) {
  static constexpr Kernels kBf16 = make_kernels<uint16_t>();
  static constexpr Kernels kFloat32 = make_kernels<float>();
  return bf16 ? kBf16 : kFloat32;
}

}  // namespace lorax::cpu
