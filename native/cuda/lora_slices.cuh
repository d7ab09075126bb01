// Parts of slices of A and B (adapter_image.h) as a warp reads them: a half slice has no ranks 8 to
// 15, and what would hold them is zeros.
#pragma once

#include <cstdint>

#include "cuda/lora_async.cuh"
#include "cuda/lora_mma.cuh"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

// Of 32 k this lane's: ranks g and g + 8.
__device__ __forceinline__ void load_a_block(SliceAddress a, int32_t block, int lane, uint4& low,
                                             uint4& high) {
  const uint8_t* from = a.a_block(block) + lane * 16;
  low = load_streaming(from);
  high = make_uint4(0, 0, 0, 0);
  if (!a.is_half()) high = load_streaming(from + 512);
}

// The same block to where it has all its 1024 bytes; `part`: which 16 of them.
__device__ __forceinline__ void copy_a_block(void* to, SliceAddress a, int32_t block, int part) {
  const bool exists = part < 32 || !a.is_half();
  copy_async_or_zero(to, a.a_block(block) + (exists ? part : 0) * 16, exists);
}

// Whether a tile of B has ranks 4 t .. 4 t + 3, and where from its beginning lane (g, t) has them.
__device__ __forceinline__ bool has_b_part(bool is_half, int t) { return !is_half || t < 2; }
__device__ __forceinline__ int b_part_at(bool is_half, int g, int t) {
  return (is_half ? g * 2 + t % 2 : g * 4 + t) * 16;
}

// This lane's 16 bytes of a tile to where it has all its 512.
__device__ __forceinline__ void copy_b_part(void* to, SliceAddress b, int32_t tile, int lane) {
  const bool is_half = b.is_half();
  copy_async_or_zero(static_cast<uint8_t*>(to) + lane * 16,
                     b.b_tile(tile) + b_part_at(is_half, lane / 4, lane % 4),
                     has_b_part(is_half, lane % 4));
}

}  // namespace lorax::cuda
