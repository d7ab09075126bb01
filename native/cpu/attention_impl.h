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

// To bf16, to nearest, ties to even; NaN stays NaN.
inline uint16_t round_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Where column n, row j of the k axis lies in panels of k rows, in elements.
template <typename Element>
constexpr int64_t element_at(int64_t n, int64_t j, int64_t k) {
  const int64_t in_panel = sizeof(Element) == 2 ? (j / 2) * 2 * kPanel + (n % kPanel) * 2 + j % 2
                                                : j * kPanel + n % kPanel;
  return (n / kPanel) * k * kPanel + in_panel;
}

inline void convert(float x, float& to) { to = x; }
inline void convert(float x, uint16_t& to) { to = round_bf16(x); }

template <typename Element>
void store_k(const float* k, int32_t head_dim, int32_t slot, uint8_t* dst) {
  Element* to = reinterpret_cast<Element*>(dst);
  for (int32_t j = 0; j < head_dim; ++j) {
    convert(k[j], to[element_at<Element>(slot, j, head_dim)]);
  }
}

template <typename Element>
void store_v(const float* v, int32_t head_dim, int32_t block_tokens, int32_t slot, uint8_t* dst) {
  Element* to = reinterpret_cast<Element*>(dst);
  for (int32_t n = 0; n < head_dim; ++n) {
    convert(v[n], to[element_at<Element>(n, slot, block_tokens)]);
  }
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
