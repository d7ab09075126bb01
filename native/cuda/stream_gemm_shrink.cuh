// The shrink of the streaming GEMM: v = weight * scale * A x, by four warps of every block beside
// those that multiply W.
//
// The units of a site (lora_items.h) are shared among the blocks of the grid, which all run at the
// same time; then every block adds up the v that its own tiles need. Every sum has one order,
// whatever else is in the step: k is cut into LoraUnit::kPieces pieces and each into four, by its
// length alone; a piece is the sum of its warps, v that of its pieces, in order. A block computes
// an even share of all pieces. A, and where its first rows of v lie, is read before the kernel
// ahead has ended, x after.
//
// Beside a stream of weights every trip to L2 takes long, so sums carry a mark of their step and
// site and readers look until it is there: no counter, no fence. Four sums and a mark are one
// access of 16 bytes, which nothing tears; a sum keeps 24 of its 32 bits, twice what v has.
#pragma once

#include "cuda/lora_mma.cuh"
#include "cuda/lora_slices.cuh"
#include "cuda/stream_gemm_producers.cuh"

namespace lorax::cuda {

template <int kColumns>
class StreamShrink {
 public:
  // thread: 0 .. kShrinkWarps * 32 - 1; warp: its, the same in all lanes.
  __device__ StreamShrink(const StreamBlock<kColumns>& block, int thread, int warp)
      : block_(block),
        lora_(block.p.lora),
        thread_(thread),
        warp_(warp),
        mark_(static_cast<uint32_t>(lora_.counts->mark) * StepCounts::kMaxSites +
              lora_.site_index) {
    // An even share of all pieces for every block of the grid.
    const int pieces = lora_.lists.items->num_units * LoraUnit::kPieces;
    begin_ = pieces * static_cast<int>(blockIdx.x) / static_cast<int>(gridDim.x);
    end_ = pieces * static_cast<int>(blockIdx.x + 1) / static_cast<int>(gridDim.x);
  }

  __device__ void run() {
    Ahead ahead;
    compute_pieces(ahead);
    if (thread_ == 0) trace(block_.p, TraceEvent::kPieces);
    build_v(ahead);
  }

 private:
  static constexpr int kBatch = 2;                        // of 32 columns, loaded at once
  static constexpr int kDepth = kColumns == 128 ? 3 : 2;  // batches

  using SetCursor = LoraSetCursor<kColumns>;

  // Of the sets of this block's tiles what is loaded ahead, the first before x is there.
  struct Ahead {
    LoraSet set, after;
    LoraRow row;  // this lane's of the set, if there is one
  };

  __device__ bool has_row(const LoraSet& set, int granule) const {
    return granule * 8 + thread_ % 32 / 4 < set.num_rows;
  }
  __device__ void load_row(Ahead& ahead, int granule) const {
    if (has_row(ahead.set, granule)) {
      ahead.row = lora_.lists.rows[ahead.set.first_row + granule * 8 + thread_ % 32 / 4];
    }
  }
  __device__ void load_after(Ahead& ahead, SetCursor cursor) const {
    ahead.after = {};
    if (cursor.valid()) cursor.next();
    if (cursor.valid()) ahead.after = lora_.lists.sets[cursor.set];
  }
  // The first set, and in shared memory, until they are needed again, it and the site's parts.
  __device__ void load_first_set(Ahead& ahead) const {
    const int4 set_begin = block_.set_begin();
    const SetCursor cursor(block_, set_begin);
    if (cursor.valid()) ahead.set = lora_.lists.sets[cursor.set];
    ptx::store_shared_int4(parked(), set_begin);
  }
  __device__ void load_first_row(Ahead& ahead) const {
    load_row(ahead, warp_);
    ptx::store_shared_int4(parked() + 16, reinterpret_cast<const int4&>(ahead.set));
  }
  __device__ uint32_t parked() const {
    return block_.shared + block_.layout.shrink_at + SharedLayout::kShrinkSumBytes +
           warp_ * SharedLayout::kParkedBytes;
  }
  __device__ int k_blocks() const { return (block_.p.k + 31) / 32; }

