// The streaming GEMM's kernel: one warp fills a ring in shared memory with W, one another with x,
// two warpgroups multiply; with adapters one fills a ring with B slices (stream_gemm_producers.cuh)
// and four shrink (stream_gemm_shrink.cuh), and the multiplying warps add B v at a tile's end.
//
// W is the M side of wgmma, x the N side. Called by stream_gemm.cu; needs sm_90a.
#pragma once

#include "cuda/lora_slices.cuh"
#include "cuda/stream_gemm_producers.cuh"
#include "cuda/stream_gemm_shrink.cuh"
#include "cuda/stream_gemm_wgmma.cuh"

namespace lorax::cuda {

// A warp of the consumers: 16 rows of every tile.
template <int kColumns, bool kLora>
struct StreamConsumer {
  static constexpr int kBlocks = kColumns / 8;  // of 8 rows of x
  // With more columns the products leave no time for it.
  static constexpr bool kExpandsEarly = kLora && kColumns <= 64;

  const StreamBlock<kColumns>& block;
  const int warp;
  const int lane;
  float d[kColumns / 2];  // [kBlocks][4]: this warp's 16 rows of W times kColumns rows of x
  RingPosition w_ring;
  RingPosition x_ring;
  RingPosition lora_ring;

  __device__ StreamConsumer(const StreamBlock<kColumns>& b, int warp_index)
      : block(b), warp(warp_index), lane(threadIdx.x % 32) {}

  __device__ void release(uint32_t w_index, uint32_t x_index) const {
    if (lane != 0) return;
    ptx::barrier_arrive(block.barriers.w_empty + 8 * w_index);
    ptx::barrier_arrive(block.barriers.x_empty + 8 * x_index);
  }

  // d = W[16 rows of this warp, the tile's part of k] x^T; the adapters' share is added on the way
  // or at the end.
  __device__ void multiply(const BlockCursor& tile, [[maybe_unused]] const int3& sets) {
    const int expand_at = kExpandsEarly ? expand_atom(tile) : -1;
    const uint32_t w_offset = warp / 4 * kHalfRows * kAtomRowBytes;
    uint32_t accumulate = 0;
    uint32_t w_before = 0;
    uint32_t x_before = 0;
#ifdef LORAX_STREAM_GEMM_TRACE
    ptx::barrier_wait(block.barriers.x_full + 8 * x_ring.index, x_ring.parity);
    if (threadIdx.x == 0 && tile.work < block.p.schedule.blocks) {
      trace(block.p, TraceEvent::kFirstBlock);
    }
#endif
#pragma unroll 1
    for (BlockCursor cursor = tile; cursor.work == tile.work; cursor.next()) {
      const bool expands = kExpandsEarly && cursor.atom == expand_at;
      if constexpr (kExpandsEarly) {
        if (expands) {
          wgmma_wait<0>();
          wgmma_hold(d);
          release(w_before, x_before);
          expand_lora(tile, sets);
        }
      }
      ptx::barrier_wait(block.barriers.w_full + 8 * w_ring.index, w_ring.parity);
      ptx::barrier_wait(block.barriers.x_full + 8 * x_ring.index, x_ring.parity);
      uint64_t w = wgmma_descriptor(block.w_stage(w_ring.index) + w_offset);
      uint64_t x = wgmma_descriptor(block.x_stage(x_ring.index));
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
        if (a == 0 && cursor.atom != tile.atom && !expands) release(w_before, x_before);
        w += kTileRows * kAtomRowBytes / 16;
        x += kColumns * kAtomRowBytes / 16;
      }
      w_before = w_ring.index;
      x_before = x_ring.index;
      w_ring.next(block.p.w_stages);
      x_ring.next(block.p.x_stages);
    }
    wgmma_wait<0>();
    wgmma_hold(d);
    release(w_before, x_before);
    if (threadIdx.x == 0) trace(block.p, TraceEvent::kLastBlock);
    if constexpr (kLora) {
      if (expand_at < 0) expand_lora(tile, sets);
    }
  }

  // Before which atom of a tile's part the adapters' share is added: late enough for v to be there,
  // early enough for W to arrive meanwhile; a whole number of blocks. -1: at the end.
  __device__ int expand_atom(const BlockCursor& tile) const {
    constexpr int kLongEnough = 32;  // of a shorter part v comes too late
    const int atoms = tile.last_atom - tile.atom;
    if (!block.p.lora.early || atoms < kLongEnough) return -1;
    return tile.atom + atoms * 3 / 4 / 2 * 2;
  }

  // d += B v for every item of the site whose part covers rows of this tile that its part of k
  // owns.
  __device__ __forceinline__ void expand_lora(const BlockCursor& tile, const int3& sets) {
    int left = 0;
    for (int q = 0; q < block.p.lora.num_parts; ++q) {
      const int2 groups = block.lora_groups(q, tile);
      if (groups.x < groups.y) left += q == 0 ? sets.x : q == 1 ? sets.y : sets.z;
    }
    for (; left > 0; --left) {
      ptx::barrier_wait(block.barriers.lora_full + 8 * lora_ring.index, lora_ring.parity);
      add_chunks();
      __syncwarp();
      ptx::barrier_arrive(block.barriers.lora_empty + 8 * lora_ring.index);
      lora_ring.next(block.p.lora_sets);
    }
  }

