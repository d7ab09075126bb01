// A naive, single-threaded, float32 implementation of Backend: the yardstick of the fast ones.
//
// Every operation is its equation as plain loops, accumulated in double and rounded once; KV lies
// in plain arrays of `block_tokens` per page. Greedy sampling only. Used by tests alone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lorax {

class ReferenceBackend : public Backend {
 public:
  explicit ReferenceBackend(int32_t block_tokens = 4, int32_t num_pages = 256)
      : block_tokens_(block_tokens), num_pages_(num_pages) {}

  BackendInfo info() const override { return {"cpu", "naive float32 reference"}; }
  Precision precision() const override { return Precision::kFloat32; }

  std::unique_ptr<Weight> pack_weight(std::span<const TensorView> tensors,
                                      std::span<const TensorView> biases) override;
  std::unique_ptr<Vector> pack_vector(const TensorView& tensor) override;
  int32_t block_tokens() const override { return block_tokens_; }
  int64_t page_bytes(const KvLayout& layout) const override;
  void reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
               int32_t max_logits_rows) override;
  void record(const std::function<Activation()>&) override {}
  int32_t allocate_pages(int64_t memory_bytes, int32_t context_tokens) override;

  std::unique_ptr<AdapterImage> pack_adapter(std::span<const AdapterModule> given) override;
  std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                 std::span<const int32_t> pages) override;
  int64_t page_load_ns() override { return 0; }

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
  std::span<const float> pooled() const override { return ended_sums_; }

 private:
  // Where K (which = 0) or V (which = 1) of one token lies: [kv_heads * head_dim].
  float* kv(const SequenceSpan& span, int32_t position, int32_t layer, int32_t which);

  void add_adapters(const Activation& x, const LoraSite& site, int32_t cols, float* y);

  int32_t block_tokens_;
  int32_t num_pages_;
  int32_t max_rows_ = 0;
  int32_t max_logits_rows_ = 0;
  KvLayout layout_;
  std::vector<float> pages_;  // [num_pages, num_layers, 2, block_tokens, kv_heads * head_dim]
  const StepPlan* plan_ = nullptr;
  RopeConfig rope_;
  std::vector<SampleResult> samples_;            // of the step
  std::map<int32_t, std::vector<double>> sums_;  // by slot
  std::vector<float> ended_sums_;                // of the step
  std::vector<float> residual_, normed_, linear_, attended_, gated_;
};

}  // namespace lorax
