// Attention of the rows of one block on AMX tiles, written on a Tiles type as amx_gemm.h is.
//
// K and V lie in the pages as tiles already (kv_layout.h): 16 pairs along head_dim by 16 tokens,
// and 16 pairs of tokens by 16 of head_dim. q and p are rounded to bf16; scores, sums and output
// stay float32. Order, for one row as for many: chunks of 128 tokens counted from position 0, in a
// chunk blocks and steps ascending. A token that a row does not see adds an exact 0, so neither the
// chunk's first and last block nor the neighbours decide a bit. Included after one vec_*.h,
// exp_impl.h and amx_gemm.h.
#pragma once

#include <cstring>

#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

constexpr int32_t kAttentionRows = 2 * kTileRows;
constexpr int32_t kBlock = kTileK;  // tokens of a KV block: one step of p v
constexpr int32_t kChunkBlocks = 4;
constexpr int32_t kChunk = kChunkBlocks * kBlock;

// The scratch of up to 32 rows, [rows, ...] each.
struct AttentionScratch {
  float* scores;    // [kChunk]
  float* out;       // [head_dim up to a panel]
  float* most;      // of the scores so far, in units of ln 2
  float* most_new;  // with this chunk
  float* rescale;   // 2^(most - most_new)
  float* total;
  uint16_t* q;       // [head_dim up to a step]
  uint16_t* p;       // [kChunk]
  uint16_t* k_tail;  // [2 panels, a tile]: the last step of K, where head_dim ends inside it
  int32_t q_stride;
  int32_t out_stride;

  AttentionScratch(float* at, int32_t head_dim) {
    out_stride = (head_dim + kPanel - 1) / kPanel * kPanel;
    q_stride = (head_dim + kTileK - 1) / kTileK * kTileK;
    const auto take = [&](int64_t floats) {
      float* p_taken = at;
      at += floats;
      return p_taken;
    };
    scores = take(kAttentionRows * kChunk);
    out = take(int64_t{kAttentionRows} * out_stride);
    most = take(kAttentionRows);
    most_new = take(kAttentionRows);
    rescale = take(kAttentionRows);
    total = take(kAttentionRows);
    q = reinterpret_cast<uint16_t*>(take(int64_t{kAttentionRows} * q_stride / 2));
    p = reinterpret_cast<uint16_t*>(take(kAttentionRows * kChunk / 2));
    k_tail = reinterpret_cast<uint16_t*>(take(2 * kTileBytes / 4));
  }
};

// s [rows, 32] = q k^T of one block.
template <typename Tiles, bool kTwoRows>
void block_scores(const AttentionArgs& a, const AttentionScratch& t, const uint8_t* k, float* s) {
  const int64_t panel_bytes = int64_t{a.head_dim} * kPanel * 2;
  const int64_t q_bytes = t.q_stride * 2;
  Tiles::template zero<kC00>();
  Tiles::template zero<kC01>();
  if constexpr (kTwoRows) {
    Tiles::template zero<kC10>();
    Tiles::template zero<kC11>();
  }
  for (int32_t j = 0; j < a.head_dim; j += kTileK) {
    const uint8_t* w0 = k + j / kTileK * kTileBytes;
    const uint8_t* w1 = w0 + panel_bytes;
    if (a.head_dim - j < kTileK) {
      // Rows of the tile beyond head_dim stay the zeros that attend_rows put there.
      const auto bytes = static_cast<size_t>(a.head_dim - j) * kPanel * 2;
      auto* tail = reinterpret_cast<uint8_t*>(t.k_tail);
      std::memcpy(tail, w0, bytes);
      std::memcpy(tail + kTileBytes, w1, bytes);
      w0 = tail;
      w1 = tail + kTileBytes;
    }
    Tiles::template load<kX0>(t.q + j, q_bytes);
    Tiles::template load<kW0>(w0, 64);
    Tiles::template load<kW1>(w1, 64);
    Tiles::template multiply<kC00, kX0, kW0>();
    Tiles::template multiply<kC01, kX0, kW1>();
    if constexpr (kTwoRows) {
      Tiles::template load<kX1>(t.q + kTileRows * t.q_stride + j, q_bytes);
      Tiles::template multiply<kC10, kX1, kW0>();
      Tiles::template multiply<kC11, kX1, kW1>();
    }
  }
  Tiles::template store<kC00>(s, kChunk * 4);
  Tiles::template store<kC01>(s + kPanel, kChunk * 4);
  if constexpr (kTwoRows) {
    Tiles::template store<kC10>(s + kTileRows * kChunk, kChunk * 4);
    Tiles::template store<kC11>(s + kTileRows * kChunk + kPanel, kChunk * 4);
  }
}

