// See amx_check.h.
#include "cpu/amx_check.h"

#include <cmath>
#include <vector>

#include "cpu/kv_layout.h"
#include "cpu/packed_weight.h"

namespace lorax::cpu {

bool multiplies_exactly(const AmxKernels& kernels) {
  constexpr int32_t kColumns = 37;
  constexpr int32_t kK = 64;
  constexpr int32_t kPanels = (kColumns + kPanel - 1) / kPanel;
  const auto x_at = [](int32_t r, int32_t j) { return (r * 7 + j * 3) % 11 - 5; };
  const auto w_at = [](int32_t c, int32_t j) { return (c * 5 + j * 2) % 13 - 6; };
  std::vector<uint16_t> w(size_t{kPanels} * kK * kPanel);  // [panels][k / 2][16][2]
  for (int32_t c = 0; c < kColumns; ++c) {
    for (int32_t j = 0; j < kK; ++j) {
      w[static_cast<size_t>(((c / kPanel * kK / 2 + j / 2) * kPanel + c % kPanel) * 2 + j % 2)] =
          to_bf16(static_cast<float>(w_at(c, j)));
    }
  }
  for (const int32_t rows : {1, 16, 33}) {
    std::vector<uint16_t> x(static_cast<size_t>(rows * kK));
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t j = 0; j < kK; ++j) {
        x[static_cast<size_t>(r * kK + j)] = to_bf16(static_cast<float>(x_at(r, j)));
      }
    }
    std::vector<float> y(static_cast<size_t>(rows * kColumns), -1e30f);
    kernels.gemm({x.data(), kK, reinterpret_cast<const uint8_t*>(w.data()), kK * kPanel * 2,
                  y.data(), kColumns, rows, kColumns, kK});
    for (int32_t r = 0; r < rows; ++r) {
      for (int32_t c = 0; c < kColumns; ++c) {
        int32_t want = 0;
        for (int32_t j = 0; j < kK; ++j) want += x_at(r, j) * w_at(c, j);
        if (y[static_cast<size_t>(r * kColumns + c)] != static_cast<float>(want)) return false;
      }
    }
  }
  return true;
}

bool attends_exactly(const AmxKernels& kernels) {
  constexpr int32_t kDim = 80;
  constexpr int32_t kHeads = 3;
  constexpr int32_t kBlocks = 6;
  constexpr int32_t kTokens = kBlocks * kBlockTokens;
  const KvPageLayout layout{{1, 1, kDim}};
  const auto q_at = [](int32_t t, int32_t h, int32_t d) {
    return d % 8 == t % 8 ? (t + h) % 3 - 1 : 0;  // ten products to a score
  };
  const auto k_at = [](int32_t t, int32_t d) { return d % 3 == 0 ? (t * 5 + d) % 3 - 1 : 0; };
  const auto v_at = [](int32_t t, int32_t d) { return (t * 3 + d * 7) % 11 - 5; };

  std::vector<uint16_t> arena(static_cast<size_t>(kBlocks * layout.page_bytes() / 2));
  std::vector<int32_t> table;
  for (int32_t b = 0; b < kBlocks; ++b) table.push_back(kBlocks - 1 - b);
  for (int32_t t = 0; t < kTokens; ++t) {
    uint16_t* page =
        arena.data() + table[static_cast<size_t>(t / kBlockTokens)] * layout.page_bytes() / 2;
    const int32_t slot = t % kBlockTokens;
    uint16_t* k = page + layout.k_offset(0, 0) / 2 + slot / kPanel * kDim * kPanel;
    uint16_t* v = page + layout.v_offset(0, 0) / 2;
    for (int32_t d = 0; d < kDim; ++d) {
      k[(d / 2 * kPanel + slot % kPanel) * 2 + d % 2] = to_bf16(static_cast<float>(k_at(t, d)));
      v[d / kPanel * kBlockTokens * kPanel + (slot / 2 * kPanel + d % kPanel) * 2 + slot % 2] =
          to_bf16(static_cast<float>(v_at(t, d)));
    }
  }

  struct Case {
    int32_t first, count, window;
  };
  for (const Case& c : {Case{0, 1, 0}, {37, 5, 0}, {160, 32, 0}, {190, 1, 0}, {101, 20, 70}}) {
    std::vector<float> q;  // [count, heads, dim]
    for (int32_t t = c.first; t < c.first + c.count; ++t) {
      for (int32_t i = 0; i < kHeads * kDim; ++i) {
        q.push_back(static_cast<float>(q_at(t, i / kDim, i % kDim)));
      }
    }
    std::vector<float> out(q.size(), -1e30f);
    std::vector<float> scratch(static_cast<size_t>(amx_attention_scratch_floats(kDim)), NAN);
    AttentionArgs a{};
    a.q = q.data();
    a.q_stride = a.out_stride = kHeads * kDim;
    a.num_positions = c.count;
    a.first_position = c.first;
    a.num_heads = kHeads;
    a.head_dim = kDim;
    a.scale = 0.693147181f;  // ln 2: a score of n counts 2^n
    a.window = c.window;
    a.arena = reinterpret_cast<const uint8_t*>(arena.data());
    a.page_bytes = layout.page_bytes();
    a.k_offset = layout.k_offset(0, 0);
    a.v_offset = layout.v_offset(0, 0);
    a.block_table = table.data();
    a.block_tokens = kBlockTokens;
    a.out = out.data();
    a.scratch = scratch.data();
    kernels.attention(a);
    for (int32_t i = 0; i < c.count * kHeads; ++i) {
      const int32_t t = c.first + i / kHeads;
      const int32_t begin = c.window > 0 && t >= c.window ? t - c.window + 1 : 0;
      // In units of 2^-m, m the largest score: powers of two cancel.
      float total = 0.0f;
      float sums[kDim] = {};
      for (int32_t u = begin; u <= t; ++u) {
        int32_t score = 0;
        for (int32_t d = 0; d < kDim; ++d) score += q_at(t, i % kHeads, d) * k_at(u, d);
        const float p = std::ldexp(1.0f, score);
        total += p;
        for (int32_t d = 0; d < kDim; ++d) sums[d] += p * static_cast<float>(v_at(u, d));
      }
      for (int32_t d = 0; d < kDim; ++d) {
        if (out[static_cast<size_t>(i * kDim + d)] != sums[d] / total) return false;
      }
    }
  }
  return true;
}

}  // namespace lorax::cpu
