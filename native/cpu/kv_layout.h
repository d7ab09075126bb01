// Where K and V of one layer and kv head lie in a KV page.
//
// [layer][kv head]{K, V}: K is a matrix [block_tokens, head_dim], V a matrix [head_dim,
// block_tokens], both in the panels of kernels.h, so that attention is gemm.
#pragma once

#include <cstdint>

#include "backend/backend.h"

namespace lorax::cpu {

inline constexpr int32_t kBlockTokens = 32;

struct KvPageLayout {
  KvLayout shape;
  int64_t element_bytes = 2;

  int64_t k_bytes() const { return int64_t{kBlockTokens} * shape.head_dim * element_bytes; }
  int64_t v_bytes() const {
    return int64_t{kBlockTokens} * ((shape.head_dim + 15) / 16 * 16) * element_bytes;
  }
  int64_t page_bytes() const {
    return (k_bytes() + v_bytes()) * shape.num_kv_heads * shape.num_layers;
  }
  int64_t k_offset(int32_t layer, int32_t kv_head) const {
    return (int64_t{layer} * shape.num_kv_heads + kv_head) * (k_bytes() + v_bytes());
  }
  int64_t v_offset(int32_t layer, int32_t kv_head) const {
    return k_offset(layer, kv_head) + k_bytes();
  }
};

}  // namespace lorax::cpu
