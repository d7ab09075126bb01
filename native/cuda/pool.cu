// A warp finds each row's factor; then a thread walks one column of one span, row by row: the loads
// of several rows are under way while one is added.
#include "cuda/launch.h"
#include "cuda/pool.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 8;      // rows of a block of pool_factors
constexpr int kColumns = 128;  // columns of a block of pool_sums

__device__ __forceinline__ float value_at(const PoolArguments& a, int64_t at) {
  float delta;
  if (a.split.parts == 0) {
    delta = __bfloat162float(a.delta[at]);
  } else {
    load_split<1>(a.split, at, &delta);
  }
  return a.residual[at] + delta;
}

// Of every row of the step: those that nobody pools are few, or none.
__global__ void __launch_bounds__(kWarps * 32) pool_factors(const PoolArguments a) {
  let_next_start();
  wait_for_previous();
  const int32_t row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row >= a.rows) return;
  const int64_t begin = int64_t{row} * a.hidden;
  float squares = 0.0f;
  for (int32_t i = threadIdx.x % 32; i < a.hidden; i += 32) {
    const float x = value_at(a, begin + i);
    squares += x * x;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) squares += __shfl_xor_sync(~0u, squares, offset);
  if (threadIdx.x % 32 == 0) {
    a.factors[row] = 1.0f / sqrtf(squares / static_cast<float>(a.hidden) + a.eps);
  }
}

__global__ void __launch_bounds__(kColumns) pool_sums(const PoolArguments a) {
  let_next_start();
  wait_for_previous();
  const int32_t column = blockIdx.x * kColumns + threadIdx.x;
  if (column >= a.hidden) return;
  const DevicePooledSpan span = a.spans[blockIdx.y];
  const float gain = a.gain[column];
  float* to = a.sums + int64_t{span.slot} * a.hidden + column;
  float sum = span.starts != 0 ? 0.0f : *to;
#pragma unroll 8
  for (int32_t i = 0; i < span.num_rows; ++i) {
    const int32_t row = span.first_row + i;
    sum += value_at(a, int64_t{row} * a.hidden + column) * a.factors[row] * gain;
  }
  *to = sum;
  if (span.result >= 0) a.results[int64_t{span.result} * a.hidden + column] = sum;
}

}  // namespace

void pool(const PoolArguments& a, cudaStream_t stream) {
  if (a.num_spans == 0) return;
  LaunchShape factors;
  factors.grid = dim3(static_cast<unsigned>((a.rows + kWarps - 1) / kWarps));
  factors.block = dim3(kWarps * 32);
  launch_overlapping("pool_factors", pool_factors, factors, stream, a);
  LaunchShape sums;
  sums.grid = dim3(static_cast<unsigned>((a.hidden + kColumns - 1) / kColumns),
                   static_cast<unsigned>(a.num_spans));
  sums.block = dim3(kColumns);
  launch_overlapping("pool_sums", pool_sums, sums, stream, a);
}

}  // namespace lorax::cuda
