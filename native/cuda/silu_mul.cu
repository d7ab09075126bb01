// Grid (parts of a row, rows); each thread computes eight neighbours.
#include "cuda/bf16_vector.cuh"
#include "cuda/launch.h"
#include "cuda/silu_mul.h"

namespace lorax::cuda {
namespace {

constexpr int kThreads = 256;

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    silu_mul_kernel(const __nv_bfloat16* __restrict__ x, __nv_bfloat16* __restrict__ y,
                    int32_t inner) {
  let_next_start();
  wait_for_previous();
  const int32_t column = (blockIdx.x * kThreads + threadIdx.x) * kWidth;
  if (column < inner) {
    const int64_t row = blockIdx.y;
    Floats<kWidth> gate, up;
    gate.load(x + row * 2 * inner + column);
    up.load(x + row * 2 * inner + inner + column);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      // exp overflows to infinity for gates below -88, and g / inf is 0 as it should be.
      gate.v[i] = gate.v[i] / (1.0f + __expf(-gate.v[i])) * up.v[i];
    }
    gate.store(y + row * inner + column);
  }
}

int width_of(int32_t inner) { return inner % 8 == 0 ? 8 : 1; }

// Blocks beside each other in a row.
uint32_t parts_of(int32_t inner) {
  return static_cast<uint32_t>((inner / width_of(inner) + kThreads - 1) / kThreads);
}

}  // namespace

void silu_mul(const __nv_bfloat16* x, __nv_bfloat16* y, int32_t rows, int32_t inner,
              cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{.grid = dim3(parts_of(inner), rows), .block = dim3(kThreads)};
  if (width_of(inner) == 8) {
    launch_overlapping("silu_mul", silu_mul_kernel<8>, shape, stream, x, y, inner);
  } else {
    launch_overlapping("silu_mul", silu_mul_kernel<1>, shape, stream, x, y, inner);
  }
}

}  // namespace lorax::cuda
