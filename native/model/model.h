// What the engine knows of a model: limits, adapters, and one call per step.
//
// Implemented by model/decoder.cc over a Backend, and by fakes in tests. The engine thread calls
// submit, collect and place_adapter; read_adapter may be called from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "backend/backend.h"
#include "backend/step_plan.h"
#include "lora/adapter.h"

namespace lorax {

struct ModelLimits {
  int32_t vocab_size = 0;
  int32_t context_tokens = 0;
  int32_t num_pages = 0;
  int64_t page_bytes = 0;
  int32_t block_tokens = 0;
  int32_t max_batch_tokens = 0;      // rows of one step
  int32_t row_tile = 1;              // Backend::row_tile()
  int32_t hidden_size = 0;           // of an embedding
  bool copies_beside_steps = false;  // Backend::copies_beside_steps()
  bool can_set_aside = false;        // Backend::can_set_aside()
};

// What it takes to bring back what was given up, as measured here; 0: nothing was measured yet.
struct ReloadCosts {
  int64_t page_ns = 0;   // a page of an adapter, copied from its image
  int64_t token_ns = 0;  // the KV of a token, computed again in a step with others
};

// What a step takes, as measured here: so much whatever it holds, and so much for each row. All 0:
// nothing can be told yet.
struct StepCosts {
  int64_t step_ns = 0;
  int64_t row_ns = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  virtual ModelLimits limits() const = 0;
  virtual BackendInfo info() const = 0;

  // Reads (pread), checks and packs. Throws ADAPTER_INVALID naming file and tensor.
  virtual std::unique_ptr<AdapterImage> read_adapter(const AdapterSpec& spec) = 0;
  virtual std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                         std::span<const int32_t> pages) = 0;

  virtual ReloadCosts reload_costs() = 0;
  virtual StepCosts step_costs() = 0;

  // Steps that may be in flight when one more is submitted. 0: submit computes, and the plan must
  // live until collect; else the plan is copied, and may name samples of the step before by index.
  virtual int32_t steps_ahead() const = 0;

  // Returns when most of the only step in flight is over, as far as can be told: what is planned
  // then still follows it without a gap, and holds who came meanwhile.
  virtual void await_most_of_step() = 0;

  // Stores KV of every row, computes the logits of plan.logits_rows and adds up plan.pooled.
  virtual void submit(const StepPlan& plan) = 0;

  // Samples the step submitted last; its masks are filled by now. Once for every submit that
  // returned, before the next one; the step before may be collected first.
  virtual void sample() = 0;

  // Waits for the oldest step sampled; results [its samples.size()]. Once for every sample that
  // returned; a step that throws here is over.
  virtual void collect(std::span<SampleResult> results) = 0;

  // Where limits().can_set_aside: what submit calls before the attention and the MLP of each layer
  // that it computes, and before the head. From there the step may be set aside for another one,
  // which is submitted, sampled and collected without such calls; resume() goes on with the first.
  virtual void set_on_pause(std::function<void()> on_pause) = 0;
  virtual void set_aside() = 0;
  virtual void resume() = 0;

  // Backend::pooled().
  virtual std::span<const float> pooled() const = 0;
};

}  // namespace lorax
