// The inner loops, one table per instruction set and storage type.
//
// A matrix W [n, k] of y = x W^T is stored in panels of 16 columns of y: [n/16][k/2][16][2] bf16,
// or [n/16][k][16] float32. One loop, `gemm`, serves linears, the expansion of LoRA, q k^T and p v.
// Its order: acc = fma(w[n][j], x[j], acc), j ascending, acc starting at 0 or at y. Nothing else
// may decide an element's order: not the number of rows, panels, or the tile an element falls in.
// Only raw pointers here and in what includes it: these headers are compiled once per instruction
// set, and a shared inline function would leak one set's code into another.
#pragma once

#include <cstdint>

namespace lorax::cpu {

inline constexpr int32_t kPanel = 16;  // columns of y per panel

struct GemmArgs {
  const float* x;  // [rows, k], rows x_stride apart
  int64_t x_stride;
  const uint8_t* w;  // [panels], panel_bytes apart
  int64_t panel_bytes;
  float* y;  // [rows, columns], rows y_stride apart
  int64_t y_stride;
  int32_t rows;
  int32_t columns;  // the last panel may be partly beyond: not written
  int32_t k;
  bool accumulate;  // y += instead of y =
  // y += row_scale[row] * scale * the product, instead of either; y's rows are then y_rows[row].
  const int32_t* y_rows = nullptr;  // [rows]
  const float* row_scale = nullptr;
  float scale = 1.0f;
  int32_t skip = 0;  // columns of the first panel that are not written
};

struct ShrinkArgs {
  const float* x;  // [*, d], the rows named by `rows`
  int64_t x_stride;
  const int32_t* rows;  // [num_rows]
  int32_t num_rows;
  const uint8_t* a;  // [ranks, d] row-major
  int64_t a_bytes;   // between its rows
  int32_t ranks;
  int32_t d;
  float* v;  // [num_rows, ranks], rows v_stride apart
  int64_t v_stride;
  bool accumulate;
};

// The rows of one sequence whose positions lie in one KV block, for the query heads of one kv head.
struct AttentionArgs {
  const float* q;  // [num_positions, num_heads, head_dim], positions q_stride apart
  int64_t q_stride;
  int32_t num_positions;
  int32_t first_position;
  int32_t num_heads;
  int32_t head_dim;
  float scale;
  int32_t window;  // 0 = none
  const uint8_t* arena;
  int64_t page_bytes;
  int64_t k_offset;  // of this layer and kv head in a page
  int64_t v_offset;
  const int32_t* block_table;
  int32_t block_tokens;
  float* out;  // [num_positions, num_heads, head_dim]
  int64_t out_stride;
  float* scratch;  // attention_scratch_floats()
};

struct Kernels {
  void (*gemm)(const GemmArgs& args);
  // v[i][r] (+)= sum_j x[rows[i]][j] a[r][j]
  void (*shrink)(const ShrinkArgs& args);
  // out = softmax(scale q k^T + mask) v
  void (*attention)(const AttentionArgs& args);
  // K of one token: dst[panel(lane)][pair] (see kv_layout.h); V: dst[panel][slot]
  void (*store_k)(const float* k, int32_t head_dim, int32_t slot, uint8_t* dst);
  void (*store_v)(const float* v, int32_t head_dim, int32_t block_tokens, int32_t slot,
                  uint8_t* dst);
  // y[i] += s * d[i]
  void (*add_scaled)(const float* d, float s, int32_t n, float* y);
  // y = x / sqrt(mean(x^2) + eps) * gain; x += delta first where delta is given; y may be x
  void (*rms_norm)(float* x, const float* delta, const float* gain, float eps, int32_t n, float* y);
  // y = silu(gate) * up
  void (*silu_mul)(const float* gate, const float* up, int32_t n, float* y);
  // (x1, x2) = (x1 cos - x2 sin, x2 cos + x1 sin), x1 and x2 the halves of x [2 * half]
  void (*rope)(float* x, const float* cos, const float* sin, int32_t half);
};

constexpr int64_t attention_scratch_floats(int64_t rows, int64_t head_dim, int64_t block_tokens) {
  return rows * (head_dim + block_tokens + (head_dim + 15) / 16 * 16 + 2) + 64;
}

// Tables of one instruction set: for bf16 storage and for float32 storage.
const Kernels& portable_kernels(bool bf16);
const Kernels& avx2_kernels(bool bf16);
const Kernels& avx512_kernels(bool bf16);

// bf16 inputs [rows, k_padded] times bf16 weights on AMX tiles; k_padded a multiple of 32.
struct AmxGemmArgs {
  const uint16_t* x;
  int64_t x_stride;
  const uint8_t* w;
  int64_t panel_bytes;
  float* y;
  int64_t y_stride;
  int32_t rows;
  int32_t columns;
  int32_t k_padded;
  bool accumulate = false;  // y += instead of y =
};

// Kernels::shrink for up to 16 ranks of bf16 A, x rounded to bf16.
struct AmxShrinkArgs {
  const uint16_t* x;  // [*, x_stride], the rows named by `rows`; columns [x_begin, x_begin + d)
  int64_t x_stride;   // a multiple of 32
  int32_t x_begin;
  const int32_t* rows;  // [num_rows]
  int32_t num_rows;
  const uint8_t* a;  // [ranks, d] row-major
  int64_t a_bytes;   // between its rows
  int32_t ranks;
  int32_t d;
  float* v;  // [num_rows, ranks], rows v_stride apart
  int64_t v_stride;
  bool accumulate;
  uint8_t* scratch;  // amx_shrink_scratch_bytes()
};
constexpr int64_t amx_shrink_scratch_bytes(int64_t d) { return (d / 32 + 2) * 1024; }

// y (+)= v B^T for panels of B of an exact rank, v rounded to bf16.
struct AmxExpandArgs {
  const float* v;  // [rows, ranks], rows v_stride apart
  int64_t v_stride;
  int32_t rows;
  int32_t ranks;
  const uint8_t* b;  // [panels, (ranks + 1) / 2, 16, 2]
  int32_t panels;
  float* y;  // [rows, panels * 16], rows y_stride apart
  int64_t y_stride;
  bool accumulate;
  uint8_t* scratch;  // amx_expand_scratch_bytes()
};
constexpr int64_t amx_expand_scratch_bytes(int64_t rows, int64_t panels, int64_t ranks) {
  return (ranks + 31) / 32 * (panels * 1024 + rows * 64);
}

// For up to 32 rows at a time (amx_attention.h): scores, p, out, q, four numbers and the tail of K.
constexpr int64_t amx_attention_scratch_floats(int64_t head_dim) {
  return 32 * (128 + 64 + (head_dim + 15) / 16 * 16 + (head_dim + 31) / 32 * 16 + 4) + 512;
}

struct AmxKernels {
  void (*gemm)(const AmxGemmArgs& args);
  void (*shrink)(const AmxShrinkArgs& args);
  void (*expand)(const AmxExpandArgs& args);
  // Kernels::attention for bf16 KV, q and p rounded to bf16; block_tokens is 32.
  void (*attention)(const AttentionArgs& args);
  // Rounds [n] to bf16, zeros up to n_padded.
  void (*convert)(const float* x, int32_t n, int32_t n_padded, uint16_t* y);
};
const AmxKernels& amx_kernels();

}  // namespace lorax::cpu
