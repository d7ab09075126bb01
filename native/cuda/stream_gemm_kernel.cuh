// The streaming GEMM's kernel: one warp fills a ring in shared memory with W (and x), one or two
// warpgroups multiply, one warp fills a second ring with LoRA slices.
//
// W is the M side of wgmma, x the N side. The ring is filled with W before the kernel ahead has
// finished, and with x after. With `split` > 1 a cluster's blocks have parts of k: warp w of every
// block sends its accumulators to the block that owns w, which adds them by rank of the part, then
// the LoRA items in their order, then the bias. Called by stream_gemm.cu; needs sm_90a.
#pragma once

#include "cuda/device_ops.cuh"
#include "cuda/ptx.cuh"
#include "cuda/stream_gemm_plan.h"
#include "cuda/stream_gemm_wgmma.cuh"

namespace lorax::cuda {

// Shared-memory addresses of the barriers; barrier i of a kind is 8 i bytes on.
struct StreamBarriers {
  uint32_t full;          // [stages]: W and x have arrived
  uint32_t empty;         // [stages]: every warp that reads the stage is done with it
  uint32_t reduce_full;   // [warps / split]: the other parts' accumulators have arrived
  uint32_t reduce_empty;  // [warps]: the owner has read what this warp sent
  uint32_t lora_full;     // [slots]
  uint32_t lora_empty;    // [slots]

  __device__ StreamBarriers(uint32_t base, int stages, int warps, int slots)
      : full(base),
        empty(full + 8 * stages),
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
  const int rank;           // in the cluster
  const int part;           // of k
  const int warps_owned;    // warps whose sums this block finishes:
  const int first_owned;    // [first_owned, first_owned + warps_owned)

  __device__ StreamBlock(const StreamGemmParameters& parameters, uint32_t shared_base)
      : p(parameters),
        layout(kColumns, kTileRows, p.schedule.block_atoms, p.stages, p.schedule.split,
               p.lora_slots),
        shared(shared_base),
        barriers(shared + layout.barriers_at, p.stages, kWarps, p.lora_slots),
        rank(blockIdx.x % (p.schedule.split * p.schedule.tiles)),
        part(rank % p.schedule.split),
        warps_owned(kWarps / p.schedule.split),
        first_owned(part * warps_owned) {}

  __device__ uint32_t stage(uint32_t index) const { return shared + index * layout.stage_bytes; }
  __device__ uint32_t lora_slot(uint32_t index) const {
    return shared + layout.lora_at + index * layout.lora_slot_bytes;
  }
  __device__ uint32_t lora_meta(uint32_t index) const {
    return shared + layout.lora_at + p.lora_slots * layout.lora_slot_bytes + index * 16;
  }

