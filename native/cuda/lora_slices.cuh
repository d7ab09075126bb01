// Slices of A and B (adapter_image.h) on their way into shared memory, where halves look like whole
// ones. v of the ranks that a half does not have is 0 in all kernels, so of its B any finite values
// stand for them: those of other ranks.
#pragma once

#include <cstdint>

#include "cuda/lora_async.cuh"
#include "cuda/lora_mma.cuh"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

// 16 bytes of a block of A to where it has all its 1024: zeros for what a half lacks.
__device__ __forceinline__ void copy_a_block(void* to, SliceAddress a, int32_t block, int part) {
  const bool exists = part < 32 || !a.is_half();
  copy_async_or_zero(to, a.a_block(block) + (exists ? part : 0) * 16, exists);
}

// Where from the beginning of a tile of B lane (g, t) has its 16 bytes; from g to g + 1.
__device__ __forceinline__ int b_row_bytes(bool is_half) { return is_half ? 32 : 64; }
__device__ __forceinline__ int b_part_at(bool is_half, int g, int t) {
  return g * b_row_bytes(is_half) + (is_half ? t % 2 : t) * 16;
}

// This lane's parts of some tiles, to where each has all its 512 bytes.
template <int kMost>
__device__ __forceinline__ void copy_b_tiles(void* to, SliceAddress b, int32_t first, int count,
                                             int lane) {
  const uint8_t* from = b.b_tile(first) + b_part_at(b.is_half(), lane / 4, lane % 4);
  const int32_t bytes = b.b_tile_bytes();
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    if (i < count) copy_async(static_cast<uint8_t*>(to) + i * 512 + lane * 16, from + i * bytes);
  }
}

}  // namespace lorax::cuda
