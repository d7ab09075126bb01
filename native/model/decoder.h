// The only transformer: a decoder of the Llama family over a Backend's operations.
//
// Variants (qkv bias, q/k norm, sliding window, tied head, rope scaling) are fields of
// DecoderConfig. Owns the backend and the packed weights. Made by binding/ and by tests; the engine
// thread calls it through Model.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lora/adapter_reader.h"
#include "model/model.h"
#include "model/step_timer.h"
#include "model/weights.h"

namespace lorax {

struct DecoderOptions {
  int64_t memory_bytes = 0;       // of the page arena; 0 = the backend's choice
  int32_t max_rows = 0;           // of one step; 0 = the backend's choice, which has a limit too
  int32_t max_logits_rows = 256;  // of those
  std::string device_reason;      // why this backend; info() adds it to the description
  LoadProgress progress = nullptr;
};

class Decoder : public Model {
 public:
  // Loads and packs the weights, then sizes the arena. Throws MODEL_INVALID.
  Decoder(std::unique_ptr<Backend> backend, const ModelSpec& spec, const DecoderOptions& options);

  ModelLimits limits() const override;
  BackendInfo info() const override;
  std::unique_ptr<AdapterImage> read_adapter(const AdapterSpec& spec) override;
  std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                 std::span<const int32_t> pages) override;
  ReloadCosts reload_costs() override;
  StepCosts step_costs() override { return timer_.step_costs(); }
  void await_most_of_step() override;
  int32_t steps_ahead() const override;
  void submit(const StepPlan& plan) override;
  void sample() override;
  void collect(std::span<SampleResult> results) override;
  void set_on_pause(std::function<void()> on_pause) override;
  void set_aside() override;
  void resume() override;
  std::span<const float> pooled() const override { return backend_->pooled(); }

  // A whole step that gives the logits themselves: out [plan.logits_rows.size(), vocab].
  void forward_logits(const StepPlan& plan, std::span<float> out);

 private:
  // What a step is for, beside the keys and values of its rows.
  struct Wants {
    bool samples = false;
    bool pools = false;
  };
  static Wants wants_of(const StepPlan& plan);

  void find_base(AdapterModule& module) const;

  // Issues the operations of the begun step; logits of the sampled rows, if it has any.
  std::optional<Activation> issue(Wants wants);

  std::unique_ptr<Backend> backend_;
  DecoderConfig config_;
  RopeConfig rope_;
  AttentionConfig attention_;
  AdapterShapes adapter_shapes_;
  // Columns of the seven projections inside the four fused linears.
  std::array<SitePart, 3> qkv_parts_;
  std::array<SitePart, 1> o_parts_;
  std::array<SitePart, 2> gate_up_parts_;
  std::array<SitePart, 1> down_parts_;
  std::array<SitePart, 1> head_parts_;
  std::array<SitePart, 1> embedding_parts_;
  DecoderWeights weights_;
  ModelLimits limits_;
  StepTimer timer_;
  std::optional<Activation> logits_;  // of the step submitted last, if it samples
  std::function<void()> on_pause_;
  bool is_set_aside_ = false;  // a step is
  std::string device_reason_;
};

}  // namespace lorax
