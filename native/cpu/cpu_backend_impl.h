// The class behind make_cpu_backend: state here, operations in cpu_backend.cc (load time and
// pages), cpu_linear.cc, cpu_lora.cc, cpu_embed.cc, cpu_attention.cc and cpu_pooling.cc.
//
// Activations are float32, [rows, cols] without gaps; each operation owns its result's buffer.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "backend/host_buffer.h"
#include "backend/recent_rate.h"
#include "cpu/adapter_pages.h"
#include "cpu/cpu_backend.h"
#include "cpu/kernels.h"
#include "cpu/kv_layout.h"
#include "cpu/packed_weight.h"
#include "cpu/thread_pool.h"

namespace lorax::cpu {

class CpuBackend final : public Backend {
 public:
  // With `amx`, its kernels compute what they can: base linears, LoRA, attention.
  CpuBackend(Precision precision, Isa isa, int threads, const AmxKernels* amx);

  BackendInfo info() const override;
  Precision precision() const override { return precision_; }

  std::unique_ptr<Weight> pack_weight(std::span<const TensorView> tensors,
                                      std::span<const TensorView> biases) override;
  std::unique_ptr<Vector> pack_vector(const TensorView& tensor) override;
  int32_t block_tokens() const override { return kBlockTokens; }
  int64_t page_bytes(const KvLayout& layout) const override;
  void reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
               int32_t max_logits_rows) override;
  void record(const std::function<Activation()>&) override {}
  int32_t allocate_pages(int64_t memory_bytes, int32_t context_tokens) override;

