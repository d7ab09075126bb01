// The streaming GEMM's kernel: one warp fills a ring in shared memory with W, one with x, one or
// two warpgroups multiply, one warp fills a second ring with LoRA slices
// (stream_gemm_producers.cuh).
//
// W is the M side of wgmma, x the N side. With `split` > 1 a cluster's blocks have parts of k: warp
// w of every block sends its accumulators to the block that owns w, which adds them in the order of
// the parts, then the LoRA items in theirs, then the bias. Called by stream_gemm.cu; needs sm_90a.
#pragma once

#include "cuda/stream_gemm_producers.cuh"
#include "cuda/stream_gemm_wgmma.cuh"

namespace lorax::cuda {

// A warp of the consumers, kWarpgroups warpgroups.
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

  __device__ StreamConsumer(const Block& b, int warp_index)
      : block(b), warp(warp_index), lane(threadIdx.x % 32) {}

  __device__ void release(uint32_t index) const {
    if (lane == 0) ptx::barrier_arrive(block.barriers.empty + 8 * index);
  }

  // d = W[16 rows of this warp, our part of k] x^T
  __device__ void multiply(const BlockCursor& tile) {
    const uint32_t w_offset = warp / 4 * 64 * kAtomRowBytes;
    uint32_t accumulate = 0;
    uint32_t before = 0;
#ifdef LORAX_STREAM_GEMM_TRACE
    ptx::barrier_wait(block.barriers.x_full + 8 * ring.index, ring.parity);
    if (threadIdx.x == 0 && tile_parity == 0 && tile.tile < block.p.schedule.clusters) {
      trace(block.p, TraceEvent::kFirstBlock);
    }
#endif
#pragma unroll 1
    for (BlockCursor cursor = tile; cursor.tile == tile.tile; cursor.next()) {
      ptx::barrier_wait(block.barriers.full + 8 * ring.index, ring.parity);
      ptx::barrier_wait(block.barriers.x_full + 8 * ring.index, ring.parity);
      uint64_t w = wgmma_descriptor(block.stage(ring.index) + w_offset);
      uint64_t x = wgmma_descriptor(block.x_stage(ring.index));
      const int atoms = cursor.num_atoms();
#pragma unroll 1
      for (int a = 0; a < atoms; ++a) {
        wgmma_hold(d);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < kAtom / 16; ++step) {
          Wgmma<kColumns>::multiply(d, w + 2 * step, x + 2 * step, accumulate);
          accumulate = 1;
        }
        wgmma_commit();
        wgmma_wait<1>();
        wgmma_hold(d);
        // The block before has been read once this one's first atom is all that is under way.
        if (a == 0 && cursor.atom != tile.first_atom) release(before);
        w += Block::kTileRows * kAtomRowBytes / 16;
        x += kColumns * kAtomRowBytes / 16;
      }
      before = ring.index;
      ring.next(block.p.stages);
    }
    wgmma_wait<0>();
    wgmma_hold(d);
    release(before);
  }

  // d = the sum over the parts of k, in their order. False where another block finishes this warp.
  __device__ bool reduce(bool last_tile) {
    const int split = block.p.schedule.split;
    const int owner = warp / block.warps_owned;
    const int local = warp % block.warps_owned;
    const uint32_t buffer = block.shared + block.layout.reduce_at;
    // What part s sends for an owned warp lies at sender(s, owner).
    auto sender = [&](int s, int to) {
      return buffer + ((s - (s > to)) * block.warps_owned + local) * kBlocks * 512 + lane * 16;
    };
    if (owner != block.part) {
      // Once the owner has read what was sent for the tile before.
      ptx::barrier_wait_cluster(block.barriers.reduce_empty + 8 * warp, tile_parity ^ 1);
      const uint32_t to = ptx::map_to_rank(sender(block.part, owner), owner);
      const uint32_t full = ptx::map_to_rank(block.barriers.reduce_full + 8 * local, owner);
#pragma unroll
      for (int j = 0; j < kBlocks; ++j) {
        ptx::store_remote(to + j * 512, full, d[4 * j], d[4 * j + 1], d[4 * j + 2], d[4 * j + 3]);
      }
      return false;
    }
    if (lane == 0) {
      ptx::barrier_expect(block.barriers.reduce_full + 8 * local, (split - 1) * kBlocks * 512);
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
    // Not after the last tile: none would wait for it, and the block it goes to might be gone.
    __syncwarp();
    if (!last_tile && lane < split && lane != block.part) {
      ptx::barrier_arrive_remote(ptx::map_to_rank(block.barriers.reduce_empty + 8 * warp, lane));
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
      const uint32_t lower =
          ptx::transpose_8x8(pack_bf16(d[4 * j] + bias_low, d[4 * j + 1] + bias_low));
      const uint32_t upper =
          ptx::transpose_8x8(pack_bf16(d[4 * j + 2] + bias_high, d[4 * j + 3] + bias_high));
      if (8 * j + g >= p.rows) continue;
      __nv_bfloat16* to = y + static_cast<int64_t>(8 * j + g) * p.n;
      if (low) *reinterpret_cast<uint32_t*>(to) = lower;
      if (high) *reinterpret_cast<uint32_t*>(to + 8) = upper;
    }
  }

  // Before anything but x is read, and before this block ends: the next kernel takes our end for
  // the end of all before us.
  __device__ void wait_for_items() {
    wait_for_previous();
    if constexpr (kLora) {
#pragma unroll
      for (int q = 0; q <= LoraSiteItems::kMaxParts; ++q) {
        items_begin[q] = q <= block.p.lora.num_parts ? block.p.lora.site->part_begin[q] : 0;
      }
    }
  }

  // Where x has a counter, the kernels between its writer and this one run beside the products: the
  // first sum waits for them where there is something of theirs to add.
  __device__ void run() {
    bool waits = block.p.x_ready != nullptr;
    if (!waits) wait_for_items();
    for (BlockCursor tile(block.p.schedule, blockIdx.x); tile.valid(); tile.next_tile()) {
      const bool last_tile = tile.tile + tile.stride >= tile.num_tiles;
      multiply(tile);
      if (threadIdx.x == 0) trace(block.p, TraceEvent::kLastBlock);
      if (block.p.schedule.split == 1 || reduce(last_tile)) {
        if constexpr (kLora) {
          if (waits) wait_for_items();
          waits = false;
          expand_lora(tile.row());
        }
        store(tile.row() + warp * 16);
      }
      tile_parity ^= 1;
    }
    if (waits) wait_for_previous();
  }
};

