// Attention of decode rows: sequences with one row in the step, over their pages.
//
// Contexts are split, and shared by warps, by what the whole step holds: a sequence's sums have
// another order in another batch, but the same in the same. Graph-capturable: the grid is fixed by
// max_spans, all lengths come from the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/kv_pages.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

struct Attention {
  const __nv_bfloat16* qkv = nullptr;  // [rows, (num_heads + 2 num_kv_heads) * head_dim]
  __nv_bfloat16* out = nullptr;        // [rows, num_heads * head_dim]
  int32_t rows = 0;                    // of the bucket or step
  int32_t max_spans = 0;               // counts->num_spans never exceeds it; <= rows; spans has
                                       // so many entries, if not all mean something
  int32_t num_heads = 0;
  KvPages pages;
  float scale = 0.0f;          // on q k^T
  int32_t sliding_window = 0;  // 0 = all; else position p sees (p - window, p]
  float soft_cap = 0.0f;       // 0 = none; else score = cap * tanh(scale q k^T / cap)
  int32_t prefill_from = 2;    // spans of so many rows or more are attention_prefill's
};

// Device memory attention_decode needs, zeroed once by its owner; steps of one stream may share it.
int64_t attention_decode_workspace_bytes(int32_t max_spans, int32_t num_heads, int32_t num_kv_heads,
                                         int32_t head_dim);

// out[row] = softmax(scale q k^T) v for the rows of spans with num_rows == 1; other rows of `out`
// are left alone. The row's own k and v are in its pages already. KV of earlier steps is read
// before the kernel launched just before has ended: that may be rope_and_store_kv, and nothing else
// may write pages in between.
void attention_decode(const Attention& args, const StepArrays& step, void* workspace,
                      cudaStream_t stream);

// Throws MODEL_UNSUPPORTED unless both attention kernels are compiled for `head_dim`.
void check_attention_head_dim(int32_t head_dim);

}  // namespace lorax::cuda
