// What the roles of a block of the streaming GEMM share: where its shared memory and barriers lie,
// and positions in rings.
//
// Every barrier has one phase per use of what it guards; who uses a ring counts its rounds
// (RingPosition). For what its own loads and stores touched every thread arrives, not one of its
// warp: so racecheck follows. Included by the producers, the shrink and the kernel.
#pragma once

#include "cuda/device_ops.cuh"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/stream_gemm_plan.h"

namespace lorax::cuda {

// With LORAX_STREAM_GEMM_TRACE (bench only) every block notes when it passed these points.
enum class TraceEvent {
  kStart,
  kReleased,
  kFirstBlock,
  kLastLoad,
  kLastBlock,
  kEnd,
  kPieces,
  kFilled
};

__device__ __forceinline__ void trace([[maybe_unused]] const StreamGemmParameters& p,
                                      [[maybe_unused]] TraceEvent event) {
#ifdef LORAX_STREAM_GEMM_TRACE
  if (p.trace == nullptr) return;
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  p.trace[blockIdx.x * 8 + static_cast<int>(event)] = now;
#endif
}

// Shared-memory addresses of the barriers; barrier i of a kind is 8 i bytes on.
struct StreamBarriers {
  uint32_t w_full;      // [w_stages]: W has arrived
  uint32_t w_empty;     // [w_stages]: every consumer warp is done with the stage
  uint32_t x_full;      // [x_stages]
  uint32_t x_empty;     // [x_stages]
  uint32_t lora_full;   // [sets]: B has arrived, and v of every shrinking warp
  uint32_t lora_empty;  // [sets]

  __device__ StreamBarriers(uint32_t base, int w_stages, int x_stages, int sets)
      : w_full(base),
        w_empty(w_full + 8 * w_stages),
        x_full(w_empty + 8 * w_stages),
        x_empty(x_full + 8 * x_stages),
        lora_full(x_empty + 8 * x_stages),
        lora_empty(lora_full + 8 * sets) {}
};

constexpr int kShrinkWarps = 4;

// A position in a ring and how often the ring was gone round, as a parity.
struct RingPosition {
  uint32_t index = 0;
  uint32_t parity = 0;
  __device__ void next(uint32_t size) {
    if (++index == size) {
      index = 0;
      parity ^= 1;
    }
  }
};

// This block's shared memory.
template <int kColumns>
struct StreamBlock {
  const StreamGemmParameters& p;
  const SharedLayout layout;
  const uint32_t shared;
  const StreamBarriers barriers;

  __device__ StreamBlock(const StreamGemmParameters& parameters, uint32_t shared_base)
      : p(parameters),
        layout(kColumns, p.schedule.block_atoms, p.w_stages, p.x_stages, p.schedule.split,
               p.lora_sets, p.gated != 0),
        shared(shared_base),
        barriers(shared + layout.barriers_at, p.w_stages, p.x_stages, p.lora_sets) {}

  __device__ uint32_t w_stage(uint32_t index) const {
    return shared + index * layout.w_stage_bytes;
  }
  __device__ uint32_t x_stage(uint32_t index) const {
    return shared + layout.x_at + index * layout.x_stage_bytes;
  }
  __device__ uint32_t lora_slot(uint32_t set, uint32_t slot) const {
    return shared + layout.lora_at + (set * LoraSet::kMaxChunks + slot) * layout.lora_slot_bytes;
  }
  __device__ uint32_t lora_v(uint32_t slot_address) const {
    return slot_address + layout.lora_slot_bytes - kLoraChunkBlocks * kVBlockBytes;
  }
  __device__ uint32_t lora_meta(uint32_t set, uint32_t slot) const {
    return shared + layout.lora_at + p.lora_sets * LoraSet::kMaxChunks * layout.lora_slot_bytes +
           (set * LoraSet::kMaxChunks + slot) * 16;
  }

  __device__ void init_barriers() const {
#pragma unroll 1
    for (int i = 0; i < p.w_stages; ++i) {
      ptx::barrier_init(barriers.w_full + 8 * i, 1);
      ptx::barrier_init(barriers.w_empty + 8 * i, kTileWarps);
    }
#pragma unroll 1
    for (int i = 0; i < p.x_stages; ++i) {
      ptx::barrier_init(barriers.x_full + 8 * i, 1);
      ptx::barrier_init(barriers.x_empty + 8 * i, kTileWarps);
    }
#pragma unroll 1
    for (int i = 0; i < p.lora_sets; ++i) {
      ptx::barrier_init(barriers.lora_full + 8 * i, 32 * (1 + kShrinkWarps));
      ptx::barrier_init(barriers.lora_empty + 8 * i, 32 * kTileWarps);
    }
    ptx::fence_barrier_init();
  }

  // Of the site's parts. Read early: beside a stream of weights it takes long.
  __device__ int4 set_begin() const {
    return *reinterpret_cast<const int4*>(p.lora.lists.items->set_begin);
  }

  // The groups of 16 rows of a tile whose LoRA items its part of k adds, counted in the tile: those
  // that lie in part q of the site. [begin, end)
  __device__ int2 lora_groups(int q, const BlockCursor& tile) const {
    if (p.gated) {  // half q is of part q
      const int begin = q * kTileWarps / 2;
      const int rows = min(p.lora.columns[q] - tile.row(), kHalfRows);
      return make_int2(begin, begin + (rows + 15) / 16);
    }
    const int owned = kTileWarps / p.schedule.split;
    const int begin = (p.lora.column[q] - tile.row()) / 16;
    const int end = begin + (p.lora.columns[q] + 15) / 16;
    return make_int2(max(begin, tile.part * owned), min(end, (tile.part + 1) * owned));
  }
  // The first of them, counted in part q.
  __device__ int first_group(int q, const BlockCursor& tile, int2 groups) const {
    if (p.gated) return tile.row() / 16;
    return groups.x - (p.lora.column[q] - tile.row()) / 16;
  }
};

}  // namespace lorax::cuda