  __device__ void init_barriers() const {
    for (int i = 0; i < p.stages; ++i) {
      ptx::barrier_init(barriers.full + 8 * i, 1);
      ptx::barrier_init(barriers.empty + 8 * i, kWarps * p.schedule.tiles);
    }
    for (int i = 0; i < kWarps; ++i) {
      ptx::barrier_init(barriers.reduce_full + 8 * i, 32 * max(p.schedule.split - 1, 1));
      ptx::barrier_init(barriers.reduce_empty + 8 * i, 1);
    }
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

// ---- the producer of W and x: one thread ----

template <int kColumns, int kWarpgroups>
struct StreamProducer {
  using Block = StreamBlock<kColumns, kWarpgroups>;
  const Block& block;
  BlockCursor load;   // the next block into the ring
  BlockCursor ahead;  // the next block into L2
  RingPosition ring;
  int left;           // blocks not loaded yet
  int trigger;        // at this many left the next kernel may start
  bool in_next = false;

  __device__ explicit StreamProducer(const Block& b)
      : block(b),
        load(b.p.schedule, blockIdx.x),
        left(load.num_tiles() * load.blocks_per_tile()),
        trigger(min(b.p.trigger, left)) {}

  __device__ void load_w() {
    const auto& p = block.p;
    const uint32_t full = block.barriers.full + 8 * ring.index;
    const int atoms = load.num_atoms();
    ptx::barrier_expect(full, atoms * (Block::kTileRows + kColumns) * kAtomRowBytes);
    const uint32_t w = block.stage(ring.index);
    for (int a = 0; a < atoms; ++a) {
      ptx::load_box(w + a * Block::kTileRows * kAtomRowBytes, &p.w, full, (load.atom + a) * kAtom,
                    load.row(), ptx::kEvictFirst);
    }
  }

  __device__ void load_x(const BlockCursor& cursor, uint32_t index) const {
    const auto& p = block.p;
    const uint32_t full = block.barriers.full + 8 * index;
    const int atoms = cursor.num_atoms();
    const uint32_t x = block.stage(index) + block.layout.x_at;
    if (p.schedule.tiles == 1) {
      for (int a = 0; a < atoms; ++a) {
        ptx::load_box(x + a * kColumns * kAtomRowBytes, &p.x, full, (cursor.atom + a) * kAtom, 0,
                      ptx::kEvictLast);
      }
      return;
    }
    // Each block of the cluster that has this part of k loads its share of the rows for all.
    const int share = kColumns / p.schedule.tiles;
    const int first = block.rank / p.schedule.split * share;
    uint32_t blocks = 0;
    for (int t = 0; t < p.schedule.tiles; ++t) blocks |= 1u << (t * p.schedule.split + block.part);
    for (int a = 0; a < atoms; ++a) {
      ptx::load_box_multicast(x + (a * kColumns + first) * kAtomRowBytes, &p.x, full,
                              (cursor.atom + a) * kAtom, first, static_cast<uint16_t>(blocks),
                              ptx::kEvictLast);
    }
  }

  __device__ void prefetch_w() {
    const auto& p = block.p;
    if (!ahead.valid()) {
      if (in_next || p.next.clusters == 0) return;
      in_next = true;
      ahead = BlockCursor(p.next, blockIdx.x);
      if (!ahead.valid()) return;
    }
    const int atoms = ahead.num_atoms();
    for (int a = 0; a < atoms; ++a) {
      ptx::prefetch_box(in_next ? &p.next_w : &p.w, (ahead.atom + a) * kAtom, ahead.row(),
                        ptx::kEvictNormal);
    }
    ahead.next();
  }

  // Everything that does not depend on the kernel ahead: as much of W as the ring holds.
  __device__ void fill() {
    for (int i = 0; i < block.p.stages && load.valid(); ++i) {
      load_w();
      load.next();
      ring.next(block.p.stages);
      if (left-- == trigger) launch_dependents();
    }
    ahead = load;
    for (int i = 0; i < block.p.prefetch; ++i) prefetch_w();
  }

  __device__ void run() {
    const auto& p = block.p;
    wait_for_previous();
    BlockCursor filled(p.schedule, blockIdx.x);
    for (int i = 0; i < p.stages && filled.valid(); ++i) {
      load_x(filled, i);
      filled.next();
    }
    // Where the tile has fewer blocks than the ring, the ring was not gone round.
    uint32_t parity = 0;
    for (; load.valid(); load.next()) {
      ptx::barrier_wait_cluster(block.barriers.empty + 8 * ring.index, parity);
      load_w();
      load_x(load, ring.index);
      if (p.prefetch > 0) prefetch_w();
      ring.next(p.stages);
      if (ring.index == 0) parity ^= 1;
      if (left-- == trigger) launch_dependents();
    }
  }
};

// ---- the producer of LoRA slices: one warp ----

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

// ---- the consumers: kWarpgroups warpgroups ----

template <int kColumns, int kWarpgroups, bool kLora>
struct StreamConsumer {
  using Block = StreamBlock<kColumns, kWarpgroups>;
  static constexpr int kBlocks = kColumns / 8;  // of 8 rows of x

  const Block& block;
  const int warp;
  const int lane;
  float d[kColumns / 2];  // [kBlocks][4]: this warp's 16 rows of W times kColumns rows of x
  RingPosition ring;
  RingPosition lora_ring;
  uint32_t tile_parity = 0;
  int items_begin[LoraSiteItems::kMaxParts + 1];

  __device__ explicit StreamConsumer(const Block& b)
      : block(b), warp(threadIdx.x / 32), lane(threadIdx.x % 32) {}

  __device__ void release(uint32_t index) const {
    if (lane != 0) return;
    const uint32_t empty = block.barriers.empty + 8 * index;
    const auto& schedule = block.p.schedule;
    if (schedule.tiles == 1) {
      ptx::barrier_arrive(empty);
      return;
    }
    // The blocks that write x into this one's ring wait for it, too.
    for (int t = 0; t < schedule.tiles; ++t) {
      ptx::barrier_arrive_remote(ptx::map_to_rank(empty, t * schedule.split + block.part));
    }
  }

  // d = W[16 rows of this warp, our part of k] x^T
  __device__ void multiply(const BlockCursor& tile) {
    const uint32_t w_offset = warp / 4 * 64 * kAtomRowBytes;
    uint32_t accumulate = 0;
    uint32_t before = 0;
    for (BlockCursor cursor = tile; cursor.group == tile.group; cursor.next()) {
      ptx::barrier_wait(block.barriers.full + 8 * ring.index, ring.parity);
      const uint32_t stage = block.stage(ring.index);
      uint64_t w = wgmma_descriptor(stage + w_offset);
      uint64_t x = wgmma_descriptor(stage + block.layout.x_at);
      wgmma_hold(d);
      wgmma_fence();
      const int atoms = cursor.num_atoms();
      for (int a = 0; a < atoms; ++a) {
#pragma unroll
        for (int step = 0; step < kAtom / 16; ++step) {
          Wgmma<kColumns>::multiply(d, w + 2 * step, x + 2 * step, accumulate);
          accumulate = 1;
        }
        w += Block::kTileRows * kAtomRowBytes / 16;
        x += kColumns * kAtomRowBytes / 16;
      }
      wgmma_commit();
      wgmma_hold(d);
      if (cursor.atom != tile.first_atom) {
        wgmma_wait<1>();
        release(before);
      }
      before = ring.index;
      ring.next(block.p.stages);
    }
    wgmma_wait<0>();
    wgmma_hold(d);
    release(before);
  }

  // d = the sum over the parts of k, in their order. False where another block finishes this warp.
  __device__ bool reduce() {
    const int split = block.p.schedule.split;
    const int owner = warp / block.warps_owned;
    const int local = warp % block.warps_owned;
    const int cluster_base = block.rank - block.part;
    const uint32_t buffer = block.shared + block.layout.reduce_at;
    // What part s sends for an owned warp lies at sender(s, owner).
    auto sender = [&](int s, int to) {
      return buffer + ((s - (s > to)) * block.warps_owned + local) * kBlocks * 512 + lane * 16;
    };
    if (owner != block.part) {
      // Once the owner has read what was sent for the tile before.
      ptx::barrier_wait_cluster(block.barriers.reduce_empty + 8 * warp, tile_parity ^ 1);
      const uint32_t to = ptx::map_to_rank(sender(block.part, owner), cluster_base + owner);
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) {
        ptx::store_remote(to + j * 512, d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3]);
      }
      ptx::barrier_arrive_remote(
          ptx::map_to_rank(block.barriers.reduce_full + 8 * local, cluster_base + owner));
      return false;
    }
    ptx::barrier_wait_cluster(block.barriers.reduce_full + 8 * local, tile_parity);
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      float4 sum = make_float4(0, 0, 0, 0);
      for (int s = 0; s < split; ++s) {
        const float4 term = s == owner
                                ? make_float4(d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3])
                                : ptx::load_shared_float4(sender(s, owner) + j * 512);
        sum.x += term.x;
        sum.y += term.y;
        sum.z += term.z;
        sum.w += term.w;
      }
      d[4 * j] = sum.x;
      d[4 * j + 1] = sum.y;
      d[4 * j + 2] = sum.z;
      d[4 * j + 3] = sum.w;
    }
    __syncwarp();
    if (lane < split && lane != block.part) {
      ptx::barrier_arrive_remote(
          ptx::map_to_rank(block.barriers.reduce_empty + 8 * warp, cluster_base + lane));
    }
    return true;
  }

  // d += B v for every item of the site whose part covers this warp's rows.
  __device__ void expand_lora(int tile_row) {
    bool any = false;
#pragma unroll
    for (int q = 0; q < LoraSiteItems::kMaxParts; ++q) {
      if (q >= block.p.lora.num_parts) break;
      const int2 groups = block.lora_groups(q, tile_row);
      any |= groups.x < groups.y && items_begin[q] < items_begin[q + 1];
    }
    if (!any) return;
    bool last = false;
    while (!last) {
      ptx::barrier_wait(block.barriers.lora_full + 8 * lora_ring.index, lora_ring.parity);
      const int4 meta = ptx::load_shared_int4(block.lora_meta(lora_ring.index));
      const int group = warp - (meta.z & 0xffff);
      last = meta.w != 0;
      if (group >= 0 && warp < meta.z >> 16) {
        const uint32_t slot = block.lora_slot(lora_ring.index);
        const int4 b = ptx::load_shared_int4(slot + group * kBGroupBytes + lane * 16);
        const uint32_t v = slot + Block::kWarps * kBGroupBytes + lane * 8 - meta.x * kFragmentBytes;
        const uint32_t hit = ((1u << meta.y) - 1) << meta.x;
#pragma unroll
        for (int j = 0; j < kBlocks; ++j) {
          if (hit >> j & 1) {
            const int2 fragment = ptx::load_shared_int2(v + j * kFragmentBytes);
            float c[4] = {d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3]};
            mma_16x8x16(c, b.x, b.y, b.z, b.w, fragment.x, fragment.y);
            d[4 * j] = c[0];
            d[4 * j + 1] = c[1];
            d[4 * j + 2] = c[2];
            d[4 * j + 3] = c[3];
          }
        }
      }
      __syncwarp();
      if (lane == 0) ptx::barrier_arrive(block.barriers.lora_empty + 8 * lora_ring.index);
      lora_ring.next(block.p.lora_slots);
    }
  }

  // y[row of x, row of W] = d + bias
  __device__ void store(int row) const {
    const auto& p = block.p;
    const int g = lane / 4;
    const int q = lane % 4;
    float bias_low = 0.0f;
    float bias_high = 0.0f;
    if (p.bias != nullptr) {
      if (row + g < p.n) bias_low = p.bias[row + g];
      if (row + g + 8 < p.n) bias_high = p.bias[row + g + 8];
    }
    if (p.float32_out) {
      float* y = static_cast<float*>(p.y) + row + g;
      const bool low = row + g < p.n;
      const bool high = row + g + 8 < p.n;
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int x_row = 8 * j + 2 * q + c;
          if (x_row >= p.rows) continue;
          float* to = y + static_cast<int64_t>(x_row) * p.n;
          if (low) to[0] = d[4 * j + c] + bias_low;
          if (high) to[8] = d[4 * j + 2 + c] + bias_high;
        }
      }
      return;
    }
    // Transposed in the warp, so that a thread has neighbours in y: rows of W 2 q and 2 q + 1 at
    // row 8 j + g of x.
    auto* y = static_cast<__nv_bfloat16*>(p.y) + row + 2 * q;
    const bool low = row + 2 * q < p.n;
    const bool high = row + 8 + 2 * q < p.n;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if (8 * j >= p.rows) break;
      const uint32_t lower = ptx::transpose_8x8(
          pack_bf16(d[4 * j] + bias_low, d[4 * j + 1] + bias_low));
      const uint32_t upper = ptx::transpose_8x8(
          pack_bf16(d[4 * j + 2] + bias_high, d[4 * j + 3] + bias_high));
      if (8 * j + g >= p.rows) continue;
      __nv_bfloat16* to = y + static_cast<int64_t>(8 * j + g) * p.n;
      if (low) *reinterpret_cast<uint32_t*>(to) = lower;
      if (high) *reinterpret_cast<uint32_t*>(to + 8) = upper;
    }
  }

  __device__ void run() {
    wait_for_previous();
    if constexpr (kLora) {
#pragma unroll
      for (int q = 0; q <= LoraSiteItems::kMaxParts; ++q) {
        items_begin[q] = q <= block.p.lora.num_parts ? block.p.lora.site->part_begin[q] : 0;
      }
    }
    for (BlockCursor tile(block.p.schedule, blockIdx.x); tile.valid(); tile.next_tile()) {
      multiply(tile);
      if (block.p.schedule.split == 1 || reduce()) {
        if constexpr (kLora) expand_lora(tile.row());
        store(tile.row() + warp * 16);
      }
      tile_parity ^= 1;
    }
  }
};

