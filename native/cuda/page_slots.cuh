// A page's way from global memory to mma operands: K or V of one kv head and page is contiguous,
// one bulk copy into a slot of the warp's in shared memory, and from there 16 bytes a lane into
// registers.
//
// Before sm_90 the lanes copy with cp.async instead, and a wait is for all copies under way.
// Included by attention_decode.cu only.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/attention_items.cuh"

namespace lorax::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

#if __CUDA_ARCH__ >= 900
// One lane: `bytes` into a slot, counted by the slot's barrier.
__device__ __forceinline__ void bulk_copy(void* to, const void* from, int bytes,
                                          uint64_t* barrier) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

__device__ __forceinline__ void wait_for_barrier(uint64_t* barrier, int phase) {
  asm volatile(
      "{\n .reg .pred done;\n again:\n"
      " mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      " @!done bra again;\n}" ::"r"(shared_address(barrier)),
      "r"(phase)
      : "memory");
}
#endif

// A place in a ring of stages.
struct Stage {
  int index = 0;
  int parity = 0;  // of the turn

  __device__ __forceinline__ void pass(int stages) {
    if (++index == stages) {
      index = 0;
      parity ^= 1;
    }
  }
};

// The slots of one warp: a ring of pages, K and V apart. Fills and takes go round in the order K,
// V.
template <int kDim>
struct Slots {
  static constexpr int kBytes = kPage * kDim * 2;  // of K or V of one page
  // Up to 64 KB a multiprocessor under way hide the latency of memory; more takes longer to start.
  static constexpr int kStages = kDim > 64 ? 1 : kDim > 32 ? 2 : 4;

  __nv_bfloat16* base;  // [stages][k|v][16][kDim]
  uint64_t* barriers;   // [stages][k|v]

  __device__ __forceinline__ __nv_bfloat16* slot(int stage, int v) const {
    return base + (stage * 2 + v) * (kPage * kDim);
  }

  // With the first `tokens` of a page; what follows them in the slot is anything.
  __device__ __forceinline__ void fill(int stage, int v, const __nv_bfloat16* from, int tokens,
                                       int lane) const {
#if __CUDA_ARCH__ >= 900
    if (lane == 0) {
      bulk_copy(slot(stage, v), from, tokens * (kDim * 2), &barriers[stage * 2 + v]);
    }
#else
    for (int i = lane; i < tokens * (kDim / 8); i += 32) {
      asm volatile(
          "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(slot(stage, v) + i * 8)),
          "l"(from + i * 8)
          : "memory");
    }
#endif
  }

  // Until the fill of this turn is there.
  __device__ __forceinline__ void wait(Stage stage, int v) const {
#if __CUDA_ARCH__ >= 900
    wait_for_barrier(&barriers[stage.index * 2 + v], stage.parity);
#else
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncwarp();
#endif
  }
};

template <int kBytes>
__device__ __forceinline__ void load_shared(const __nv_bfloat16* p, uint32_t* r) {
  if constexpr (kBytes == 16) {
    const uint4 x = *reinterpret_cast<const uint4*>(p);
    r[0] = x.x, r[1] = x.y, r[2] = x.z, r[3] = x.w;
  } else if constexpr (kBytes == 8) {
    const uint2 x = *reinterpret_cast<const uint2*>(p);
    r[0] = x.x, r[1] = x.y;
  } else {
    r[0] = *reinterpret_cast<const uint32_t*>(p);
  }
}

// What lane (g = lane / 4, q = lane % 4) of a warp holds of one page of one kv head.
template <int kDim>
struct PageTile {
  static constexpr int kChunks = (kDim + 31) / 32;    // of 32 dims: 16 bytes a lane, 2 mma steps
  static constexpr int kDimTiles = (kDim + 15) / 16;  // of 16 dims: the M side of O^T
  static constexpr int kWide = kDimTiles / 4 * 4;     // tiles taken 64 dims at a time
  static constexpr int kRest = kDimTiles - kWide;

  // The even one of the two dims that lane group g holds of a tile: O^T's rows g and g + 8.
  static __device__ __forceinline__ int dim_of(int tile, int g) {
    if (tile < kWide) return tile / 4 * 64 + 8 * g + 2 * (tile % 4);
    if (kRest >= 2 && tile < kWide + 2) return kWide * 16 + 4 * g + 2 * (tile - kWide);
    return (kDimTiles - 1) * 16 + 2 * g;
  }

  // keys[t] = token g + 8 t, dims 32 c + 8 q + 0..7
  static __device__ __forceinline__ void load_keys(const __nv_bfloat16* page, int g, int q,
                                                   uint32_t (&keys)[2][kChunks * 4]) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        const int dim = 32 * c + 8 * q;
        uint32_t* r = &keys[t][4 * c];
        if (32 * c + 32 <= kDim || dim < kDim) {
          load_shared<16>(page + (g + 8 * t) * kDim + dim, r);
        } else {
          r[0] = r[1] = r[2] = r[3] = 0;
        }
      }
    }
  }

  // values[t] = token 2 q + t % 2 + t / 2 * 8, dims dim_of(tile, g) and the next
  static __device__ __forceinline__ void load_values(const __nv_bfloat16* page, int g, int q,
                                                     uint32_t (&values)[4][kDimTiles]) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const __nv_bfloat16* row = page + (2 * q + t % 2 + t / 2 * 8) * kDim;
#pragma unroll
      for (int tile = 0; tile < kWide; tile += 4) {
        load_shared<16>(row + dim_of(tile, g), &values[t][tile]);
      }
      if constexpr (kRest >= 2) {
        const int dim = dim_of(kWide, g);
        if (kDim % 32 == 0 || dim < kDim) {
          load_shared<8>(row + dim, &values[t][kWide]);
        } else {
          values[t][kWide] = values[t][kWide + 1] = 0;
        }
      }
      if constexpr (kRest % 2 == 1) {
        load_shared<4>(row + dim_of(kDimTiles - 1, g), &values[t][kDimTiles - 1]);
      }
    }
  }
};

}  // namespace lorax::cuda
