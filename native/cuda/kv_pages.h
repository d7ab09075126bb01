// Where one layer's keys and values lie in the pool's KV pages.
//
// A page holds 16 tokens of every layer: [layer][k|v][kv_head][16 tokens][head_dim] bf16. Page p
// starts at pool + p * page_bytes. Plain C++: the rotary embedding's store and both attention
// kernels, and their tests, read the layout from here alone.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace lorax::cuda {

struct KvPages {
  static constexpr int kBlockTokens = 16;

  uint8_t* pool = nullptr;
  int64_t page_bytes = 0;
  int32_t layer = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;  // a multiple of 8

  // [16 tokens, head_dim] of one kv head in page 0; those of page p are p * page_bytes further on.
  __host__ __device__ __nv_bfloat16* keys(int32_t kv_head) const { return slice(0, kv_head); }
  __host__ __device__ __nv_bfloat16* values(int32_t kv_head) const { return slice(1, kv_head); }

 private:
  __host__ __device__ __nv_bfloat16* slice(int32_t k_or_v, int32_t kv_head) const {
    const int64_t heads = (int64_t{layer} * 2 + k_or_v) * num_kv_heads + kv_head;
    return reinterpret_cast<__nv_bfloat16*>(pool) + heads * kBlockTokens * head_dim;
  }
};

}  // namespace lorax::cuda
