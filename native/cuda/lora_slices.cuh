// Parts of slices of A and B (adapter_image.h) as a warp reads them. Of a half slice of A, zeros stand
// for ranks 8 to 15, so v of these is 0; of B any finite values, those of other ranks, for they are
// multiplied by it.
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
  high = load_streaming_or_zero(from + 512, !a.is_half());
}

// The same block to where it has all its 1024 bytes; `part`: which 16 of them.
__device__ __forceinline__ void copy_a_block(void* to, SliceAddress a, int32_t block, int part) {
  const bool exists = part < 32 || !a.is_half();
  copy_async_or_zero(to, a.a_block(block) + (exists ? part : 0) * 16, exists);
}

// Where from the beginning of a tile of B lane (g, t) has its 16 bytes.
__device__ __forceinline__ int b_part_at(bool is_half, int g, int t) {
  return (is_half ? g * 2 + t % 2 : g * 4 + t) * 16;
}

// This lane's part of a tile to where it has all its 512 bytes.
__device__ __forceinline__ void copy_b_part(void* to, SliceAddress b, int32_t tile, int lane) {
  copy_async(static_cast<uint8_t*>(to) + lane * 16,
             b.b_tile(tile) + b_part_at(b.is_half(), lane / 4, lane % 4));
}

}  // namespace lorax::cuda