  // A chunk of the set.
  struct Term {
    int pair = kNoPair;  // of blocks of 8 rows of x
    int4 b;
    int4 v;
  };
  static constexpr int kNoPair = 1 << 16;

  // `group`: this warp's of the tile's groups of rows of B; `halves`: which slots have half slices.
  __device__ __forceinline__ Term load_term(int slot, int group, int halves) const {
    Term term;
    const uint32_t at = block.lora_slot(lora_ring.index, slot);
    const int is_half = halves >> slot & 1;
    term.pair = ptx::load_shared_int(block.lora_meta(lora_ring.index, slot));
    term.b = ptx::load_shared_int4(at + (group * kBGroupBytes >> is_half) +
                                   b_part_at(is_half != 0, lane / 4, lane % 4));
    const int2 low = ptx::load_shared_int2(block.lora_v(at) + lane * 8);
    const int2 high = ptx::load_shared_int2(block.lora_v(at) + kVBlockBytes + lane * 8);
    term.v = make_int4(low.x, low.y, high.x, high.y);
    return term;
  }

  // d += B v for the chunks of the set, which ascend in the rows of x: straight code for the usual
  // one or none a pair of blocks. The next chunk's loads are under way meanwhile.
  __device__ __forceinline__ void add_chunks() {
    const int4 meta = ptx::load_shared_int4(block.lora_meta(lora_ring.index, 0));
    const int group = warp - (meta.z & 0xffff);
    if (group < 0 || warp >= meta.z >> 16) return;
    int slot = 0;
    Term next = load_term(0, group, meta.w);
#pragma unroll
    for (int pair = 0; pair < (kBlocks + 1) / 2; ++pair) {
#pragma unroll 1
      while (next.pair == pair) {
        const Term term = next;
        next.pair = kNoPair;
        if (++slot < meta.y) next = load_term(slot, group, meta.w);
        mma_16x8x16(d + 8 * pair, term.b, term.v.x, term.v.y);
        if (2 * pair + 1 < kBlocks) {
          mma_16x8x16(d + 8 * pair + 4, term.b, term.v.z, term.v.w);
        }
      }
    }
  }

  static __device__ __forceinline__ void mma_16x8x16(float* c, const int4& a, int b0, int b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
        "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b0), "r"(b1));
  }

