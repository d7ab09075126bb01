// The shrink of the streaming GEMM: v = weight * scale * A x, by four warps of every block beside
// those that multiply W.
//
// The units of a site (lora_items.h) are shared among the blocks of the grid, which all run at the
// same time; then every block adds up the v that its own tiles need. Every sum has one order,
// whatever else is in the step: k is cut into LoraUnit::kPieces pieces and each into four, by its
// length alone; a piece is the sum of its warps, v that of its pieces, in order. With few units a
// block computes one piece of one, with more 2, 4 or all 8. A is read before the kernel ahead has
// ended, x after.
//
// Beside a stream of weights every trip to L2 takes long, so sums carry a mark of their step and
// site and readers look until it is there: no counter, no fence. Four sums and a mark are one
// access of 16 bytes, which nothing tears; a sum keeps 24 of its 32 bits, twice what v has.
#pragma once

#include "cuda/lora_mma.cuh"
#include "cuda/stream_gemm_producers.cuh"

namespace lorax::cuda {

constexpr int kShrinkThreads = kShrinkWarps * 32;

template <int kColumns>
class StreamShrink {
 public:
  // thread: 0 .. kShrinkThreads - 1; warp: its, the same in all lanes.
  __device__ StreamShrink(const StreamBlock<kColumns>& block, int thread, int warp)
      : block_(block),
        lora_(block.p.lora),
        thread_(thread),
        warp_(warp),
        k_blocks_((block.p.k + 31) / 32),
        num_units_(*lora_.num_units),
        mark_(static_cast<uint32_t>(lora_.counts->mark) * StepCounts::kMaxSites +
              lora_.site_index) {
    // Blocks on a unit: as many as leaves no unit for a second round, or one.
    const int grid = static_cast<int>(gridDim.x);
    int split = LoraUnit::kPieces;
    while (split > 1 && num_units_ * split > grid) split /= 2;
    pieces_ = LoraUnit::kPieces / split;
    first_piece_ = static_cast<int>(blockIdx.x) % split * pieces_;
    stride_ = grid / split;
  }

  __device__ void run() {
    compute_pieces();
    build_v();
  }

 private:
  static constexpr int kBatch = 2;  // of 32 columns, loaded at once

