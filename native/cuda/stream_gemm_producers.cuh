// The producers of the streaming GEMM: W and x by one elected thread of a warp each, adapters' B by
// a third warp. Each fills a ring whose stages the consumers of stream_gemm_kernel.cuh release.
//
// Only what no kernel of the step writes (W, adapters' slices) and what was complete before the
// kernel ahead began (the lists of adapters' work) is read before that kernel has finished.
#pragma once

#include "cuda/stream_gemm_block.cuh"

namespace lorax::cuda {

// W depends on nothing, so its loads start at once. No more than `in_flight` are under way: enough
// to keep the memory busy, few enough that the small kernels that run meanwhile find short queues
// and that all blocks get an even share.
template <int kColumns>
__device__ void produce_w(const StreamBlock<kColumns>& block) {
  const auto& p = block.p;
  RingPosition ring;
  RingPosition arrived;
  int room = p.in_flight;
#pragma unroll 1
  for (BlockCursor load(p.schedule, blockIdx.x); load.valid(); load.next()) {
    const uint32_t full = block.barriers.w_full + 8 * ring.index;
    ptx::barrier_wait(block.barriers.w_empty + 8 * ring.index, ring.parity ^ 1);
    if (--room < 0) {
      ptx::barrier_wait(block.barriers.w_full + 8 * arrived.index, arrived.parity);
      arrived.next(p.w_stages);
    }
    const int atoms = load.num_atoms();
    const uint32_t w = block.w_stage(ring.index);
    ptx::barrier_expect(full, atoms * kTileRows * kAtomRowBytes);
#pragma unroll 1
    for (int a = 0; a < atoms; ++a) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        ptx::load_box(w + (a * kTileRows + half * kHalfRows) * kAtomRowBytes, &p.w, full,
                      (load.atom + a) * kAtom, load.row(half), ptx::kEvictFirst);
      }
    }
    ring.next(p.w_stages);
  }
  trace(p, TraceEvent::kLastLoad);
}

template <int kColumns>
__device__ void produce_x(const StreamBlock<kColumns>& block) {
  const auto& p = block.p;
  RingPosition ring;
  wait_for_previous();
  trace(p, TraceEvent::kReleased);
#pragma unroll 1
  for (BlockCursor load(p.schedule, blockIdx.x); load.valid(); load.next()) {
    const uint32_t full = block.barriers.x_full + 8 * ring.index;
    ptx::barrier_wait(block.barriers.x_empty + 8 * ring.index, ring.parity ^ 1);
    const int atoms = load.num_atoms();
    const uint32_t x = block.x_stage(ring.index);
    ptx::barrier_expect(full, atoms * kColumns * kAtomRowBytes);
#pragma unroll 1
    for (int a = 0; a < atoms; ++a) {
      ptx::load_box(x + a * kColumns * kAtomRowBytes, &p.x, full, (load.atom + a) * kAtom, 0,
                    ptx::kEvictLast);
    }
    ring.next(p.x_stages);
  }
}

// What one slot holds: a B slice of an item, and its v for some blocks of 8 rows of x.
struct LoraChunk {
  LoraItem item;
  int32_t first_block = 0;
  int32_t num_blocks = 0;
  int2 groups;          // of the tile
  int32_t b_group = 0;  // of B: the first of them
  int32_t left = 0;     // chunks of the tile, this one counted
  int32_t slot = 0;     // in its set
  __device__ bool closes_set() const { return left == 1 || slot + 1 == kLoraSetSlots; }
};

__device__ __forceinline__ LoraItem shuffled(const LoraItem& mine, int lane) {
  LoraItem item;
  item.b = reinterpret_cast<const uint8_t*>(
      __shfl_sync(0xffffffff, reinterpret_cast<uint64_t>(mine.b), lane));
  item.scale = __shfl_sync(0xffffffff, mine.scale, lane);
  item.rows_begin = __shfl_sync(0xffffffff, mine.rows_begin, lane);
  item.rows_end = __shfl_sync(0xffffffff, mine.rows_end, lane);
  item.first_block = __shfl_sync(0xffffffff, mine.first_block, lane);
  item.num_blocks = __shfl_sync(0xffffffff, mine.num_blocks, lane);
  item.first_unit = __shfl_sync(0xffffffff, mine.first_unit, lane);
  return item;
}

