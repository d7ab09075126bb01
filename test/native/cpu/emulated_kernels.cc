// See emulated_kernels.h. The headers as kernels_amx.cc has them, on portable vectors.
// clang-format off
#include "cpu/vec_portable.h"
#include "cpu/exp_impl.h"
#include "cpu/amx_gemm.h"
#include "cpu/amx_attention.h"
#include "cpu/amx_lora.h"
// clang-format on

#include "emulated_kernels.h"

#include "cpu/packed_weight.h"
#include "emulated_tiles.h"

namespace lorax::cpu_test {

const cpu::AmxKernels& emulated_amx_kernels() {
  static constexpr cpu::AmxKernels kKernels = {
      cpu::amx_gemm_on<EmulatedTiles>, cpu::amx_shrink_on<EmulatedTiles>,
      cpu::amx_expand_on<EmulatedTiles>, cpu::amx_attention_on<EmulatedTiles>,
      [](const float* x, int32_t n, int32_t n_padded, uint16_t* y) {
        for (int32_t i = 0; i < n_padded; ++i) y[i] = i < n ? cpu::to_bf16(x[i]) : uint16_t{0};
      }};
  return kKernels;
}

}  // namespace lorax::cpu_test
