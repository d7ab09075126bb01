// Rotary embedding of q and k, and the store of k and v into their sequences' pages.
//
// Called once a layer, between the fused qkv linear and attention (backend.h, rope_and_store_kv).
// Rows at and past counts->num_rows are padding: nothing of theirs is written.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/kv_pages.h"
#include "cuda/split_sum.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

struct RopeKv {
  // In place: q. What k and v leave in the pages is not written back. With `split` the linear's
  // result is there instead, and only q is written here.
  __nv_bfloat16* qkv = nullptr;  // [rows, (num_heads + 2 num_kv_heads) * head_dim]
  SplitSum split;
  int32_t rows = 0;  // the grid's; counts->num_rows of them are real
  int32_t num_heads = 0;
  KvPages pages;
  const float* inv_freq = nullptr;  // [head_dim / 2]
  float magnitude = 1.0f;           // multiplies cos and sin
  const float* q_gain = nullptr;    // [head_dim]; null: no norm
  const float* k_gain = nullptr;    // [head_dim]; null: no norm
  float eps = 0.0f;
};

// Per row at position p, per head x of q and k, with gain: x = x / sqrt(mean(x^2) + eps) * gain;
//   y[i]        = x[i] cos(p f_i) - x[i + half] sin(p f_i)        i < half = head_dim / 2
//   y[i + half] = x[i + half] cos(p f_i) + x[i] sin(p f_i)        f = inv_freq, p f_i in float32
void rope_and_store_kv(const RopeKv& args, const StepArrays& step, cudaStream_t stream);

}  // namespace lorax::cuda