// out [rows, one or two panels from column] += p v over the chunk's blocks.
template <typename Tiles, bool kTwoRows, bool kTwoPanels>
void chunk_values(const AttentionScratch& t, const uint8_t* const* v, int32_t blocks,
                  int32_t column) {
  float* o = t.out + column;
  float* below = o + kTileRows * t.out_stride;
  const int64_t o_bytes = t.out_stride * 4;
  Tiles::template load<kC00>(o, o_bytes);
  if constexpr (kTwoPanels) Tiles::template load<kC01>(o + kPanel, o_bytes);
  if constexpr (kTwoRows) Tiles::template load<kC10>(below, o_bytes);
  if constexpr (kTwoRows && kTwoPanels) Tiles::template load<kC11>(below + kPanel, o_bytes);
  for (int32_t b = 0; b < blocks; ++b) {
    const uint8_t* w = v[b] + column / kPanel * kTileBytes;
    Tiles::template load<kX0>(t.p + b * kBlock, kChunk * 2);
    Tiles::template load<kW0>(w, 64);
    Tiles::template multiply<kC00, kX0, kW0>();
    if constexpr (kTwoPanels) {
      Tiles::template load<kW1>(w + kTileBytes, 64);
      Tiles::template multiply<kC01, kX0, kW1>();
    }
    if constexpr (kTwoRows) {
      Tiles::template load<kX1>(t.p + kTileRows * kChunk + b * kBlock, kChunk * 2);
      Tiles::template multiply<kC10, kX1, kW0>();
      if constexpr (kTwoPanels) Tiles::template multiply<kC11, kX1, kW1>();
    }
  }
  Tiles::template store<kC00>(o, o_bytes);
  if constexpr (kTwoPanels) Tiles::template store<kC01>(o + kPanel, o_bytes);
  if constexpr (kTwoRows) Tiles::template store<kC10>(below, o_bytes);
  if constexpr (kTwoRows && kTwoPanels) Tiles::template store<kC11>(below + kPanel, o_bytes);
}

template <typename Tiles, bool kTwoRows>
void chunk_values(const AttentionScratch& t, const uint8_t* const* v, int32_t blocks) {
  int32_t column = 0;
  for (; column + 2 * kPanel <= t.out_stride; column += 2 * kPanel) {
    chunk_values<Tiles, kTwoRows, true>(t, v, blocks, column);
  }
  if (column < t.out_stride) chunk_values<Tiles, kTwoRows, false>(t, v, blocks, column);
}

// -inf for the tokens [0, tokens) of the chunk that the row at `position` does not see.
inline void mask_scores(float* s, int32_t tokens, int32_t position, int32_t window,
                        int32_t chunk_begin) {
  const int32_t end = position + 1 - chunk_begin;
  for (int32_t i = end < 0 ? 0 : end; i < tokens; ++i) s[i] = -__builtin_inff();
  if (window <= 0) return;
  const int32_t begin = end - window;
  for (int32_t i = 0; i < begin && i < tokens; ++i) s[i] = -__builtin_inff();
}

// Online softmax of one chunk: m' = max(m, max s), a = 2^(m - m'), p = 2^(s - m'),
// l = a l + sum p, o = a o. m starts at the least float, not at -inf: a row that has seen nothing
// yet then has a = 1 and p = 0 with no case of its own.
template <typename Tiles>
void chunk_softmax(const AttentionScratch& t, int32_t rows, int32_t tokens) {
  for (int32_t r = 0; r < rows; ++r) {
    const float* s = t.scores + int64_t{r} * kChunk;
    Vec most = Vec::load(s);
    for (int32_t i = Vec::kWidth; i < tokens; i += Vec::kWidth) {
      most = Vec::max(most, Vec::load(s + i));
    }
    const float largest = most.largest();
    t.most_new[r] = t.most[r] > largest ? t.most[r] : largest;
  }
  for (int32_t r = 0; r < kAttentionRows; r += Vec::kWidth) {
    const Vec most = Vec::load(t.most_new + r);
    exp2(Vec::load(t.most + r) - most).store(t.rescale + r);
    most.store(t.most + r);
  }
  for (int32_t r = 0; r < rows; ++r) {
    const float* s = t.scores + int64_t{r} * kChunk;
    uint16_t* p = t.p + int64_t{r} * kChunk;
    const Vec shift = Vec::set(t.most[r]);
    Vec total = Vec::zero();
    for (int32_t i = 0; i < tokens; i += Vec::kWidth) {
      const Vec e = exp2(Vec::load(s + i) - shift);
      Tiles::store_bf16(e, p + i);
      total = total + e;
    }
    t.total[r] = t.total[r] * t.rescale[r] + total.sum();
    if (t.rescale[r] == 1.0f) continue;
    const Vec rescale = Vec::set(t.rescale[r]);
    float* o = t.out + int64_t{r} * t.out_stride;
    for (int32_t d = 0; d < t.out_stride; d += Vec::kWidth) {
      (Vec::load(o + d) * rescale).store(o + d);
    }
  }
}

