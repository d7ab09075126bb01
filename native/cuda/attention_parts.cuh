// What becomes of the sums of an item in attention_decode: where a lane's part of O^T lies, the
// barrier of the warps that share an item, and the sum over the splits of a context.
//
// A part is (maximum of the scores in units of log2, sum of 2^(score - maximum), O^T of these
// weights). Included by attention_decode.cu only.
#pragma once

#include <cuda_bf16.h>

#include <cmath>
#include <cstdint>

#include "cuda/attention_items.cuh"
#include "cuda/device_ops.cuh"
#include "cuda/page_slots.cuh"

namespace lorax::cuda {

// What a part's sums weigh beside those of the largest maximum; 0 for a part without tokens.
__device__ __forceinline__ float rescale(float max_part, float max_all) {
  return max_part == -INFINITY ? 0.0f : exp2_fast(max_part - max_all);
}

// Of a part's [8 heads][kDim] floats in a slot: where 4 dims lie, spread over the banks by head.
template <int kDim>
__device__ __forceinline__ int part_index(int head, int dim) {
  const int piece = dim / 4;
  const int spread = (head >> 1 & 1) | (head >> 2 & 1) << 2;
  const int moved = kDim % 32 == 0 ? piece ^ spread : piece;
  return head * kDim + moved * 4 + dim % 4;
}

// What a lane holds of O^T for its head 2q + h: store(dim, {x of 4 or 2 dims from it on}).
template <int kDim, typename Store>
__device__ __forceinline__ void for_each_piece(const float (&out)[PageTile<kDim>::kDimTiles][4],
                                               int h, int g, const Store& store) {
  using Tile = PageTile<kDim>;
#pragma unroll
  for (int t = 0; t + 1 < Tile::kWide + Tile::kRest; t += 2) {
    const int dim = Tile::dim_of(t, g);
    if (kDim % 16 == 0 || dim < kDim) {
      store(dim, make_float4(out[t][h], out[t][h + 2], out[t + 1][h], out[t + 1][h + 2]));
    }
  }
  if constexpr (Tile::kRest % 2 == 1) {
    constexpr int t = Tile::kDimTiles - 1;
    store(Tile::dim_of(t, g), make_float2(out[t][h], out[t][h + 2]));
  }
}

__device__ __forceinline__ void store_floats(float* to, float4 x) {
  *reinterpret_cast<float4*>(to) = x;
}
__device__ __forceinline__ void store_floats(float* to, float2 x) {
  *reinterpret_cast<float2*>(to) = x;
}
__device__ __forceinline__ void store_bf16(__nv_bfloat16* to, float4 x, float scale) {
  *reinterpret_cast<uint2*>(to) =
      make_uint2(pack_bf16(x.x * scale, x.y * scale), pack_bf16(x.z * scale, x.w * scale));
}
__device__ __forceinline__ void store_bf16(__nv_bfloat16* to, float2 x, float scale) {
  *reinterpret_cast<uint32_t*>(to) = pack_bf16(x.x * scale, x.y * scale);
}

// The `width` warps that share an item. Groups that may be waiting at once have barriers of their
// own: they are numbered like the nodes of a tree whose leaves are the warps.
__device__ __forceinline__ void sync_warps(int warp, int width) {
  if (width == 1) {
    __syncwarp();
  } else {
    asm volatile("barrier.sync %0, %1;" ::"r"((kWarps | warp) >> (__ffs(width) - 1)),
                 "r"(width * 32)
                 : "memory");
  }
}

// The splits of an item, summed in their order by the warps of the last to be done: the heads in
// turns.
template <int kDim>
__device__ __forceinline__ void combine_splits(const DecodeArgs& args, const Item& item, int warp,
                                               int lane) {
  constexpr int kPieces = (kDim + 63) / 64;  // of 2 dims a lane
  const Attention& attention = args.attention;
  const int num_splits = item.num_splits;
#pragma unroll 1
  for (int head = warp & (item.width - 1); head < item.num_heads; head += item.width) {
    const int64_t part_row = int64_t{item.span} * attention.num_heads + item.first_head + head;
    const float2* ml = args.partial_ml + part_row * args.max_splits;
    const float* parts = args.partial_out + part_row * args.max_splits * kDim + 2 * lane;
    float max_all = -INFINITY;
#pragma unroll 1
    for (int s = lane; s < num_splits; s += 32) max_all = fmaxf(max_all, __ldcg(&ml[s]).x);
#pragma unroll
    for (int d = 1; d < 32; d *= 2) {
      max_all = fmaxf(max_all, __shfl_xor_sync(kAllLanes, max_all, d));
    }
    float2 acc[kPieces] = {};
    float sum = 0.0f;
#pragma unroll 8
    for (int s = 0; s < num_splits; ++s) {
      const float2 ml_s = __ldcg(&ml[s]);
      const float weight = rescale(ml_s.x, max_all);
      sum += weight * ml_s.y;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        if (kDim % 64 != 0 && 2 * lane + 64 * i >= kDim) continue;
        const float2 x = __ldcg(reinterpret_cast<const float2*>(parts + s * kDim + 64 * i));
        acc[i].x += weight * x.x;
        acc[i].y += weight * x.y;
      }
    }
    const float scale = __fdividef(1.0f, sum);
    __nv_bfloat16* out = attention.out +
                         (int64_t{item.row} * attention.num_heads + item.first_head + head) * kDim +
                         2 * lane;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      if (kDim % 64 == 0 || 2 * lane + 64 * i < kDim) store_bf16(out + 64 * i, acc[i], scale);
    }
  }
}

}  // namespace lorax::cuda
