// What the roles of a block of the streaming GEMM share: where its shared memory and barriers lie,
// which part of the work is its own, and positions in rings.
//
// Every barrier has one phase per use of what it guards; who uses a ring counts its rounds
// (RingPosition). Included by the producers and the kernel.
#pragma once

#include "cuda/device_ops.cuh"
#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "cuda/stream_gemm_plan.h"

namespace lorax::cuda {

// With LORAX_STREAM_GEMM_TRACE (bench only) every block notes when it passed these points.
enum class TraceEvent { kStart, kReleased, kFirstBlock, kLastLoad, kLastBlock, kEnd };

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
  uint32_t full;          // [stages]: W has arrived
  uint32_t x_full;        // [stages]: x has arrived
  uint32_t empty;         // [stages]: every warp that reads the stage is done with it
  uint32_t reduce_full;   // [warps / split]: the other parts' accumulators have arrived
  uint32_t reduce_empty;  // [warps]: the owner has read what this warp sent
  uint32_t lora_full;     // [slots]
  uint32_t lora_empty;    // [slots]

  __device__ StreamBarriers(uint32_t base, int stages, int warps, int slots)
      : full(base),
        x_full(full + 8 * stages),
        empty(x_full + 8 * stages),
        reduce_full(empty + 8 * stages),
        reduce_empty(reduce_full + 8 * warps),
        lora_full(reduce_empty + 8 * warps),
        lora_empty(lora_full + 8 * slots) {}
};

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

// Which block this is and where its shared memory lies.
template <int kColumns, int kWarpgroups>
struct StreamBlock {
  static constexpr int kWarps = 4 * kWarpgroups;
  static constexpr int kTileRows = 64 * kWarpgroups;

  const StreamGemmParameters& p;
  const SharedLayout layout;
  const uint32_t shared;
  const StreamBarriers barriers;
  const int part;         // of k: the block's rank in its cluster
  const int warps_owned;  // warps whose sums this block finishes:
  const int first_owned;  // [first_owned, first_owned + warps_owned)

  __device__ StreamBlock(const StreamGemmParameters& parameters, uint32_t shared_base)
      : p(parameters),
        layout(kColumns, kTileRows, p.schedule.block_atoms, p.stages, p.schedule.split,
               p.lora_slots),
        shared(shared_base),
        barriers(shared + layout.barriers_at, p.stages, kWarps, p.lora_slots),
        part(blockIdx.x % p.schedule.split),
        warps_owned(kWarps / p.schedule.split),
        first_owned(part * warps_owned) {}

  __device__ uint32_t stage(uint32_t index) const { return shared + index * layout.stage_bytes; }
  __device__ uint32_t x_stage(uint32_t index) const { return stage(index) + layout.x_at; }
  __device__ uint32_t lora_slot(uint32_t index) const {
    return shared + layout.lora_at + index * layout.lora_slot_bytes;
  }
  __device__ uint32_t lora_meta(uint32_t index) const {
    return shared + layout.lora_at + p.lora_slots * layout.lora_slot_bytes + index * 16;
  }

  __device__ void init_barriers() const {
#pragma unroll 1
    for (int i = 0; i < p.stages; ++i) {
      ptx::barrier_init(barriers.full + 8 * i, 1);
      ptx::barrier_init(barriers.x_full + 8 * i, 1);
      ptx::barrier_init(barriers.empty + 8 * i, kWarps);
    }
#pragma unroll 1
    for (int i = 0; i < kWarps; ++i) {
      ptx::barrier_init(barriers.reduce_full + 8 * i, 1);
      ptx::barrier_init(barriers.reduce_empty + 8 * i, 1);
    }
#pragma unroll 1
    for (int i = 0; i < p.lora_slots; ++i) {
      ptx::barrier_init(barriers.lora_full + 8 * i, 1);
      ptx::barrier_init(barriers.lora_empty + 8 * i, warps_owned);
    }
    ptx::fence_barrier_init();
  }

  // The 16-row groups of the tile at `tile_row` that lie in part q of the site and are ours:
  // [begin, end), counted in the tile.
  __device__ int2 lora_groups(int q, int tile_row) const {
    const int begin = (p.lora.column[q] - tile_row) / 16;
    const int end = begin + p.lora.columns[q] / 16;
    return make_int2(max(begin, first_owned), min(end, first_owned + warps_owned));
  }
};

}  // namespace lorax::cuda
