// B v for 16 rows x 32 columns of y in the registers of one warp: the core of lora_expand and of
// the element-wise kernels that apply the delta in passing.
//
// Columns are permuted within the 32 so that lane (g, t) = (lane / 4, lane % 4) holds eight
// neighbours, columns 8 t .. 8 t + 7, of rows g and g + 8: it reads and writes y in 16 bytes.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "cuda/lora_lookup.cuh"
#include "cuda/lora_mma.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {

constexpr int kStripColumns = 32;
constexpr int kTileRows = 16;

// B of one rank group for the 32 columns from first_column on of a part with `columns`: fragment j,
// column n of the mma is column 8 (n / 2) + 2 j + n % 2.
__device__ __forceinline__ void load_b(const uint8_t* b, int32_t first_column, int32_t columns,
                                       uint2 (&out)[4]) {
  const int g = threadIdx.x % 32 / 4;
  const int32_t tile = first_column / 16 + g / 4;
  const uint8_t* from = b + int64_t{tile} * 512 + (g % 2 * 4 + threadIdx.x % 4) * 16;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    uint4 both = make_uint4(0, 0, 0, 0);
    if (tile * 16 < columns) both = *reinterpret_cast<const uint4*>(from + j * 128);
    out[j] = g / 2 % 2 == 1 ? make_uint2(both.y, both.w) : make_uint2(both.x, both.z);
  }
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

// Walks down the row tiles of one strip of 32 columns of a part. What a tile needs is asked for
// while the tiles before it are computed: its pairs' place three tiles ahead, its first pair two,
// that pair's v one. B of the segment met last stays in registers.
class StripWalk {
 public:
  __device__ __forceinline__ StripWalk(const LoraRowLists& lists, const LoraRowSite& site,
                                       const StepArrays& step, int part, int32_t first_column,
                                       int32_t columns, int32_t first_tile, int32_t num_tiles)
      : lists_(lists),
        step_(step),
        layer_(site.layer),
        module_(site.modules[part]),
        v_(lists.v + part * lists.capacity.row_groups * 16),
        first_column_(first_column),
        columns_(columns),
        tile_(first_tile),
        num_tiles_(num_tiles) {
    load_range(first_tile, begin_, end_);
    load_range(first_tile + 1, begin1_, end1_);
    load_range(first_tile + 2, begin2_, end2_);
    pair_ = load_pair(begin_, end_);
    pair1_ = load_pair(begin1_, end1_);
    load_fragments(pair_, v0_);
  }

  __device__ __forceinline__ bool has_delta() const { return begin_ < end_; }

  // Adds the current tile's delta and goes to the next.
  __device__ __forceinline__ void add_and_advance(float (&delta)[4][4]) {
    uint2 v1[2];
    load_fragments(pair1_, v1);
    const LoraRowPair pair2 = load_pair(begin2_, end2_);
    int32_t begin3, end3;
    load_range(tile_ + 3, begin3, end3);

    if (begin_ < end_) {
      add_pair(pair_, true, delta);
      for (int32_t i = begin_ + 1; i < end_; ++i) add_pair(lists_.pairs[i], false, delta);
    }
    ++tile_;
    begin_ = begin1_, end_ = end1_;
    begin1_ = begin2_, end1_ = end2_;
    begin2_ = begin3, end2_ = end3;
    pair_ = pair1_;
    pair1_ = pair2;
    v0_[0] = v1[0], v0_[1] = v1[1];
  }

 private:
  __device__ __forceinline__ void load_range(int32_t tile, int32_t& begin, int32_t& end) const {
    begin = end = 0;
    if (tile < num_tiles_) {
      begin = lists_.pair_begin[tile];
      end = lists_.pair_begin[tile + 1];
    }
  }
  __device__ __forceinline__ LoraRowPair load_pair(int32_t begin, int32_t end) const {
    LoraRowPair out;
    if (begin < end) {
      const int4 raw = *reinterpret_cast<const int4*>(lists_.pairs + begin);
      out = {raw.x, static_cast<uint32_t>(raw.y), raw.z, raw.w};
    }
    return out;
  }
  __device__ __forceinline__ void load_fragments(const LoraRowPair& pair, uint2 (&out)[2]) const {
    const int g = threadIdx.x % 32 / 4;
    out[0] = load_v(v_, pair, 0, g);
    out[1] = load_v(v_, pair, 0, g + 8);
  }
  // `loaded`: v0_ is this pair's v of group 0.
  __device__ __forceinline__ void add_pair(const LoraRowPair& pair, bool loaded,
                                           float (&delta)[4][4]) {
    if (pair.segment != segment_) {
      segment_ = pair.segment;
      group_ = -1;
      entry_ = find_entry(step_.segments[segment_].adapter, layer_, module_);
    }
    const int g = threadIdx.x % 32 / 4;
    for (int32_t group = 0; group < entry_.num_groups; ++group) {
      if (group != group_) {
        group_ = group;
        load_b(entry_.groups[group].b, first_column_, columns_, b_);
      }
      if (loaded && group == 0) {
        add_delta(v0_[0], v0_[1], b_, delta);
      } else {
        add_delta(load_v(v_, pair, group, g), load_v(v_, pair, group, g + 8), b_, delta);
      }
    }
  }

  const LoraRowLists& lists_;
  const StepArrays& step_;
  const int32_t layer_;
  const int32_t module_;
  const __nv_bfloat16* const v_;  // of the part
  const int32_t first_column_;
  const int32_t columns_;
  int32_t tile_;
  const int32_t num_tiles_;
  int32_t begin_, end_, begin1_, end1_, begin2_, end2_;  // pairs of this tile, the next, ...
  LoraRowPair pair_, pair1_;
  uint2 v0_[2];
  int32_t segment_ = -1;  // looked up last
  int32_t group_ = -1;    // whose B is loaded
  AdapterEntry entry_;
  uint2 b_[4];
};

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
