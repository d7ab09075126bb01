// y = silu(gate) * up, silu(g) = g / (1 + exp(-g)), x = [gate | up]. Capturable.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace lorax::cuda {

// x [rows, 2 * inner], y [rows, inner].
void silu_mul(const __nv_bfloat16* x, __nv_bfloat16* y, int32_t rows, int32_t inner,
              cudaStream_t stream);

}  // namespace lorax::cuda
