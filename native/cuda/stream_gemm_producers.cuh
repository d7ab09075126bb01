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

// Walks the sets of chunks of a block's tiles, in the order in which they are handed over.
template <int kColumns>
struct LoraSetCursor {
  const StreamBlock<kColumns>& block;
  const int4 set_begin;  // of the site's parts
  BlockCursor tile;
  int part = -1;
  int set = 0;
  int set_end = 0;
  int2 groups = {};  // of the tile, that the part adds to

  __device__ LoraSetCursor(const StreamBlock<kColumns>& b, const int4& begin)
      : block(b), set_begin(begin), tile(b.p.schedule, blockIdx.x) {
    settle();
  }

  __device__ bool valid() const { return tile.valid(); }
  __device__ void next() {
    ++set;
    settle();
  }

 private:
  __device__ void settle() {
    while (set >= set_end && tile.valid()) {
      if (++part == block.p.lora.num_parts) {
        part = -1;
        set_end = set = 0;
        tile.next_tile();
        continue;
      }
      groups = block.lora_groups(part, tile);
      set = part == 0 ? set_begin.x : part == 1 ? set_begin.y : set_begin.z;
      set_end = part == 0 ? set_begin.y : part == 1 ? set_begin.z : set_begin.w;
      if (groups.x >= groups.y) set = set_end;
    }
  }
};

// B depends on nothing: the ring is filled with it while x is still being computed. By a warp.
template <int kColumns>
__device__ void produce_b(const StreamBlock<kColumns>& block) {
  const auto& p = block.p;
  const int lane = threadIdx.x % 32;
  RingPosition ring;
  LoraSetCursor<kColumns> cursor(block, block.set_begin());
  LoraSet set, after;
  if (cursor.valid()) set = p.lora.lists.sets[cursor.set];
  LoraChunk chunk;
  if (lane < set.num_chunks) chunk = p.lora.lists.chunks[set.first_chunk + lane];
  while (cursor.valid()) {
    const uint32_t full = block.barriers.lora_full + 8 * ring.index;
    const int2 groups = cursor.groups;
    const int num_tiles = groups.y - groups.x;  // of B, a chunk
    const int first = block.first_group(cursor.part, cursor.tile, groups);
    cursor.next();
    after = {};
    if (cursor.valid()) after = p.lora.lists.sets[cursor.set];
    ptx::barrier_wait(block.barriers.lora_empty + 8 * ring.index, ring.parity ^ 1);
    const bool has_chunk = lane < set.num_chunks;
    const uint32_t halves = __ballot_sync(~0u, has_chunk && chunk.b.is_half());
    if (has_chunk) {
      ptx::store_shared_int4(block.lora_meta(ring.index, lane),
                             make_int4(chunk.first_row / LoraChunk::kRows, set.num_chunks,
                                       groups.x | groups.y << 16, static_cast<int>(halves)));
    }
    __syncwarp();
    if (lane == 0) {
      const int tile_halves = 2 * set.num_chunks - __popc(halves);
      ptx::barrier_expect_more(full, num_tiles * tile_halves * (kBGroupBytes / 2));
    }
    __syncwarp();
    ptx::barrier_arrive(full);
    if (has_chunk) {
      ptx::load_bytes(block.lora_slot(ring.index, lane), chunk.b.b_tile(first),
                      num_tiles * chunk.b.b_tile_bytes(), full);
    }
    ring.next(p.lora_sets);
    set = after;
    if (lane < set.num_chunks) chunk = p.lora.lists.chunks[set.first_chunk + lane];
  }
}

}  // namespace lorax::cuda
