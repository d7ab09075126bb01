// Attention of one tile of rows over paged KV, and the stores that lay K and V out for it.
//
// A page holds, per layer and kv head, K as a matrix W [block_tokens, head_dim] and V as a matrix
// W [head_dim, block_tokens], both in the panels of kernels.h: q k^T and p v are gemm. Included
// after gemm_impl.h and elementwise_impl.h.
#pragma once

#include <cstring>

#include "cpu/kernels.h"

namespace lorax::cpu {
namespace {

// Both matrices have the token as a lane: of a token, bf16 pairs along the k axis lie together, so
// a token's K is stored by pairs, its V by single elements.
template <typename Element>
void store_k(const float* k, int32_t head_dim, int32_t slot, uint8_t* dst) {
  constexpr int kStep = sizeof(Element) == 2 ? 2 : 1;  // rows of the k axis that lie together
  Element* to = reinterpret_cast<Element*>(dst) + int64_t{slot / kPanel} * head_dim * kPanel +
                (slot % kPanel) * kStep;
  over(head_dim, [&](int32_t begin, int32_t count) {
    Element some[Vec::kWidth];
    load_some(k + begin, count).store(some);
    for (int32_t j = 0; j < count; j += kStep) {  // head_dim is even
      std::memcpy(to + int64_t{begin + j} * kPanel, some + j, kStep * sizeof(Element));
    }
  });
}

template <typename Element>
void store_v(const float* v, int32_t head_dim, int32_t block_tokens, int32_t slot, uint8_t* dst) {
  constexpr int kStep = sizeof(Element) == 2 ? 2 : 1;
  Element* to = reinterpret_cast<Element*>(dst) + slot / kStep * kStep * kPanel + slot % kStep;
  over(head_dim, [&](int32_t begin, int32_t count) {
    Element some[Vec::kWidth];
    load_some(v + begin, count).store(some);
    Element* panel = to + int64_t{begin / kPanel} * block_tokens * kPanel + begin % kPanel * kStep;
    for (int32_t n = 0; n < count; ++n) panel[n * kStep] = some[n];
  });
}

// Online softmax, per row, blocks ascending:
//   m' = max(m, max s), a = e^(m - m'), p = e^(s - m'), l = a l + sum p, o = a o + p v
// A masked s gives p = 0; a block masked whole gives a = 1 and p = 0, or leaves m = -inf, o = 0.
template <typename Element>
void attention(const AttentionArgs& a) {
  constexpr float kMasked = -__builtin_inff();
  const int32_t rows = a.num_positions * a.num_heads;  // row = head * num_positions + position
  const int32_t padded = (a.head_dim + kPanel - 1) / kPanel * kPanel;
  const int32_t bt = a.block_tokens;
  float* q = a.scratch;                       // [rows, head_dim]
  float* s = q + int64_t{rows} * a.head_dim;  // [rows, block_tokens]
  float* o = s + int64_t{rows} * bt;          // [rows, padded]
  float* m = o + int64_t{rows} * padded;      // [rows]
  float* l = m + rows;                        // [rows]

  for (int32_t h = 0; h < a.num_heads; ++h) {
    for (int32_t i = 0; i < a.num_positions; ++i) {
      const float* from = a.q + i * a.q_stride + h * a.head_dim;
      float* to = q + int64_t{h * a.num_positions + i} * a.head_dim;
      for (int32_t d = 0; d < a.head_dim; ++d) to[d] = from[d] * a.scale;
    }
  }
  for (int64_t i = 0; i < int64_t{rows} * padded; ++i) o[i] = 0.0f;
  for (int32_t r = 0; r < rows; ++r) {
    m[r] = kMasked;
    l[r] = 0.0f;
  }

  const int32_t last = a.first_position / bt;  // all rows end in this block
  int32_t first = 0;
  if (a.window > 0 && a.first_position - a.window + 1 > 0) {
    first = (a.first_position - a.window + 1) / bt;
  }
  for (int32_t b = first; b <= last; ++b) {
    const uint8_t* page = a.arena + int64_t{a.block_table[b]} * a.page_bytes;
    gemm<Element>({q, a.head_dim, page + a.k_offset,
                   int64_t{a.head_dim} * kPanel * int64_t{sizeof(Element)}, s, bt, rows, bt,
                   a.head_dim, false});
    const int32_t block_begin = b * bt;
    for (int32_t r = 0; r < rows; ++r) {
      const int32_t position = a.first_position + r % a.num_positions;
      float* sr = s + int64_t{r} * bt;
      const int32_t end = position + 1 - block_begin;  // tokens [begin, end) are visible
      int32_t begin = a.window > 0 ? position - a.window + 1 - block_begin : 0;
      if (begin < 0) begin = 0;
      for (int32_t t = 0; t < begin && t < bt; ++t) sr[t] = kMasked;
      for (int32_t t = end < 0 ? 0 : end; t < bt; ++t) sr[t] = kMasked;

      Vec most = Vec::load(sr);
      for (int32_t t = Vec::kWidth; t < bt; t += Vec::kWidth) {
        most = Vec::max(most, Vec::load(sr + t));
      }
      const float block_max = most.largest();
      const float m_new = m[r] > block_max ? m[r] : block_max;
      float* orow = o + int64_t{r} * padded;
      if (m_new == kMasked) {  // nothing visible yet
        for (int32_t t = 0; t < bt; ++t) sr[t] = 0.0f;
        continue;
      }
      const Vec shift = Vec::set(m_new);
      float alpha_lanes[Vec::kWidth];
      exp(Vec::set(m[r]) - shift).store(alpha_lanes);
      const float alpha = alpha_lanes[0];
      Vec total = Vec::zero();
      for (int32_t t = 0; t < bt; t += Vec::kWidth) {
        const Vec p = exp(Vec::load(sr + t) - shift);
        p.store(sr + t);
        total = total + p;
      }
      l[r] = l[r] * alpha + total.sum();
      m[r] = m_new;
      for (int32_t d = 0; d < padded; d += Vec::kWidth) {
        (Vec::load(orow + d) * Vec::set(alpha)).store(orow + d);
      }
    }
    gemm<Element>({s, bt, page + a.v_offset, int64_t{bt} * kPanel * int64_t{sizeof(Element)}, o,
                   padded, rows, padded, bt, true});
  }

  for (int32_t h = 0; h < a.num_heads; ++h) {
    for (int32_t i = 0; i < a.num_positions; ++i) {
      const int32_t r = h * a.num_positions + i;
      const float* from = o + int64_t{r} * padded;
      float* to = a.out + i * a.out_stride + h * a.head_dim;
      for (int32_t d = 0; d < a.head_dim; ++d) to[d] = from[d] / l[r];
    }
  }
}

// The table of this instruction set.
template <typename Element>
constexpr Kernels make_kernels() {
  return {gemm<Element>,    shrink<Element>,  attention<Element>,
          store_k<Element>, store_v<Element>, add_scaled,
          rms_norm,         silu_mul,         rope};
}

}  // namespace
}  // namespace lorax::cpu