  // d = silu(gate) * up: the first half of the tile has gate, the second the same rows of up. Each
  // hands the other half of its columns over, and stores the products of the rest.
  __device__ void gate(int row, int y_row) {
    constexpr int kBoth = kTileWarps * 32;
    constexpr int kMiddle = (kBlocks + 1) / 2;
    const bool has_up = warp >= 4;
    add_bias(row);
    const uint32_t buffer =
        block.shared + block.layout.gate_at + warp % 4 * kBlocks * 256 + lane * 8;
    // Once what was handed over for the tile before has been read.
    asm volatile("bar.sync 3, %0;" ::"n"(kBoth) : "memory");
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if ((j < kMiddle) != has_up) continue;
      ptx::store_shared_int2(buffer + j * 256, make_int2(pack_bf16(d[4 * j], d[4 * j + 1]),
                                                         pack_bf16(d[4 * j + 2], d[4 * j + 3])));
    }
    asm volatile("bar.sync 2, %0;" ::"n"(kBoth) : "memory");
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      if ((j < kMiddle) == has_up) continue;
      const int2 packed = ptx::load_shared_int2(buffer + j * 256);
      const float other[4] = {bf16_low(packed.x), bf16_high(packed.x), bf16_low(packed.y),
                              bf16_high(packed.y)};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float own = __bfloat162float(__float2bfloat16_rn(d[4 * j + i]));
        const float g = has_up ? other[i] : own;
        // exp overflows to infinity for gates below -88, and g / inf is 0 as it should be.
        d[4 * j + i] = __fdividef(g, 1.0f + __expf(-g)) * (has_up ? own : other[i]);
      }
    }
    const int n = block.p.n / 2;
    if (has_up) {
      store_bf16<kMiddle, kBlocks>(y_row, 0, n);
    } else {
      store_bf16<0, kMiddle>(y_row, 0, n);
    }
  }

  static __device__ __forceinline__ float bf16_low(int pair) {
    return __uint_as_float(static_cast<uint32_t>(pair) << 16);
  }
  static __device__ __forceinline__ float bf16_high(int pair) {
    return __uint_as_float(static_cast<uint32_t>(pair) & 0xffff0000u);
  }

  // Row `row` of W is the first of this warp's.
  __device__ void add_bias(int row) {
    const auto& p = block.p;
    if (p.bias == nullptr) return;
    const int low = row + lane / 4;
    const float bias_low = low < p.n ? p.bias[low] : 0.0f;
    const float bias_high = low + 8 < p.n ? p.bias[low + 8] : 0.0f;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
      d[4 * j] += bias_low;
      d[4 * j + 1] += bias_low;
      d[4 * j + 2] += bias_high;
      d[4 * j + 3] += bias_high;
    }
  }

  // y[row of x, row of W] = d + bias; of another part of k than the first, d alone, at its own
  // place.
  __device__ void store(int row, int part) {
    if (part == 0) add_bias(row);
    if (block.p.float32_out) {
      store_float(row, part);
    } else {
      store_bf16<0, kBlocks>(row, part, block.p.n);
    }
  }

  __device__ void store_float(int row, int part) const {
    const auto& p = block.p;
    const int g = lane / 4;
    const int q = lane % 4;
    float* y = static_cast<float*>(p.y) + part * p.part_stride + row + g;
    const bool low = row + g < p.n;
    const bool high = row + g + 8 < p.n;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int x_row = 8 * j + 2 * q + c;
        if (x_row >= p.rows) continue;
        float* to = y + static_cast<int64_t>(x_row) * p.n;
        if (low) to[0] = d[4 * j + c];
        if (high) to[8] = d[4 * j + 2 + c];
      }
    }
  }

  // Blocks [kBegin, kEnd) of 8 rows of part `part` of y [rows, n]. Transposed in the warp, so that
  // a thread has neighbours in y: rows of W 2 q and 2 q + 1 at row 8 j + g of x.
  template <int kBegin, int kEnd>
  __device__ void store_bf16(int row, int part, int n) const {
    const auto& p = block.p;
    const int g = lane / 4;
    const int q = lane % 4;
    auto* y = static_cast<__nv_bfloat16*>(p.y) + part * p.part_stride + row + 2 * q;
    const bool low = row + 2 * q < n;
    const bool high = row + 8 + 2 * q < n;
#pragma unroll
    for (int j = kBegin; j < kEnd; ++j) {
      if (8 * j >= p.rows) break;
      const uint32_t lower = ptx::transpose_8x8(pack_bf16(d[4 * j], d[4 * j + 1]));
      const uint32_t upper = ptx::transpose_8x8(pack_bf16(d[4 * j + 2], d[4 * j + 3]));
      if (8 * j + g >= p.rows) continue;
      __nv_bfloat16* to = y + static_cast<int64_t>(8 * j + g) * n;
      if (low) *reinterpret_cast<uint32_t*>(to) = lower;
      if (high) *reinterpret_cast<uint32_t*>(to + 8) = upper;
    }
  }

  // Nothing is stored before x has come, so before the kernels ahead have ended.
  __device__ void run() {
    int3 sets = {};  // of the site's parts
    if constexpr (kLora) {
      const int4 begin = block.set_begin();
      sets = make_int3(begin.y - begin.x, begin.z - begin.y, begin.w - begin.z);
    }
    for (BlockCursor tile(block.p.schedule, blockIdx.x); tile.valid(); tile.next_tile()) {
      multiply(tile, sets);
      const int row = tile.row(warp / 4) + warp % 4 * 16;
      if (block.p.gated != 0) {
        gate(row, tile.row() + warp % 4 * 16);
      } else {
        store(row, tile.part);
      }
    }
  }
};

// Warps: consumers, W, x, then with adapters B and the shrink.
template <bool kLora>
constexpr int kStreamThreads = (kTileWarps + 2 + (kLora ? 1 + kShrinkWarps : 0)) * 32;

// Few enough registers that a block of the small kernel that follows finds room beside it; with 128
// columns of sums and adapters it does not either way.
template <int kColumns, bool kLora>
constexpr int kStreamRegisters = kColumns == 128 ? (kLora ? 128 : 104)
                                 : kLora         ? 88
                                                 : 80;

template <int kColumns, bool kLora>
__global__ void __maxnreg__((kStreamRegisters<kColumns, kLora>))
    stream_gemm_kernel(const __grid_constant__ StreamGemmParameters p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ uint8_t dynamic_shared[];
  const uint32_t shared = (ptx::shared_address(dynamic_shared) + 1023) & ~1023u;
  const StreamBlock<kColumns> block(p, shared);
  // The compiler must see that these are the same in all lanes: else it makes wgmma wait each time
  // and loops over the lanes to issue a copy.
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
  const bool elected = ptx::elect_lane();

  let_next_start();
  if (warp == kTileWarps) {
    if (elected) {
      trace(p, TraceEvent::kStart);
      block.init_barriers();
    }
    __syncwarp();
  }
  __syncthreads();
  if (warp < kTileWarps) {
    StreamConsumer<kColumns, kLora>(block, warp).run();
  } else if (warp == kTileWarps) {
    if (elected) produce_w(block);
  } else if (warp == kTileWarps + 1) {
    if (elected) produce_x(block);
  } else if constexpr (kLora) {
    if (warp == kTileWarps + 2) {
      produce_b(block);
    } else {
      StreamShrink<kColumns>(block, threadIdx.x - (kTileWarps + 3) * 32, warp - kTileWarps - 3)
          .run();
    }
  }
  if (threadIdx.x == 0) trace(p, TraceEvent::kEnd);
#endif
}

}  // namespace lorax::cuda