  // Pieces of units, this block's share.
  __device__ void compute_pieces() {
    Place place;
    place.unit_index = static_cast<int>(blockIdx.x) * pieces_ / LoraUnit::kPieces;
    if (place.unit_index >= min(stride_, num_units_)) return;
    enter_unit(place);
    prefetch(place.unit_index + stride_);
    Place next = place;
    advance(next);
    A a, a_next;
    X x, x_next;
    load_a(place, a);
    load_a(next, a_next);
    wait_for_previous();
    load_x(place, x);
    load_x(next, x_next);
    float c[4] = {};
    while (place.unit_index < num_units_) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        lora_mma(c, a.low[i].x, a.high[i].x, a.low[i].y, a.high[i].y, x.v[i].x, x.v[i].y);
        lora_mma(c, a.low[i].z, a.high[i].z, a.low[i].w, a.high[i].w, x.v[i].z, x.v[i].w);
      }
      const Place done = place;
      a = a_next;
      x = x_next;
      place = next;
      advance(next);
      load_a(next, a_next);
      load_x(next, x_next);
      if (done.k_block + kBatch >= done.k_end) {
        finish_piece(done, c);
#pragma unroll
        for (float& sum : c) sum = 0.0f;
      }
    }
  }

  // Where the walk over this warp's share of A is.
  struct Place {
    int unit_index = 0;
    const uint8_t* a = nullptr;
    const __nv_bfloat16* x = nullptr;  // this lane's row, or null
    int piece = 0;
    int k_block = 0;  // of 32 columns
    int k_end = 0;
  };

  struct A {
    uint4 low[kBatch];   // ranks 0 .. 7
    uint4 high[kBatch];  // ranks 8 .. 15
  };
  struct X {
    uint4 v[kBatch];
  };

  __device__ void barrier() const {
    asm volatile("bar.sync 1, %0;" ::"n"(kShrinkThreads) : "memory");
  }

  __device__ void enter_piece(Place& place) const {
    const int quarter = place.piece * kShrinkWarps + warp_;
    place.k_block = k_blocks_ * quarter / (LoraUnit::kPieces * kShrinkWarps);
    place.k_end = k_blocks_ * (quarter + 1) / (LoraUnit::kPieces * kShrinkWarps);
  }

  __device__ void enter_unit(Place& place) const {
    place.piece = first_piece_;
    if (place.unit_index < num_units_) {
      const LoraUnit unit = lora_.units[place.unit_index];
      const int g = thread_ % 32 / 4;
      place.a = unit.a;
      place.x = nullptr;
      if (g < unit.num_rows) {
        place.x = static_cast<const __nv_bfloat16*>(block_.p.x_rows) +
                  int64_t{lora_.segment_rows[unit.rows_begin + g]} * block_.p.k;
      }
    }
    enter_piece(place);
  }

  __device__ void advance(Place& place) const {
    place.k_block += kBatch;
    if (place.k_block < place.k_end) return;
    if (++place.piece < first_piece_ + pieces_) {
      enter_piece(place);
    } else {
      place.unit_index += stride_;
      enter_unit(place);
      prefetch(place.unit_index + stride_);
    }
  }

  __device__ bool exists(const Place& place, int i) const {
    return place.unit_index < num_units_ && place.k_block + i < place.k_end;
  }

  __device__ __forceinline__ void load_a(const Place& place, A& a) const {
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      a.low[i] = a.high[i] = make_uint4(0, 0, 0, 0);
      if (exists(place, i)) {
        const uint8_t* from = place.a + int64_t{place.k_block + i} * 1024 + thread_ % 32 * 16;
        a.low[i] = load_streaming(from);
        a.high[i] = load_streaming(from + 512);
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

  // This block's share of the unit's A, into L2.
  __device__ void prefetch(int unit_index) const {
    if (thread_ != 0 || unit_index >= num_units_) return;
    const int begin = k_blocks_ * first_piece_ / LoraUnit::kPieces;
    const int end = k_blocks_ * (first_piece_ + pieces_) / LoraUnit::kPieces;
    if (begin < end) {
      ptx::prefetch_bytes(lora_.units[unit_index].a + int64_t{begin} * 1024, (end - begin) * 1024);
    }
  }

  // c: this warp's sums.
  __device__ void finish_piece(const Place& place, const float (&c)[4]) {
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
    if (warp_ != place.piece % kShrinkWarps) return;
    float4 sum = {};
#pragma unroll
    for (int w = 0; w < kShrinkWarps; ++w) {
      const float4 add = ptx::load_shared_float4(sums + (w * 128 + thread_ % 32 * 4) * 4);
      sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
    }
    ptx::store_whole(piece_at(place.unit_index, place.piece), marked(sum));
  }

  // Of this lane's four sums.
  __device__ uint4* piece_at(int unit_index, int piece) const {
    return lora_.pieces + (int64_t{unit_index} * LoraUnit::kPieces + piece) * 32 + thread_ % 32;
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

  // A slot of the set being collected, held by the lane of its number.
  struct Slot {
    int first_unit = 0;
    int rows_begin = 0;  // of the item
    int first = 0;       // of its rows in the slot, counted in the item
    int first_row = 0;   // of the slot's blocks
    int at = 0;          // of its first row among all of the set
    float scale = 0.0f;
  };

  // Fills the sets of the LoRA ring with v. All rows of a set are under way at once: 8 a warp and
  // turn, whichever slots they belong to. Rows of other adapters are zeros.
  __device__ void build_v() const {
    const int lane = thread_ % 32;
    RingPosition ring;
    Slot slot;
    int next = 0;   // row of the item
    int total = 0;  // rows of the set
    for_lora_chunks(block_, [&](const LoraChunk& chunk) {
      const LoraItem& item = chunk.item;
      if (chunk.slot == 0) total = 0;
      if (chunk.first_block == item.first_block) next = 0;
      // Rows ascend: those of the slot follow those of the one before.
      int count = item.rows_end - item.rows_begin - next;
      if (item.num_blocks > kLoraChunkBlocks) {
        const bool here = lane < min(count, kLoraChunkBlocks * 8) &&
                          lora_.segment_rows[item.rows_begin + next + lane] <
                              (chunk.first_block + chunk.num_blocks) * 8;
        count = __popc(__ballot_sync(~0u, here));
      }
      if (lane == chunk.slot) {
        slot = {item.first_unit, item.rows_begin, next, chunk.first_block * 8, total, item.scale};
      }
      next += count;
      total += count;
      if (!chunk.closes_set()) return;
      fill_set(ring.index, ring.parity, slot, chunk.slot + 1, total);
      ring.next(block_.p.lora_sets);
    });
  }

  __device__ __forceinline__ void fill_set(uint32_t set, uint32_t parity, const Slot& slot,
                                           int num_slots, int total) const {
    const int lane = thread_ % 32;
    const int t = lane % 4;
    ptx::barrier_wait(block_.barriers.lora_empty + 8 * set, parity ^ 1);
    for (int i = warp_; i < num_slots; i += kShrinkWarps) {
      ptx::store_shared_int4(block_.lora_v(block_.lora_slot(set, i)) + lane * 16,
                             make_int4(0, 0, 0, 0));
    }
    bool zeroed = false;
    for (int turn = warp_ * 8; turn < total || !zeroed; turn += kShrinkWarps * 8) {
      const int at = turn + lane / 4;
      int owner = 0;
      for (int i = 1; i < num_slots; ++i) {
        if (at >= __shfl_sync(~0u, slot.at, i)) owner = i;
      }
      const int n = __shfl_sync(~0u, slot.first, owner) + at - __shfl_sync(~0u, slot.at, owner);
      const int rows_begin = __shfl_sync(~0u, slot.rows_begin, owner);
      const int first_unit = __shfl_sync(~0u, slot.first_unit, owner);
      const int first_row = __shfl_sync(~0u, slot.first_row, owner);
      const float scale = __shfl_sync(~0u, slot.scale, owner);
      const bool exists = at < total;
      const uint4* from = lora_.pieces +
                          int64_t{first_unit + n / LoraUnit::kMaxRows} * LoraUnit::kPieces * 32 +
                          n % LoraUnit::kMaxRows * 4 + t;
      uint4 piece[LoraUnit::kPieces];
      int row = 0;
      float factor = 0.0f;
      if (exists) {
#pragma unroll
        for (int p = 0; p < LoraUnit::kPieces; ++p) piece[p] = ptx::load_whole(from + p * 32);
        row = lora_.segment_rows[rows_begin + n] - first_row;
        factor = lora_.segment_weights[rows_begin + n] * scale;
      }
      if (!zeroed) barrier();
      zeroed = true;
      if (!exists) continue;
      while (!all_there(piece)) {
#pragma unroll
        for (int p = 0; p < LoraUnit::kPieces; ++p) piece[p] = ptx::load_whole(from + p * 32);
      }
      float4 sum = unmarked(piece[0]);
#pragma unroll
      for (int p = 1; p < LoraUnit::kPieces; ++p) {
        const float4 add = unmarked(piece[p]);
        sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
      }
      ptx::store_shared_int2(block_.lora_v(block_.lora_slot(set, owner)) + row * 32 + t * 8,
                             make_int2(bf16_pair(sum.x * factor, sum.y * factor),
                                       bf16_pair(sum.z * factor, sum.w * factor)));
    }
    __syncwarp();
    if (lane == 0) ptx::barrier_arrive(block_.barriers.lora_full + 8 * set);
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
  const int k_blocks_;
  const int num_units_;
  const uint32_t mark_;
  int pieces_;  // of a unit, this block's: [first_piece_, first_piece_ + pieces_)
  int first_piece_;
  int stride_;  // units between this block's
  int buffer_ = 0;
};

}  // namespace lorax::cuda