template <int kColumns, int kWarpgroups, bool kLora>
__global__ void __launch_bounds__(kWarpgroups * 128 + (kLora ? 96 : 64), kColumns <= 64 ? 2 : 1)
    stream_gemm_kernel(const __grid_constant__ StreamGemmParameters p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t dynamic_shared[];
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023) & ~1023u;
  const StreamBlock<kColumns, kWarpgroups> block(p, shared);
  // The compiler must see that these are the same in all lanes: else it makes wgmma wait each time
  // and loops over the lanes to issue a copy.
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
  const bool elected = ptx::elect_lane();
  constexpr int kProducer = block.kWarps;

  if (warp == kProducer) {
    if (elected) {
      trace(p, TraceEvent::kStart);
      block.init_barriers();
    }
    __syncwarp();
  }
  __syncthreads();
  const bool clustered = p.schedule.split > 1;
  if (clustered) ptx::cluster_arrive();
  if (warp == kProducer) {
    if (elected) produce_w(block);
    __syncwarp();
    if (clustered) ptx::cluster_wait();
  } else {
    // From here on others may write into our shared memory, and we into theirs. None leaves before
    // what others send it has come.
    if (clustered) ptx::cluster_wait();
    if (warp == kProducer + 1) {
      if (elected) produce_x(block);
      __syncwarp();
    } else if (warp > kProducer) {
      produce_lora(block);
    } else {
      StreamConsumer<kColumns, kWarpgroups, kLora>(block, warp).run();
    }
  }
  if (threadIdx.x == 0) trace(p, TraceEvent::kEnd);
#endif
}

}  // namespace lorax::cuda