  std::unique_ptr<AdapterImage> pack_adapter(std::span<const AdapterModule> modules) override;
  std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                 std::span<const int32_t> pages) override;
  int64_t page_load_ns() override { return page_loads_.ns_each(); }

  int32_t steps_ahead() const override { return 0; }
  void begin_step(const StepPlan& plan) override;
  bool is_idle() const override { return true; }
  std::optional<Activation> replay() override { return std::nullopt; }
  Activation embed(const Weight& table, const LoraSite* site) override;
  Activation rms_norm(const Activation& residual, const Vector& gain, float eps) override;
  Activation add_rms_norm(Activation& residual, const Activation& delta, const Vector& gain,
                          float eps, bool sampled_rows) override;
  void pool(const Activation& residual, Activation& delta, const Vector& gain, float eps) override;
  Activation linear(const Activation& x, const Weight& weight, const LoraSite* site) override;
  void rope_and_store_kv(Activation& qkv, int32_t layer, const AttentionConfig& config,
                         const Vector* q_gain, const Vector* k_gain, float eps) override;
  Activation attention(const Activation& qkv, int32_t layer,
                       const AttentionConfig& config) override;
  Activation silu_mul(const Activation& gate_up) override;
  void sample(const Activation& logits) override;
  void read_logits(const Activation& logits, std::span<float> out) override;
  void end_step() override {}
  void collect(std::span<SampleResult> results) override;
  bool can_set_aside() const override { return true; }
  void set_aside() override { std::swap(step_, aside_); }
  void resume() override { std::swap(step_, aside_); }
  std::span<const float> pooled() const override { return step_.ended_sums; }

 private:
  // Rows of one segment, as the x of a site has them.
  struct PartRows {
    const int32_t* rows = nullptr;   // [num_rows], ascending
    const float* weights = nullptr;  // [num_rows]
    int32_t num_rows = 0;
  };
  // One adapted module at the linear being computed, for the rows of one segment: its A and B, or
  // its whole W in place of the base's.
  struct LoraPart {
    const PlacedAdapter* adapter = nullptr;
    const AdaptedModule* module = nullptr;
    const int32_t* rows = nullptr;       // [num_rows], ascending
    const float* row_weights = nullptr;  // [num_rows]
    int32_t num_rows = 0;
    int32_t column = 0;  // of y
    bool replaces = false;
    int32_t rank = 0;  // columns of v: d_in for a whole W
    float scale = 0.0f;
    SliceRange b;
    int64_t v_begin = 0;  // into lora_v_: [num_rows, rank]
  };
  struct AffinePart {
    const PlacedAdapter* adapter = nullptr;
    const AdaptedModule* module = nullptr;
    PartRows rows;
    int32_t column = 0;  // of y
  };
  // Positions of one sequence that share a KV block.
  struct BlockRows {
    const SequenceSpan* span = nullptr;
    int32_t first_row = 0;
    int32_t num_rows = 0;
    int32_t first_position = 0;
  };
  // What is needed of a step from one layer to the next, and its results.
  struct Step {
    const StepPlan* plan = nullptr;
    std::vector<BlockRows> block_rows;  // longest KV first
    HostBuffer cos;                     // [num_rows, head_dim / 2]
    HostBuffer sin;
    HostBuffer embed_out;
    HostBuffer norm_out;
    std::vector<SampleResult> samples;
    std::vector<float> ended_sums;  // [.., hidden]
  };

  bool bf16() const { return precision_ == Precision::kBFloat16; }
  uint8_t* arena() const { return arena_.as<uint8_t>(); }
  PartRows rows_at(const LoraSite& site, const LoraSegment& segment);
  void collect_lora_parts(const LoraSite& site, int32_t d_in, int32_t columns);
  float* v_of(const LoraPart& part, int32_t i) const {
    return lora_v_.as<float>() + part.v_begin + int64_t{i} * part.rank;
  }
  void shrink(const Activation& x);
  int64_t expand_scratch_floats(int32_t rows, int32_t panels) const;
  void expand(const LoraPart& part, int32_t row_begin, int32_t row_end, int32_t column_begin,
              int32_t column_end, float* scratch, float* y, int64_t y_stride) const;
  void apply_affine(const AffinePart& part, int32_t row_begin, int32_t row_end,
                    int32_t column_begin, int32_t column_end, float* y, int64_t y_stride) const;
  void look_up(const LoraPart& part);

  // op(row) for [0, rows), on several threads when rows * cost, in elements, is worth it.
  template <typename Op>
  void for_rows(int32_t rows, int64_t cost, Op&& op) {
    constexpr int64_t kWorth = 8192;
    const int64_t per_task = std::max<int64_t>(1, kWorth / std::max<int64_t>(1, cost));
    const int64_t tasks = (rows + per_task - 1) / per_task;
    pool_.run(tasks, [&](int64_t task, int) {
      const int64_t end = std::min<int64_t>(rows, (task + 1) * per_task);
      for (int64_t row = task * per_task; row < end; ++row) op(static_cast<int32_t>(row));
    });
  }

  const Precision precision_;
  const Isa isa_;
  const Kernels& kernels_;
  const AmxKernels* const amx_;  // null: no tiles
  ThreadPool pool_;

  KvPageLayout layout_;
  RopeConfig rope_;
  HostBuffer arena_;  // [num_pages, page_bytes]
  int32_t num_pages_ = 0;
  RecentRate page_loads_{1 << 12};

  Step step_;
  Step aside_;  // the one that was set aside
  int32_t half_dim_ = 0;

  HostBuffer linear_out_;
  HostBuffer attention_out_;
  HostBuffer silu_out_;
  HostBuffer linear_x_;           // bf16 [rows, k_padded], for AMX
  HostBuffer linear_scratch_;     // [threads, linear_scratch_floats_]
  HostBuffer attention_scratch_;  // [threads, attention_scratch_floats]

  std::vector<int32_t> pooled_rows_;      // of the step
  HostBuffer pooled_out_;                 // [pooled_rows_.size(), hidden]
  std::vector<std::vector<float>> sums_;  // by slot, [hidden]; as many as were ever wanted

  std::vector<LoraPart> lora_parts_;      // of the linear being computed, by segment, then part
  std::vector<AffinePart> affine_parts_;  // likewise
  std::vector<int32_t> sampled_segment_rows_;
  std::vector<float> sampled_segment_weights_;
  std::vector<float> ones_;
  HostBuffer lora_v_;
};

}  // namespace lorax::cpu
