// B v for 16 rows x 32 columns of y in the registers of one warp: the core of lora_expand and of
// the element-wise kernels that apply the delta in passing.
//
// Columns are permuted within the 32 so that lane (g, t) = (lane / 4, lane % 4) holds eight
// neighbours, columns 8 t .. 8 t + 7, of rows g and g + 8: it reads and writes y in 16 bytes.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/lora_mma.cuh"
#include "cuda/lora_rows.h"
#include "cuda/lora_slices.cuh"

namespace lorax::cuda {

constexpr int kStripColumns = 32;
constexpr int kTileRows = 16;

// `tiles`: of a slice, the first that of column 0.
template <typename Load>
__device__ __forceinline__ void load_b_with(const uint8_t* tiles, bool is_half,
                                            int32_t first_column, int32_t columns, const Load& load,
                                            uint2 (&out)[4]) {
  const int g = threadIdx.x % 32 / 4;
  const int32_t eight = first_column / 8 + g / 2;  // half a tile of 16
  const uint8_t* from = tiles + int64_t{eight / 2} * (is_half ? 256 : 512) +
                        b_part_at(is_half, g % 2, threadIdx.x % 4);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint4 both = make_uint4(0, 0, 0, 0);
    if (eight * 8 < columns) both = load(from + j * 2 * b_row_bytes(is_half));
    out[j] = eight % 2 == 1 ? make_uint2(both.y, both.w) : make_uint2(both.x, both.z);
  }
}

// B of one rank group for the 32 columns from first_column on, a multiple of 8, of a part with
// `columns`: fragment j, column n of the mma is column 8 (n / 2) + 2 j + n % 2.
__device__ __forceinline__ void load_b(SliceAddress b, int32_t first_column, int32_t columns,
                                       uint2 (&out)[4]) {
  load_b_with(
      b.b_tile(0), b.is_half(), first_column, columns,
      [](const uint8_t* from) { return __ldg(reinterpret_cast<const uint4*>(from)); }, out);
}

// The same of whole tiles in shared memory, the first of which is that of column 0.
__device__ __forceinline__ void load_shared_b(const uint8_t* b, int32_t first_column,
                                              int32_t columns, uint2 (&out)[4]) {
  load_b_with(
      b, false, first_column, columns,
      [](const uint8_t* from) { return *reinterpret_cast<const uint4*>(from); }, out);
}

// v of this lane's row (bit `row` of the pair's mask) and ranks; zeros where the segment has it
// not.
__device__ __forceinline__ uint2 load_v(const __nv_bfloat16* part_v, const LoraRowPair& pair,
                                        int32_t group, int row) {
  if ((pair.mask >> row & 1u) == 0) return make_uint2(0, 0);
  const int32_t at = __popc(pair.mask & ((1u << row) - 1));
  const int64_t v_row = int64_t{group} * pair.num_rows + pair.v_row + at;
  return *reinterpret_cast<const uint2*>(part_v + v_row * 16 + threadIdx.x % 4 * 4);
}

// delta[j][i] += : with h = i / 2, row g + 8 h, column 8 t + 2 j + i % 2.
__device__ __forceinline__ void add_delta(uint2 upper, uint2 lower, const uint2 (&b)[4],
                                          float (&delta)[4][4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    lora_mma(delta[j], upper.x, lower.x, upper.y, lower.y, b[j].x, b[j].y);
  }
}

__device__ __forceinline__ LoraRowPair load_pair_at(const LoraRowLists& lists, int32_t i) {
  const int4 raw = *reinterpret_cast<const int4*>(lists.pairs + i);
  return {raw.x, static_cast<uint32_t>(raw.y), raw.z, raw.w};
}

__device__ __forceinline__ const __nv_bfloat16* v_of_part(const LoraRowLists& lists, int part) {
  return lists.v + part * lists.capacity.row_groups * 16;
}

__device__ __forceinline__ LoraRowSlices load_slices(const LoraRowLists& lists, int32_t segment,
                                                     int part) {
  return lists.slices[segment * LoraSiteItems::kMaxParts + part];
}

// A segment that has some of 16 rows, and its slices at one part: what a block looks up once for
// all columns.
struct alignas(16) Meeting {
  LoraRowPair pair;
  LoraRowSlices slices;
};

__device__ __forceinline__ Meeting look_up(const LoraRowLists& lists, int32_t pair, int part) {
  Meeting out;
  out.pair = load_pair_at(lists, pair);
  out.slices = load_slices(lists, out.pair.segment, part);
  return out;
}

// Walks down the row tiles of one strip of 32 columns of kParts parts (gate and up have the same
// columns). What a tile needs is asked for while the tiles before it are computed: its pairs' place
// three tiles ahead, its first pair two, that pair's v one. While one segment of at most one rank
// group a part goes on, nothing but v is read.
template <int kParts>
class StripWalk {
 public:
  __device__ __forceinline__ StripWalk(const LoraRowLists& lists, int first_part,
                                       int32_t first_column, int32_t columns, int32_t first_tile,
                                       int32_t last_tile)
      : lists_(lists),
        first_part_(first_part),
        first_column_(first_column),
        columns_(columns),
        tile_(first_tile),
        last_tile_(last_tile) {
    range_ = load_range(first_tile);
    range1_ = load_range(first_tile + 1);
    range2_ = load_range(first_tile + 2);
    pair_ = load_pair(range_);
    pair1_ = load_pair(range1_);
    load_fragments(pair_, 0, v0_);
  }

