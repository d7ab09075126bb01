// LoRA's shrink and expansion on AMX tiles, written on a Tiles type as amx_gemm.h is.
//
// A slice of an adapter is small and not in tiles: A lies row by row, B in panels of its exact
// rank. Each task lays its piece out in tiles first, with zeros up to their edges, and runs
// amx_gemm on it. x and v are rounded to bf16; sums stay float32. Included after one vec_*.h and
// amx_gemm.h.
#pragma once

#include <cstring>

#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

// w [steps, a tile] = rows [0, ranks) of A, columns [begin, begin + d) of steps of 32 columns.
inline void pack_a(const AmxShrinkArgs& s, int32_t begin, int32_t steps, uint8_t* w) {
  for (int32_t step = 0; step < steps; ++step, w += kTileBytes) {
    const int32_t first = step * kTileK - begin;  // column of A at the tile's left edge
    if (s.ranks == kPanel && first >= 0 && first + kTileK <= s.d) {
      Vec::transpose_pairs(s.a + first * 2, s.a_bytes, w);
      continue;
    }
    std::memset(w, 0, kTileBytes);
    const int32_t from = first < 0 ? -first : 0;
    const int32_t to = s.d - first < kTileK ? s.d - first : kTileK;
    for (int32_t r = 0; r < s.ranks; ++r) {
      for (int32_t j = from; j < to; ++j) {
        std::memcpy(w + j / 2 * 64 + r * 4 + j % 2 * 2, s.a + r * s.a_bytes + (first + j) * 2, 2);
      }
    }
  }
}

// v[i][r] (+)= sum_j x[rows[i]][x_begin + j] a[r][j]
template <typename Tiles>
void amx_shrink_on(const AmxShrinkArgs& s) {
  const int32_t begin = s.x_begin % kTileK;
  const int32_t steps = (begin + s.d + kTileK - 1) / kTileK;
  pack_a(s, begin, steps, s.scratch);
  for (int32_t i = 0; i < s.num_rows;) {
    int32_t end = i + 1;  // of the rows that follow each other
    while (end < s.num_rows && s.rows[end] == s.rows[end - 1] + 1) ++end;
    amx_gemm_on<Tiles>({s.x + s.rows[i] * s.x_stride + s.x_begin - begin, s.x_stride, s.scratch,
                        steps * kTileBytes, s.v + i * s.v_stride, s.v_stride, end - i, s.ranks,
                        steps * kTileK, s.accumulate});
    i = end;
  }
}

// y [rows, panels * 16] (+)= v B^T
template <typename Tiles>
void amx_expand_on(const AmxExpandArgs& e) {
  const int32_t steps = (e.ranks + kTileK - 1) / kTileK;
  const int64_t panel_bytes = (e.ranks + 1) / 2 * int64_t{kPanel} * 4;
  const uint8_t* w = e.b;
  uint8_t* at = e.scratch;
  if (e.ranks % kTileK != 0) {
    for (int32_t p = 0; p < e.panels; ++p, at += steps * kTileBytes) {
      std::memcpy(at, e.b + p * panel_bytes, static_cast<size_t>(panel_bytes));
      std::memset(at + panel_bytes, 0, static_cast<size_t>(steps * kTileBytes - panel_bytes));
      for (int i = 0; e.ranks % 2 != 0 && i < kPanel; ++i) {  // the odd rank's missing partner
        std::memset(at + panel_bytes - 64 + i * 4 + 2, 0, 2);
      }
    }
    w = e.scratch;
  }
  auto* v = reinterpret_cast<uint16_t*>(at);  // [rows, steps * 32]
  const int32_t stride = steps * kTileK;
  for (int32_t r = 0; r < e.rows; ++r) {
    const float* from = e.v + r * e.v_stride;
    for (int32_t j = 0; j < stride; j += Vec::kWidth) {
      const int32_t left = e.ranks - j;
      float edge[Vec::kWidth] = {};
      for (int32_t i = 0; left < Vec::kWidth && i < left; ++i) edge[i] = from[j + i];
      Tiles::store_bf16(Vec::load(left < Vec::kWidth ? edge : from + j), v + r * stride + j);
    }
  }
  amx_gemm_on<Tiles>({v, stride, w, steps * kTileBytes, e.y, e.y_stride, e.rows, e.panels * kPanel,
                      stride, e.accumulate});
}

}  // namespace
}  // namespace lorax::cpu
