// A row stays in registers where a thread holds eight values of it (hidden <= 8192); wider rows are
// read twice, the second time from the cache.
#include <algorithm>

#include "cuda/bf16_vector.cuh"
#include "cuda/launch.h"
#include "cuda/norm.h"

namespace lorax::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int kMaxWarps = kMaxThreads / 32;

// The sum over the block, the same bits in every thread.
__device__ float block_sum(float x) {
  __shared__ float of_warp[kMaxWarps];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? of_warp[threadIdx.x % 32] : 0.0f;
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// Row of the residual that block i norms, or -1.
__device__ int32_t row_of(const NormArguments& a, int32_t i) {
  if (a.gather == nullptr) return i;
  return i < *a.gather_count ? a.gather[i] : -1;
}

template <int kWidth>
__device__ Floats<kWidth> load_row(const NormArguments& a, int64_t at) {
  Floats<kWidth> x;
  x.load(a.residual + at);
  if (a.delta != nullptr || a.split.parts > 0) {
    Floats<kWidth> delta;
    if (a.split.parts == 0) {
      delta.load(a.delta + at);
    } else {
      load_split<kWidth>(a.split, at, delta.v);
    }
#pragma unroll
    for (int i = 0; i < kWidth; ++i) x.v[i] += delta.v[i];
    x.store(a.residual + at);
  }
  return x;
}

template <int kWidth>
__device__ float squares(const Floats<kWidth>& x) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) sum += x.v[i] * x.v[i];
  return sum;
}

template <int kWidth>
__device__ void store_normed(Floats<kWidth> x, const Floats<kWidth>& gain, float factor,
                             __nv_bfloat16* y) {
#pragma unroll
  for (int i = 0; i < kWidth; ++i) x.v[i] = x.v[i] * factor * gain.v[i];
  x.store(y);
}

// blockDim.x * 8 >= hidden, a multiple of 8.
// Of few enough registers to find room beside a block of the streaming GEMM, and start before it
// ends.
__global__ void __maxnreg__(40) norm_in_registers(const NormArguments a) {
  let_next_start();
  const int32_t column = threadIdx.x * 8;
  const bool active = column < a.hidden;
  Floats<8> gain;  // a weight: no earlier kernel writes it
  if (active) gain.load(a.gain + column);
  wait_for_previous();
  const int32_t row = row_of(a, blockIdx.x);
  if (row < 0) return;

  Floats<8> x;
  float sum = 0.0f;
  if (active) {
    x = load_row<8>(a, int64_t{row} * a.hidden + column);
    sum = squares(x);
  }
  const float mean = block_sum(sum) / static_cast<float>(a.hidden);
  if (active) {
    store_normed(x, gain, 1.0f / sqrtf(mean + a.eps),
                 a.y + int64_t{blockIdx.x} * a.hidden + column);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kMaxThreads) norm_in_memory(const NormArguments a) {
  let_next_start();
  wait_for_previous();
  const int32_t row = row_of(a, blockIdx.x);
  if (row < 0) return;

  const int64_t begin = int64_t{row} * a.hidden;
  float sum = 0.0f;
  for (int32_t i = threadIdx.x * kWidth; i < a.hidden; i += blockDim.x * kWidth) {
    sum += squares(load_row<kWidth>(a, begin + i));
  }
  const float factor = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(a.hidden) + a.eps);
  // Each thread reads back what it wrote itself.
  for (int32_t i = threadIdx.x * kWidth; i < a.hidden; i += blockDim.x * kWidth) {
    Floats<kWidth> x, gain;
    x.load(a.residual + begin + i);
    gain.load(a.gain + i);
    store_normed(x, gain, factor, a.y + int64_t{blockIdx.x} * a.hidden + i);
  }
}

}  // namespace

void rms_norm(const NormArguments& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  const int width = a.hidden % 8 == 0 ? 8 : 1;
  const unsigned threads = std::min((a.hidden / width + 31) / 32 * 32, kMaxThreads);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(a.rows)), .block = dim3(threads)};
  if (width == 8 && a.hidden <= 8 * kMaxThreads) {
    launch_overlapping("rms_norm", norm_in_registers, shape, stream, a);
  } else if (width == 8) {
    launch_overlapping("rms_norm", norm_in_memory<8>, shape, stream, a);
  } else {
    launch_overlapping("rms_norm", norm_in_memory<1>, shape, stream, a);
  }
}

}  // namespace lorax::cuda