  __device__ __forceinline__ bool has_delta() const { return range_.x < range_.y; }

  // Adds the current tile's deltas and goes to the next.
  __device__ __forceinline__ void add_and_advance(float (&delta)[kParts][4][4]) {
    uint2 v1[kParts][2];
    load_fragments(pair1_, 0, v1);
    const LoraRowPair pair2 = load_pair(range2_);
    const int2 range3 = load_range(tile_ + 3);

    if (has_delta()) {
      if (pair_.segment != segment_) enter(pair_.segment);
      if (single_ && range_.y - range_.x == 1) {
#pragma unroll
        for (int p = 0; p < kParts; ++p) add_delta(v0_[p][0], v0_[p][1], b_[p], delta[p]);
      } else {
        for (int32_t i = range_.x; i < range_.y; ++i) add_pair(load_pair_at(lists_, i), delta);
      }
    }
    ++tile_;
    range_ = range1_;
    range1_ = range2_;
    range2_ = range3;
    pair_ = pair1_;
    pair1_ = pair2;
#pragma unroll
    for (int p = 0; p < kParts; ++p) v0_[p][0] = v1[p][0], v0_[p][1] = v1[p][1];
  }

 private:
  __device__ __forceinline__ int2 load_range(int32_t tile) const {
    const int32_t* from = lists_.pair_begin + min(tile, last_tile_ - 1);
    return make_int2(from[0], from[1]);
  }
  __device__ __forceinline__ LoraRowPair load_pair(int2 range) const {
    return range.x < range.y ? load_pair_at(lists_, range.x) : LoraRowPair{};
  }
  __device__ __forceinline__ const __nv_bfloat16* part_v(int p) const {
    return v_of_part(lists_, first_part_ + p);
  }
  __device__ __forceinline__ void load_fragments(const LoraRowPair& pair, int32_t group,
                                                 uint2 (&out)[kParts][2]) const {
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      out[p][0] = load_v(part_v(p), pair, group, g);
      out[p][1] = load_v(part_v(p), pair, group, g + 8);
    }
  }
  // B of all parts stays in registers where each has one rank group or none.
  __device__ __forceinline__ void enter(int32_t segment) {
    segment_ = segment;
    single_ = true;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const LoraRowSlices slices = load_slices(lists_, segment, first_part_ + p);
      single_ = single_ && slices.num_groups <= 1;
#pragma unroll
      for (int j = 0; j < 4; ++j) b_[p][j] = make_uint2(0, 0);
      if (slices.num_groups == 1) load_b(slices.first_b, first_column_, columns_, b_[p]);
    }
  }
  __device__ __forceinline__ void add_pair(const LoraRowPair& pair,
                                           float (&delta)[kParts][4][4]) const {
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const LoraRowSlices slices = load_slices(lists_, pair.segment, first_part_ + p);
      for (int32_t group = 0; group < slices.num_groups; ++group) {
        uint2 b[4];
        load_b(slices.groups[group].b, first_column_, columns_, b);
        add_delta(load_v(part_v(p), pair, group, g), load_v(part_v(p), pair, group, g + 8), b,
                  delta[p]);
      }
    }
  }

  const LoraRowLists& lists_;
  const int first_part_;
  const int32_t first_column_;
  const int32_t columns_;
  int32_t tile_;
  const int32_t last_tile_;
  int2 range_, range1_, range2_;  // of this tile's pairs, the next one's, ...
  LoraRowPair pair_, pair1_;
  uint2 v0_[kParts][2];
  int32_t segment_ = -1;  // whose B is loaded
  bool single_ = false;
  uint2 b_[kParts][4];
};

// This lane's place in rows of 8 values: where it has none it reads another's, and does not write.
struct Lane {
  int32_t column = 0;  // in the part
  int32_t valid = 0;   // columns from there on; <= 0: none
  int32_t load_column = 0;

  __device__ Lane(int32_t first, int32_t columns, bool aligned)
      : column(first + static_cast<int32_t>(threadIdx.x % 4) * 8),
        valid(columns - column),
        load_column(valid > 0 ? column
                    : aligned ? columns - 8
                              : 0) {}
};

__device__ __forceinline__ int32_t row_of(int32_t tile, int h) {
  return tile * kTileRows + static_cast<int32_t>(threadIdx.x % 32 / 4) + 8 * h;
}

// Eight neighbours of a row, 16 bytes at once where kAligned.
template <bool kAligned>
__device__ __forceinline__ uint4 load_eight(const __nv_bfloat16* from, int32_t valid) {
  return load_row_part<kAligned>(from, 0, valid);
}

__device__ __forceinline__ float eight_at(const uint4& raw, int i) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
  return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
}

template <bool kAligned>
__device__ __forceinline__ void store_eight(const float (&x)[8], int32_t valid, __nv_bfloat16* to) {
  if constexpr (kAligned) {
    *reinterpret_cast<uint4*>(to) = make_uint4(bf16_pair(x[0], x[1]), bf16_pair(x[2], x[3]),
                                               bf16_pair(x[4], x[5]), bf16_pair(x[6], x[7]));
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < valid) to[i] = __float2bfloat16_rn(x[i]);
    }
  }
}

}  // namespace lorax::cuda