// Calls take(chunk) for the items of every tile's parts in their order, cut into chunks of
// kLoraChunkBlocks blocks. By a warp.
template <int kColumns, typename Take>
__device__ __forceinline__ void for_lora_chunks(const StreamBlock<kColumns>& block, Take take) {
  const auto& lora = block.p.lora;
  const int lane = threadIdx.x % 32;
  for (BlockCursor tile(block.p.schedule, blockIdx.x); tile.valid(); tile.next_tile()) {
    int left = 0;
#pragma unroll 1
    for (int q = 0; q < lora.num_parts; ++q) {
      const int2 groups = block.lora_groups(q, tile);
      if (groups.x >= groups.y) continue;
      for (int i = lora.site->part_begin[q] + lane; i < lora.site->part_begin[q + 1]; i += 32) {
        left += (lora.items[i].num_blocks + kLoraChunkBlocks - 1) / kLoraChunkBlocks;
      }
    }
    left = __reduce_add_sync(0xffffffff, left);
    if (left == 0) continue;
    int slot = 0;
#pragma unroll 1
    for (int q = 0; q < lora.num_parts; ++q) {
      LoraChunk chunk;
      chunk.groups = block.lora_groups(q, tile);
      if (chunk.groups.x >= chunk.groups.y) continue;
      const int end = lora.site->part_begin[q + 1];
      chunk.b_group = block.first_group(q, tile, chunk.groups);
#pragma unroll 1
      for (int base = lora.site->part_begin[q]; base < end; base += 32) {
        LoraItem mine;
        if (base + lane < end) mine = lora.items[base + lane];
        const int count = min(32, end - base);
#pragma unroll 1
        for (int i = 0; i < count; ++i) {
          chunk.item = shuffled(mine, i);
          int done = 0;
          do {
            chunk.first_block = chunk.item.first_block + done;
            chunk.num_blocks = min(chunk.item.num_blocks - done, kLoraChunkBlocks);
            done += kLoraChunkBlocks;
            chunk.left = left--;
            chunk.slot = slot++ % kLoraSetSlots;
            take(chunk);
          } while (done < chunk.item.num_blocks);
        }
      }
    }
  }
}

// B depends on nothing: the ring is filled with it while x is still being computed.
template <int kColumns>
__device__ void produce_b(const StreamBlock<kColumns>& block) {
  const auto& p = block.p;
  const bool leader = threadIdx.x % 32 == 0;
  RingPosition ring;
  for_lora_chunks(block, [&](const LoraChunk& chunk) {
    if (leader) {
      const uint32_t full = block.barriers.lora_full + 8 * ring.index;
      const uint32_t bytes = (chunk.groups.y - chunk.groups.x) * kBGroupBytes;
      if (chunk.slot == 0) {
        ptx::barrier_wait(block.barriers.lora_empty + 8 * ring.index, ring.parity ^ 1);
      }
      ptx::store_shared_int4(block.lora_meta(ring.index, chunk.slot),
                             make_int4(chunk.first_block, chunk.num_blocks,
                                       chunk.groups.x | chunk.groups.y << 16, chunk.left));
      ptx::barrier_expect_more(full, bytes);
      ptx::load_bytes(block.lora_slot(ring.index, chunk.slot),
                      chunk.item.b + int64_t{chunk.b_group} * kBGroupBytes, bytes, full);
      if (chunk.closes_set()) ptx::barrier_arrive(full);
    }
    if (chunk.closes_set()) ring.next(p.lora_sets);
  });
}

}  // namespace lorax::cuda
