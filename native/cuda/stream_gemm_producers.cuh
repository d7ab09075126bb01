// The producers of the streaming GEMM: W and x by one elected thread of a warp each, LoRA slices by
// a third warp. Each fills a ring whose stages the consumers of stream_gemm_kernel.cuh release.
//
// Only W, and x where a counter says that it is complete, is read before the kernel ahead of this
// one has finished.
#pragma once

#include "cuda/ready.cuh"
#include "cuda/stream_gemm_block.cuh"

namespace lorax::cuda {

// W depends on nothing, so its loads start at once; x waits for its writer. No more than
// `in_flight` loads of W are under way: enough to keep the memory busy, few enough that the small
// kernels that run meanwhile find short queues and that all blocks get an even share.
template <int kColumns, int kWarpgroups>
__device__ void produce_w(const StreamBlock<kColumns, kWarpgroups>& block) {
  const auto& p = block.p;
  BlockCursor load(p.schedule, blockIdx.x);
  RingPosition ring;
  RingPosition arrived;
  int left = load.num_blocks();
  int room = p.in_flight;
  const int trigger = min(p.trigger, left);
#pragma unroll 1
  for (; load.valid(); load.next()) {
    const uint32_t full = block.barriers.full + 8 * ring.index;
    ptx::barrier_wait(block.barriers.empty + 8 * ring.index, ring.parity ^ 1);
    if (--room < 0) {
      ptx::barrier_wait(block.barriers.full + 8 * arrived.index, arrived.parity);
      arrived.next(p.stages);
    }
    const int atoms = load.num_atoms();
    const uint32_t w = block.stage(ring.index);
    ptx::barrier_expect(full, atoms * block.kTileRows * kAtomRowBytes);
#pragma unroll 1
    for (int a = 0; a < atoms; ++a) {
      ptx::load_box(w + a * block.kTileRows * kAtomRowBytes, &p.w, full, (load.atom + a) * kAtom,
                    load.row(), ptx::kEvictFirst);
    }
    ring.next(p.stages);
    if (left-- == trigger) let_next_start();
  }
  trace(p, TraceEvent::kLastLoad);
  if (p.prefetch_next == 0) return;
  // The memory stays busy while this kernel ends and the next one starts.
  BlockCursor next(p.next, blockIdx.x);
#pragma unroll 1
  for (int i = 0; i < p.prefetch_next && next.valid(); ++i, next.next()) {
    const int atoms = next.num_atoms();
#pragma unroll 1
    for (int a = 0; a < atoms; ++a) {
      ptx::prefetch_box(&p.next_w, (next.atom + a) * kAtom, next.row(), ptx::kEvictNormal);
    }
  }
}

template <int kColumns, int kWarpgroups>
__device__ void produce_x(const StreamBlock<kColumns, kWarpgroups>& block) {
  const auto& p = block.p;
  RingPosition ring;
  // No deadlock: this block started, so all blocks of every kernel ahead have (each is launched
  // when all blocks of the one before it have started), and what writes x needs no room of ours.
  if (p.x_ready != nullptr) {
    wait_until_ready(p.x_ready, p.x_ready_count);
  } else {
    wait_for_previous();
  }
  trace(p, TraceEvent::kReleased);
#pragma unroll 1
  for (BlockCursor load(p.schedule, blockIdx.x); load.valid(); load.next()) {
    const uint32_t full = block.barriers.x_full + 8 * ring.index;
    ptx::barrier_wait(block.barriers.empty + 8 * ring.index, ring.parity ^ 1);
    const int atoms = load.num_atoms();
    const uint32_t x = block.x_stage(ring.index);
    ptx::barrier_expect(full, atoms * kColumns * kAtomRowBytes);
#pragma unroll 1
    for (int a = 0; a < atoms; ++a) {
      ptx::load_box(x + a * kColumns * kAtomRowBytes, &p.x, full, (load.atom + a) * kAtom, 0,
                    ptx::kEvictLast);
    }
    ring.next(p.stages);
  }
}

// The items of every tile's parts in their order, cut into chunks of kLoraChunkBlocks blocks of v:
// one slot each, with (first block, blocks, groups of outs, whether it is the tile's last).
template <int kColumns, int kWarpgroups>
__device__ void produce_lora(const StreamBlock<kColumns, kWarpgroups>& block) {
  const auto& lora = block.p.lora;
  const int lane = threadIdx.x % 32;
  RingPosition ring;
  wait_for_previous();
  for (BlockCursor tile(block.p.schedule, blockIdx.x); tile.valid(); tile.next_tile()) {
    int left = 0;  // items of this tile not sent yet
#pragma unroll
    for (int q = 0; q < LoraSiteItems::kMaxParts; ++q) {
      if (q >= lora.num_parts) break;
      const int2 groups = block.lora_groups(q, tile.row());
      if (groups.x < groups.y) left += lora.site->part_begin[q + 1] - lora.site->part_begin[q];
    }
    if (left == 0) continue;
    for (int q = 0; q < lora.num_parts; ++q) {
      const int2 groups = block.lora_groups(q, tile.row());
      if (groups.x >= groups.y) continue;
      const int end = lora.site->part_begin[q + 1];
      const uint32_t b_bytes = (groups.y - groups.x) * kBGroupBytes;
      // Of the part's first group of outs to ours.
      const int64_t b_offset =
          static_cast<int64_t>(groups.x - (lora.column[q] - tile.row()) / 16) * kBGroupBytes;
      for (int base = lora.site->part_begin[q]; base < end; base += 32) {
        LoraItem mine;
        if (base + lane < end) mine = lora.items[base + lane];
        const int count = min(32, end - base);
        for (int i = 0; i < count; ++i, --left) {
          const auto address = reinterpret_cast<uint64_t>(mine.b);
          const auto b = reinterpret_cast<const uint8_t*>(__shfl_sync(0xffffffff, address, i));
          const int first_block = __shfl_sync(0xffffffff, mine.first_block, i);
          const int num_blocks = __shfl_sync(0xffffffff, mine.num_blocks, i);
          const int v_begin = __shfl_sync(0xffffffff, mine.v_begin, i);
          int chunk = 0;
          do {
            const int blocks = min(num_blocks - chunk, kLoraChunkBlocks);
            const bool last = left == 1 && chunk + kLoraChunkBlocks >= num_blocks;
            if (lane == 0) {
              ptx::barrier_wait(block.barriers.lora_empty + 8 * ring.index, ring.parity ^ 1);
              const uint32_t full = block.barriers.lora_full + 8 * ring.index;
              const uint32_t slot = block.lora_slot(ring.index);
              ptx::store_shared_int4(
                  block.lora_meta(ring.index),
                  make_int4(first_block + chunk, blocks, groups.x | groups.y << 16, last));
              ptx::barrier_expect(full, b_bytes + blocks * kFragmentBytes);
              ptx::load_bytes(slot, b + b_offset, b_bytes, full);
              if (blocks > 0) {
                ptx::load_bytes(slot + block.kWarps * kBGroupBytes,
                                static_cast<const uint8_t*>(lora.v) +
                                    static_cast<int64_t>(v_begin + chunk) * kFragmentBytes,
                                blocks * kFragmentBytes, full);
              }
            }
            ring.next(block.p.lora_slots);
            chunk += kLoraChunkBlocks;
          } while (chunk < num_blocks);
        }
      }
    }
  }
}

}  // namespace lorax::cuda
