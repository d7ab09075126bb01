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

// 32 columns of one part of a site.
struct Strip {
  int part = 0;
  int32_t first = 0;    // in the part
  int32_t columns = 0;  // of the part
};

// Strips are numbered part by part.
__host__ __device__ inline int32_t num_strips(const LoraRowSite& site) {
  int32_t out = 0;
  for (int p = 0; p < site.num_parts; ++p) {
    out += (site.columns[p] + kStripColumns - 1) / kStripColumns;
  }
  return out;
}

__device__ __forceinline__ Strip find_strip(const LoraRowSite& site, int32_t strip) {
  Strip out;
#pragma unroll
  for (int p = 0; p < LoraSiteItems::kMaxParts; ++p) {
    if (p >= site.num_parts) continue;
    const int32_t strips = (site.columns[p] + kStripColumns - 1) / kStripColumns;
    if (strip >= 0 && strip < strips) out = {p, strip * kStripColumns, site.columns[p]};
    strip -= strips;
  }
  return out;
}

// Adds deltas of one strip to accumulators, row tile after row tile. B of the last segment met
// stays in registers while its neighbours follow.
class StripDelta {
 public:
  __device__ __forceinline__ StripDelta(const LoraRowLists& lists, const LoraRowSite& site,
                                        const StepArrays& step, int part, int32_t first_column,
                                        int32_t columns)
      : lists_(lists), step_(step), layer_(site.layer), module_(site.modules[part]), part_(part) {
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int32_t tile = first_column / 16 + g / 4;
    // Column n of fragment j is column 8 (g / 2) + 2 j + g % 2 of the strip.
    b_offset_ = int64_t{tile} * 512 + (g % 2 * 4 + lane % 4) * 16;
    in_range_ = tile * 16 < columns;
    upper_ = g / 2 % 2 == 1;
  }

  // delta[j][i]: with h = i / 2, row g + 8 h, column 8 t + 2 j + i % 2. Rows [first_row,
  // first_row + kRows) of the tile at row 16 * tile become rows 0 .. kRows - 1: 16, or 8 (the upper
  // half of delta then stays as it is).
  template <int kRows>
  __device__ __forceinline__ void add(int32_t tile, int first_row, float (&delta)[4][4]) {
    const int32_t end = lists_.pair_begin[tile + 1];
    for (int32_t i = lists_.pair_begin[tile]; i < end; ++i) {
      const LoraRowPair pair = lists_.pairs[i];
      if constexpr (kRows == 8) {
        if ((pair.mask >> first_row & 0xffu) == 0) continue;
      }
      if (pair.segment != segment_) find_segment(pair.segment);
      const int g = threadIdx.x % 32 / 4;
      const __nv_bfloat16* rows[2];
#pragma unroll
      for (int h = 0; h < kRows / 8; ++h) {
        const int row = first_row + g + 8 * h;
        const int32_t at = pair.first - rows_begin_ + __popc(pair.mask & ((1u << row) - 1));
        rows[h] =
            (pair.mask >> row & 1u) != 0 ? v_ + int64_t{at} * 16 + threadIdx.x % 4 * 4 : nullptr;
      }
      for (int32_t group = 0; group < entry_.num_groups; ++group) {
        if (group != group_) load_b(group);
        uint2 a[2] = {};
#pragma unroll
        for (int h = 0; h < kRows / 8; ++h) {
          if (rows[h] != nullptr) {
            a[h] = *reinterpret_cast<const uint2*>(rows[h] + group * num_rows_ * 16);
          }
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          lora_mma(delta[j], a[0].x, a[1].x, a[0].y, a[1].y, b_[j].x, b_[j].y);
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void find_segment(int32_t s) {
    const DeviceSegment segment = step_.segments[s];
    segment_ = s;
    group_ = -1;
    entry_ = find_entry(segment.adapter, layer_, module_);
    rows_begin_ = segment.rows_begin;
    num_rows_ = segment.rows_end - segment.rows_begin;
    v_ = lists_.v + (part_ * lists_.capacity.row_groups + lists_.v_begin[s]) * 16;
  }

  __device__ __forceinline__ void load_b(int32_t group) {
    group_ = group;
    const uint8_t* from = entry_.groups[group].b + b_offset_;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      b_[j] = make_uint2(0, 0);
      if (in_range_) {
        const uint4 both = *reinterpret_cast<const uint4*>(from + j * 128);
        b_[j] = upper_ ? make_uint2(both.y, both.w) : make_uint2(both.x, both.z);
      }
    }
  }

  const LoraRowLists& lists_;
  const StepArrays& step_;
  int32_t layer_;
  int32_t module_;
  int part_;
  int64_t b_offset_;
  bool in_range_;
  bool upper_;
  int32_t segment_ = -1;  // found last
  int32_t group_ = -1;    // whose B is loaded
  AdapterEntry entry_;
  int32_t rows_begin_ = 0;
  int64_t num_rows_ = 0;
  const __nv_bfloat16* v_ = nullptr;
  uint2 b_[4];
};

// Eight neighbours of a row as float32, and back; kAligned: 16 bytes at once.
template <bool kAligned>
__device__ __forceinline__ void load_eight(const __nv_bfloat16* from, int32_t valid,
                                           float (&out)[8]) {
  if constexpr (kAligned) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      out[i] = __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xffff0000u);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = i < valid ? __bfloat162float(from[i]) : 0.0f;
  }
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