// Rows [row, row + rows) of the block's, rows <= 32; row = head * num_positions + position.
template <typename Tiles, bool kTwoRows>
void attend_rows(const AttentionArgs& a, int32_t row, int32_t rows) {
  const AttentionScratch t(a.scratch, a.head_dim);
  Tiles::configure(kTwoRows ? kTileRows : rows, kTwoRows ? rows - kTileRows : 1);
  const auto head_of = [&](int32_t r) { return (row + r) / a.num_positions; };
  const auto position_of = [&](int32_t r) { return (row + r) % a.num_positions; };

  // The logarithm's base goes into q: p = 2^(scale log2(e) q k^T - m).
  const Vec scale = Vec::set(a.scale * 1.44269504f);
  for (int32_t r = 0; r < rows; ++r) {
    const float* from = a.q + position_of(r) * a.q_stride + head_of(r) * a.head_dim;
    uint16_t* to = t.q + int64_t{r} * t.q_stride;
    for (int32_t d = 0; d < t.q_stride; d += Vec::kWidth) {
      const int32_t left = a.head_dim - d;
      float edge[Vec::kWidth] = {};
      for (int32_t i = 0; left < Vec::kWidth && i < left; ++i) edge[i] = from[d + i];
      Tiles::store_bf16(Vec::load(left < Vec::kWidth ? edge : from + d) * scale, to + d);
    }
  }
  if (a.head_dim % kTileK != 0) std::memset(t.k_tail, 0, 2 * kTileBytes);
  for (int32_t i = 0; i < kAttentionRows * t.out_stride; ++i) t.out[i] = 0.0f;
  for (int32_t r = 0; r < kAttentionRows; ++r) {
    t.most[r] = t.most_new[r] = -__FLT_MAX__;
    t.total[r] = 0.0f;
  }

  const int32_t last = a.first_position / kBlock;  // all rows end in this block
  int32_t block = 0;
  if (a.window > 0 && a.first_position - a.window + 1 > 0) {
    block = (a.first_position - a.window + 1) / kBlock;
  }
  while (block <= last) {
    const int32_t chunk_end = (block / kChunkBlocks + 1) * kChunkBlocks;
    const int32_t end = chunk_end < last + 1 ? chunk_end : last + 1;
    const int32_t blocks = end - block;
    const uint8_t* v[kChunkBlocks];
    for (int32_t b = 0; b < blocks; ++b) {
      const uint8_t* page = a.arena + int64_t{a.block_table[block + b]} * a.page_bytes;
      block_scores<Tiles, kTwoRows>(a, t, page + a.k_offset, t.scores + b * kBlock);
      v[b] = page + a.v_offset;
      // Few rows wait for memory: ask for V now, it is needed once the softmax is done.
      if constexpr (!kTwoRows) {
        for (int32_t d = 0; d < t.out_stride; d += kPanel) {
          Tiles::prefetch(v[b] + d / kPanel * kTileBytes);
        }
      }
    }
    if constexpr (!kTwoRows) {
      if (end <= last) {
        const uint8_t* k = a.arena + int64_t{a.block_table[end]} * a.page_bytes + a.k_offset;
        for (int32_t d = 0; d < a.head_dim; d += kPanel)
          Tiles::prefetch(k + d / kPanel * kTileBytes);
      }
    }
    if (a.window > 0 || end == last + 1) {
      for (int32_t r = 0; r < rows; ++r) {
        mask_scores(t.scores + int64_t{r} * kChunk, blocks * kBlock,
                    a.first_position + position_of(r), a.window, block * kBlock);
      }
    }
    chunk_softmax<Tiles>(t, rows, blocks * kBlock);
    chunk_values<Tiles, kTwoRows>(t, v, blocks);
    block = end;
  }

  for (int32_t r = 0; r < rows; ++r) {
    const float* from = t.out + int64_t{r} * t.out_stride;
    float* to = a.out + position_of(r) * a.out_stride + head_of(r) * a.head_dim;
    for (int32_t d = 0; d < a.head_dim; ++d) to[d] = from[d] / t.total[r];
  }
}

// out = softmax(scale q k^T + mask) v
template <typename Tiles>
void amx_attention_on(const AttentionArgs& a) {
  const int32_t rows = a.num_positions * a.num_heads;
  for (int32_t row = 0; row < rows; row += kAttentionRows) {
    const int32_t count = rows - row < kAttentionRows ? rows - row : kAttentionRows;
    if (count > kTileRows) {
      attend_rows<Tiles, true>(a, row, count);
    } else {
      attend_rows<Tiles, false>(a, row, count);
    }
  }
  Tiles::release();
}

}  // namespace
}  // namespace lorax::cpu