  // This block's share of all pieces.
  __device__ void compute_pieces(Ahead& ahead) {
    load_first_set(ahead);
    if (begin_ == end_) {
      load_first_row(ahead);
      return;
    }
    Place place;
    place.piece = begin_;
    place.after = load_unit(begin_);
    prefetch();
    enter_unit(place);
    enter_piece(place);
    // kDepth batches are under way.
    A a[kDepth];
    X x[kDepth];
    Place next = place;
    Place first[kDepth];
#pragma unroll
    for (int i = 0; i < kDepth; ++i) {
      if (i > 0) advance(next);
      first[i] = next;
      load_a(next, a[i]);
    }
    load_first_row(ahead);
    wait_for_previous();
#pragma unroll
    for (int i = 0; i < kDepth; ++i) load_x(first[i], x[i]);
    float c[4] = {};
    while (place.piece < end_) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        lora_mma(c, a[0].low[i].x, a[0].high[i].x, a[0].low[i].y, a[0].high[i].y, x[0].v[i].x,
                 x[0].v[i].y);
        lora_mma(c, a[0].low[i].z, a[0].high[i].z, a[0].low[i].w, a[0].high[i].w, x[0].v[i].z,
                 x[0].v[i].w);
      }
#pragma unroll
      for (int i = 0; i + 1 < kDepth; ++i) {
        a[i] = a[i + 1];
        x[i] = x[i + 1];
      }
      advance(next);
      load_a(next, a[kDepth - 1]);
      load_x(next, x[kDepth - 1]);
      place.k_block += kBatch;
      if (place.k_block >= place.k_end) {
        finish_piece(place.piece, c);
        ++place.piece;
        enter_piece(place);
#pragma unroll
        for (float& sum : c) sum = 0.0f;
      }
    }
  }

  // This lane's of a unit.
  struct UnitRow {
    SliceAddress a;
    int row = LoraUnit::kNoRow;  // of x
  };
  // Where the walk over this warp's share of A is.
  struct Place {
    int piece = 0;                     // of all units
    const uint8_t* a = nullptr;        // this lane's of its first block
    int a_bits = 0;                    // of a block's bytes: 9 for 8 ranks, 10 for 16
    const __nv_bfloat16* x = nullptr;  // this lane's row, or null
    int k_block = 0;                   // of 32 columns
    int k_end = 0;
    UnitRow after;  // of the unit that follows
  };

  struct A {
    uint4 low[kBatch];   // ranks 0 .. 7
    uint4 high[kBatch];  // ranks 8 .. 15
  };
  struct X {
    uint4 v[kBatch];
  };

  __device__ void barrier() const {
    asm volatile("bar.sync 1, %0;" ::"n"(kShrinkWarps * 32) : "memory");
  }

  __device__ UnitRow load_unit(int piece) const {
    UnitRow unit;
    if (piece >= end_) return unit;
    const LoraUnit* from = lora_.lists.units + piece / LoraUnit::kPieces;
    unit.a = from->a;
    unit.row = from->rows[thread_ % 32 / 4];
    return unit;
  }

  __device__ void enter_unit(Place& place) const {
    place.a = place.after.a.a_block(0) + thread_ % 32 * 16;
    place.a_bits = place.after.a.is_half() ? 9 : 10;
    place.x = nullptr;
    if (place.after.row != LoraUnit::kNoRow) {
      place.x = static_cast<const __nv_bfloat16*>(block_.p.x_rows) +
                int64_t{place.after.row} * block_.p.k;
    }
    place.after = load_unit((place.piece / LoraUnit::kPieces + 1) * LoraUnit::kPieces);
  }

  __device__ void enter_piece(Place& place) const {
    const int quarter = place.piece % LoraUnit::kPieces * kShrinkWarps + warp_;
    place.k_block = k_blocks() * quarter / (LoraUnit::kPieces * kShrinkWarps);
    place.k_end = k_blocks() * (quarter + 1) / (LoraUnit::kPieces * kShrinkWarps);
  }

  __device__ void advance(Place& place) const {
    place.k_block += kBatch;
    if (place.k_block < place.k_end) return;
    ++place.piece;
    if (place.piece % LoraUnit::kPieces == 0) enter_unit(place);
    enter_piece(place);
  }

  __device__ bool exists(const Place& place, int i) const {
    return place.piece < end_ && place.k_block + i < place.k_end;
  }

  __device__ __forceinline__ void load_a(const Place& place, A& a) const {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      a.low[i] = a.high[i] = make_uint4(0, 0, 0, 0);
      if (exists(place, i)) {
        const uint8_t* from = place.a + ((place.k_block + i) << place.a_bits);
        a.low[i] = load_streaming(from);
        a.high[i] = load_streaming(from + 512);  // of a half what follows: its factor is 0
      }
    }
  }

  __device__ __forceinline__ void load_x(const Place& place, X& x) const {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      x.v[i] = load_row_part<true>(exists(place, i) ? place.x : nullptr,
                                   (place.k_block + i) * 32 + thread_ % 4 * 8, block_.p.k);
    }
  }

  // What is not loaded at once of the block's share of A, into L2; a unit a lane.
  __device__ void prefetch() const {
    if (warp_ != 0) return;
    const int first = begin_ / LoraUnit::kPieces;
    for (int unit = first + thread_ % 32; unit * LoraUnit::kPieces < end_; unit += 32) {
      const int begin = max(begin_ + 1 - unit * LoraUnit::kPieces, 0);
      const int end = min(end_ - unit * LoraUnit::kPieces, LoraUnit::kPieces);
      const int first_block = k_blocks() * begin / LoraUnit::kPieces;
      const int blocks = k_blocks() * end / LoraUnit::kPieces - first_block;
      if (blocks <= 0) continue;
      const SliceAddress a = lora_.lists.units[unit].a;
      ptx::prefetch_bytes(a.a_block(first_block), blocks * a.a_block_bytes());
    }
  }

  // c: this warp's sums.
  __device__ void finish_piece(int piece, const float (&c)[4]) {
    const int g = thread_ % 32 / 4;
    const int t = thread_ % 4;
    const uint32_t sums = block_.shared + block_.layout.shrink_at + buffer_ * 2048;
    buffer_ ^= 1;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int element = (2 * t + i % 2) * 16 + g + i / 2 * 8;
      ptx::store_shared_float(sums + (warp_ * 128 + element) * 4, c[i]);
    }
    barrier();
    // A warp of them adds up, in turns: lane (g, t) ranks 4 t .. 4 t + 3 of row g.
    if (warp_ != piece % kShrinkWarps) return;
    float4 sum = {};
