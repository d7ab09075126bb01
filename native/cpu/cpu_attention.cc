// Rotary embedding, the stores of K and V, and attention over pages.
//
// The unit of both is the rows of one sequence that share a KV block: all of them end in the same
// block, so a decode and a prefill row walk the same blocks with the same arithmetic.
#include <algorithm>
#include <cstring>
#include <string>

#include "cpu/cpu_backend_impl.h"

namespace lorax::cpu {
namespace {

constexpr int32_t kTileRows =
    96;  // query rows (positions x heads) per tile: scratch fits the cache

void check(const AttentionConfig& config, const KvLayout& layout, int32_t half_dim, int32_t cols) {
  if (config.head_dim != layout.head_dim || config.num_kv_heads != layout.num_kv_heads ||
      config.head_dim != 2 * half_dim || config.num_heads % config.num_kv_heads != 0 ||
      cols != (config.num_heads + 2 * config.num_kv_heads) * config.head_dim) {
    throw Error("MODEL_INVALID", "attention of " + std::to_string(config.num_heads) + " heads, " +
                                     std::to_string(config.num_kv_heads) + " kv heads of " +
                                     std::to_string(config.head_dim) +
                                     " does not fit the KV pages or the rotary embedding");
  }
}

}  // namespace

void CpuBackend::rope_and_store_kv(Activation& qkv, int32_t layer, const AttentionConfig& config,
                                   const Vector* q_gain, const Vector* k_gain, float eps) {
  check(config, layout_.shape, half_dim_, qkv.cols);
  const int32_t dim = config.head_dim;
  const float* q_norm =
      q_gain == nullptr ? nullptr : static_cast<const FloatVector*>(q_gain)->values.data();
  const float* k_norm =
      k_gain == nullptr ? nullptr : static_cast<const FloatVector*>(k_gain)->values.data();

  const auto run_block = [&](const BlockRows& block) {
    const int32_t slot = block.first_position % kBlockTokens;
    const int32_t page_number =
        step_.plan
            ->block_tables[block.span->block_table_begin + block.first_position / kBlockTokens];
    uint8_t* page = arena() + page_number * layout_.page_bytes();
    if (slot == 0) {
      // Masked rows meet V with p = 0, and 0 * garbage may be NaN. K needs no such care: its
      // masked products are replaced, not multiplied.
      for (int32_t h = 0; h < config.num_kv_heads; ++h) {
        std::memset(page + layout_.v_offset(layer, h), 0, static_cast<size_t>(layout_.v_bytes()));
      }
    }
    for (int32_t i = 0; i < block.num_rows; ++i) {
      const int64_t row = block.first_row + i;
      float* heads = static_cast<float*>(qkv.data) + row * qkv.cols;
      const float* cos = step_.cos.as<float>() + row * half_dim_;
      const float* sin = step_.sin.as<float>() + row * half_dim_;
      for (int32_t h = 0; h < config.num_heads + config.num_kv_heads; ++h) {
        float* head = heads + h * dim;
        const float* gain = h < config.num_heads ? q_norm : k_norm;
        if (gain != nullptr) kernels_.rms_norm(head, nullptr, gain, eps, dim, head);
        kernels_.rope(head, cos, sin, half_dim_);
      }
      const float* k = heads + config.num_heads * dim;
      const float* v = k + config.num_kv_heads * dim;
      for (int32_t h = 0; h < config.num_kv_heads; ++h) {
        kernels_.store_k(k + h * dim, dim, slot + i, page + layout_.k_offset(layer, h));
        kernels_.store_v(v + h * dim, dim, kBlockTokens, slot + i,
                         page + layout_.v_offset(layer, h));
      }
    }
  };

  // A decode row is a fraction of a microsecond's work per head: a few rows per task.
  constexpr int64_t kTaskRows = 4;
  const auto count = static_cast<int64_t>(step_.block_rows.size());
  const int64_t per_task =
      std::max<int64_t>(1, kTaskRows * count / std::max<int64_t>(1, step_.plan->num_rows()));
  pool_.run((count + per_task - 1) / per_task, [&](int64_t task, int) {
    for (int64_t b = task * per_task; b < std::min(count, (task + 1) * per_task); ++b) {
      run_block(step_.block_rows[static_cast<size_t>(b)]);
    }
  });
}

Activation CpuBackend::attention(const Activation& qkv, int32_t layer,
                                 const AttentionConfig& config) {
  check(config, layout_.shape, half_dim_, qkv.cols);
  const int32_t dim = config.head_dim;
  const int32_t cols = config.num_heads * dim;
  const int32_t group = config.num_heads / config.num_kv_heads;
  attention_out_.ensure(int64_t{qkv.rows} * cols * 4);
  float* out = attention_out_.as<float>();

  const bool amx = amx_ != nullptr;
  const int64_t scratch_floats =
      amx ? amx_attention_scratch_floats(dim)
          : attention_scratch_floats(std::max(kTileRows, kBlockTokens), dim, kBlockTokens);
  attention_scratch_.ensure(scratch_floats * pool_.size() * 4);

  const auto count = static_cast<int64_t>(step_.block_rows.size());
  pool_.run(count * config.num_kv_heads, [&](int64_t task, int thread) {
    const BlockRows& block = step_.block_rows[static_cast<size_t>(task / config.num_kv_heads)];
    const auto kv_head = static_cast<int32_t>(task % config.num_kv_heads);
    AttentionArgs args;
    args.q_stride = qkv.cols;
    args.num_positions = block.num_rows;
    args.first_position = block.first_position;
    args.head_dim = dim;
    args.scale = config.scale;
    args.window = config.sliding_window;
    args.arena = arena();
    args.page_bytes = layout_.page_bytes();
    args.k_offset = layout_.k_offset(layer, kv_head);
    args.v_offset = layout_.v_offset(layer, kv_head);
    args.block_table = step_.plan->block_tables.data() + block.span->block_table_begin;
    args.block_tokens = kBlockTokens;
    args.out_stride = cols;
    args.scratch = attention_scratch_.as<float>() + thread * scratch_floats;
    const int32_t heads_at_once = std::max(1, kTileRows / block.num_rows);
    for (int32_t h = 0; h < group; h += heads_at_once) {
      const int32_t head = kv_head * group + h;
      args.num_heads = std::min(heads_at_once, group - h);
      args.q =
          static_cast<const float*>(qkv.data) + int64_t{block.first_row} * qkv.cols + head * dim;
      args.out = out + int64_t{block.first_row} * cols + head * dim;
      if (amx) {
        amx_->attention(args);
      } else {
        kernels_.attention(args);
      }
    }
  });
  return {out, qkv.rows, cols};
}

}  // namespace lorax::cpu
