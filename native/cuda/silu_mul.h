// y = silu(gate) * up, silu(g) = g / (1 + exp(-g)), x = [gate | up]. Capturable.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace lorax::cuda {

// x [rows, 2 * inner], y [rows, inner]. `ready`: told when y is complete (ready.cuh), by
// silu_mul_blocks() arrivals; may be null.
void silu_mul(const __nv_bfloat16* x, __nv_bfloat16* y, int32_t rows, int32_t inner,
              cudaStream_t stream, uint32_t* ready = nullptr);

// Blocks of its grid.
uint32_t silu_mul_blocks(int32_t rows, int32_t inner);

}  // namespace lorax::cuda