template <int kColumns, int kWarpgroups, bool kLora>
__global__ void __launch_bounds__(kWarpgroups * 128 + (kLora ? 64 : 32), kColumns <= 64 ? 2 : 1)
    stream_gemm_kernel(const __grid_constant__ StreamGemmParameters p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t dynamic_shared[];
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023) & ~1023u;
  const StreamBlock<kColumns, kWarpgroups> block(p, shared);
  const int warp = threadIdx.x / 32;
  const bool clustered = p.schedule.split * p.schedule.tiles > 1;
  constexpr int kProducer = block.kWarps;

  StreamProducer<kColumns, kWarpgroups> producer(block);
  if (threadIdx.x == kProducer * 32) {
    block.init_barriers();
    producer.fill();
  }
  __syncwarp();
  __syncthreads();
  if (clustered) {
    // From here on others may write into our shared memory, and we into theirs.
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
  if (warp == kProducer) {
    if (threadIdx.x % 32 == 0) producer.run();
    __syncwarp();
  } else if (warp > kProducer) {
    produce_lora(block);
  } else {
    StreamConsumer<kColumns, kWarpgroups, kLora>(block).run();
  }
  if (clustered) {
    // None leaves while another may still write or arrive here.
    ptx::cluster_arrive();
    ptx::cluster_wait();
  }
#endif
}

}  // namespace lorax::cuda