#pragma unroll
    for (int w = 0; w < kShrinkWarps; ++w) {
      const float4 add = ptx::load_shared_float4(sums + (w * 128 + thread_ % 32 * 4) * 4);
      sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
    }
    ptx::store_whole(lora_.pieces + int64_t{piece} * 32 + thread_ % 32, marked(sum));
  }

  __device__ uint4 marked(const float4& sum) const {
    const uint32_t x = __float_as_uint(sum.x) + 0x80, y = __float_as_uint(sum.y) + 0x80;
    const uint32_t z = __float_as_uint(sum.z) + 0x80, w = __float_as_uint(sum.w) + 0x80;
    return make_uint4((x & ~0xffu) | w >> 24, (y & ~0xffu) | (w >> 16 & 0xff),
                      (z & ~0xffu) | (w >> 8 & 0xff), mark_);
  }
  static __device__ float4 unmarked(const uint4& sum) {
    const uint32_t w = sum.x << 24 | (sum.y & 0xff) << 16 | (sum.z & 0xff) << 8;
    return make_float4(__uint_as_float(sum.x & ~0xffu), __uint_as_float(sum.y & ~0xffu),
                       __uint_as_float(sum.z & ~0xffu), __uint_as_float(w));
  }

  // Fills the sets of the LoRA ring with v, 8 rows a warp and turn. Rows of other adapters are
  // zeros.
  __device__ void build_v(Ahead& ahead) const {
    const int lane = thread_ % 32;
    const int t = lane % 4;
    RingPosition ring;
    __syncwarp();  // all lanes have parked
    const int4 set_begin = ptx::load_shared_int4(parked());
    reinterpret_cast<int4&>(ahead.set) = ptx::load_shared_int4(parked() + 16);
    load_after(ahead, SetCursor(block_, set_begin));
    int first_granule = warp_;  // of 8 rows: sets of few go round the warps
    for (SetCursor cursor(block_, set_begin); cursor.valid();) {
      ptx::barrier_wait(block_.barriers.lora_empty + 8 * ring.index, ring.parity ^ 1);
      for (int i = warp_; i < ahead.set.num_chunks; i += kShrinkWarps) {
        ptx::store_shared_int4(block_.lora_v(block_.lora_slot(ring.index, i)) + lane * 16,
                               make_int4(0, 0, 0, 0));
      }
      bool zeroed = false;
      for (int granule = first_granule; granule * 8 < ahead.set.num_rows || !zeroed;) {
        const bool exists = has_row(ahead.set, granule);
        const LoraRow row = ahead.row;
        const uint4* from = lora_.pieces +
                            (row.unit_row / LoraUnit::kMaxRows) * LoraUnit::kPieces * 32 +
                            row.unit_row % LoraUnit::kMaxRows * 4 + t;
        uint4 piece[LoraUnit::kPieces];
        if (exists) {
#pragma unroll
          for (int p = 0; p < LoraUnit::kPieces; ++p) piece[p] = ptx::load_whole(from + p * 32);
        }
        granule += kShrinkWarps;
        load_row(ahead, granule);
        if (!zeroed) barrier();
        zeroed = true;
        if (!exists) continue;
        while (!all_there(piece)) {
#pragma unroll
          for (int p = 0; p < LoraUnit::kPieces; ++p) piece[p] = ptx::load_whole(from + p * 32);
        }
        const float factor = t < 2 ? row.factor : row.high_factor;
        float4 sum = unmarked(piece[0]);
#pragma unroll
        for (int p = 1; p < LoraUnit::kPieces; ++p) {
          const float4 add = unmarked(piece[p]);
          sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
        }
        ptx::store_shared_int2(
            block_.lora_v(block_.lora_slot(ring.index, row.at / LoraChunk::kRows)) +
                row.at % LoraChunk::kRows * 32 + t * 8,
            make_int2(bf16_pair(sum.x * factor, sum.y * factor),
                      bf16_pair(sum.z * factor, sum.w * factor)));
      }
      __syncwarp();
      ptx::barrier_arrive(block_.barriers.lora_full + 8 * ring.index);
      if (thread_ == 0) trace(block_.p, TraceEvent::kFilled);
      ring.next(block_.p.lora_sets);
      cursor.next();
      first_granule = (first_granule + kShrinkWarps - 1) % kShrinkWarps;
      ahead.set = ahead.after;
      load_row(ahead, first_granule);
      load_after(ahead, cursor);
    }
  }

  __device__ __forceinline__ bool all_there(const uint4 (&piece)[LoraUnit::kPieces]) const {
    bool there = true;
#pragma unroll
    for (int p = 0; p < LoraUnit::kPieces; ++p) there &= piece[p].w == mark_;
    return there;
  }

  const StreamBlock<kColumns>& block_;
  const StreamGemmLora& lora_;
  const int thread_;
  const int warp_;
  const uint32_t mark_;
  int begin_;  // of all units' pieces, this block's: [begin_, end_)
  int end_;
  int buffer_ = 0;
};

}  // namespace lorax::cuda
