// A model that computes nothing: its steps and copies take the time that their bytes and operations
// would, on a clock that moves only when the engine waits for a step.
//
//   step  = fixed + max(weights / memory, 2 parameters rows / peak) + attention / peak
//           + (KV read + KV written + adapters used) / memory
//   copy  = bytes of the adapter / copy, one after another, beside the steps; who uses it sits out
//           until it is over, or has a step alone that begins then
//
// One step runs while the next is planned, as on a GPU, or none; then it may be computed layer by
// layer, and set aside between two of them. Used by trace_bench.cc and
// flood.h.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <vector>

#include "model/model.h"

namespace lorax {

struct VirtualCosts {
  double weight_bytes = 0;     // that every step reads
  double parameters = 0;       // multiplied with every row
  double attention_flops = 0;  // of a row, for each position it sees
  double kv_token_bytes = 0;
  double adapter_bytes = 0;
  double memory_rate = 0;  // bytes/s
  double peak_rate = 0;    // operations/s
  double copy_rate = 0;    // bytes/s, from host memory
  double step_seconds = 0;
  int32_t row_tile = 1;  // rows are computed by so many
  int32_t steps_ahead = 1;
  int32_t num_layers = 0;  // between which steps may be set aside; without steps_ahead
};

class VirtualModel final : public Model {
 public:
  VirtualModel(const ModelLimits& limits, int32_t adapter_pages, const VirtualCosts& costs)
      : limits_(limits), adapter_pages_(adapter_pages), costs_(costs) {
    limits_.copies_beside_steps = true;
    limits_.can_set_aside = costs_.num_layers > 0;
  }

  // ---- the clock, in seconds ----

  double now() const { return now_; }
  void wait_until(double seconds) { now_ = std::max(now_, seconds); }
  double copies_end() const { return copies_end_; }
  double busy_seconds() const { return busy_; }        // of steps
  double waited_seconds() const { return waited_; }    // of steps that waited for copies
  double copying_seconds() const { return copying_; }  // of the copy engine

  struct Step {
    int32_t prefill_rows, decode_rows, adapters;
    double seconds;  // from when it could begin
  };
  const std::vector<Step>& steps() const { return steps_; }

  // ---- Model ----

  ModelLimits limits() const override { return limits_; }
  BackendInfo info() const override { return {"virtual", "computed costs, a virtual clock"}; }

  std::unique_ptr<AdapterImage> read_adapter(const AdapterSpec&) override {
    auto image = std::make_unique<AdapterImage>();
    image->num_pages = adapter_pages_;
    image->bytes = static_cast<int64_t>(costs_.adapter_bytes);
    return image;
  }

  std::unique_ptr<ResidentAdapter> place_adapter(const AdapterImage& image,
                                                 std::span<const int32_t>) override {
    const double seconds = static_cast<double>(image.bytes) / costs_.copy_rate;
    copies_end_ = std::max(now_, copies_end_) + seconds;
    copying_ += seconds;
    auto placed = std::make_unique<Placed>();
    placed->model = this;
    placed->arrives = copies_end_;
    return placed;
  }

  ReloadCosts reload_costs() override {
    const double page = costs_.adapter_bytes / adapter_pages_ / costs_.copy_rate;
    const double token = 2 * costs_.parameters / costs_.peak_rate;
    return {static_cast<int64_t>(page * 1e9), static_cast<int64_t>(token * 1e9)};
  }

  StepCosts step_costs() override {
    const double linear = costs_.weight_bytes / costs_.memory_rate;
    const double row = 2 * costs_.parameters / costs_.peak_rate;
    return {static_cast<int64_t>((costs_.step_seconds + linear) * 1e9),
            static_cast<int64_t>(row * 1e9)};
  }

  void await_most_of_step() override {
    if (in_flight_.size() != 1) return;
    const InFlight& step = in_flight_.front();
    wait_until(step.end - (step.end - step.begin) / 4);
    if (on_awaited) on_awaited();
  }

  int32_t steps_ahead() const override { return costs_.steps_ahead; }

  void submit(const StepPlan& plan) override {
    double arrived = 0;
    for (const LoraSegment& segment : plan.segments) {
      arrived = std::max(arrived, static_cast<const Placed&>(*segment.adapter).arrives);
    }
    const double could_begin = std::max(now_, device_free_);
    const double begin = std::max(could_begin, arrived);
    const double took = seconds_of(plan);
    device_free_ = (on_pause_ && !is_set_aside_ ? compute_layers(begin, took) : begin) + took;
    busy_ += took;
    waited_ += begin - could_begin;
    in_flight_.push_back({begin, device_free_, {}});
    for (const SampleRow& row : plan.samples) {
      const uint64_t token = row.seed * 7919 + static_cast<uint64_t>(row.position) * 104729;
      in_flight_.back().tokens.push_back(static_cast<int32_t>(token % limits_.vocab_size));
    }
    note(plan, device_free_ - could_begin);
    if (on_step) on_step(plan, device_free_ - took, device_free_);
  }

  void set_on_pause(std::function<void()> on_pause) override { on_pause_ = std::move(on_pause); }
  void set_aside() override { is_set_aside_ = true; }
  void resume() override { is_set_aside_ = false; }

  void sample() override {}

  void collect(std::span<SampleResult> results) override {
    const InFlight& step = in_flight_.front();
    if (results.size() != step.tokens.size()) {
      throw std::logic_error("virtual model: results and samples differ");
    }
    for (size_t i = 0; i < results.size(); ++i) results[i].token = step.tokens[i];
    wait_until(step.end);
    in_flight_.pop_front();
  }

  std::span<const float> pooled() const override { return {}; }

  // Of each step: when it begins, or would have had it not been set aside, and when it is over.
  std::function<void(const StepPlan&, double, double)> on_step;
  std::function<void()> on_awaited;  // the clock has moved, and the next step is not planned yet
  std::function<void()> on_layer;    // likewise, and the next layer is not computed

 private:
  struct Placed : ResidentAdapter {
    bool has_arrived() const override { return model->now() >= arrives; }
    const VirtualModel* model = nullptr;
    double arrives = 0;
  };
  struct InFlight {
    double begin, end;
    std::vector<int32_t> tokens;
  };

  // When it would have begun, had it not been set aside.
  double compute_layers(double begin, double took) {
    for (int32_t layer = 0; layer < costs_.num_layers; ++layer) {
      const double at = begin + took * layer / costs_.num_layers;
      wait_until(at);
      if (on_layer) on_layer();
      on_pause_();
      begin += now_ - at;
    }
    return begin;
  }

  double seconds_of(const StepPlan& plan) const {
    double seen = 0;   // positions, over all rows
    double reads = 0;  // tokens whose KV a sequence reads
    for (const SequenceSpan& span : plan.spans) {
      const double last = span.first_position + span.num_rows;
      reads += last;
      seen += span.num_rows * (span.first_position + last + 1) / 2;
    }
    const double rows = plan.num_rows();
    const double tiles = std::ceil(rows / costs_.row_tile) * costs_.row_tile;
    const double linear = std::max(costs_.weight_bytes / costs_.memory_rate,
                                   2 * costs_.parameters * tiles / costs_.peak_rate);
    const double bytes = (reads + rows) * costs_.kv_token_bytes +
                         static_cast<double>(plan.segments.size()) * costs_.adapter_bytes;
    return costs_.step_seconds + linear + costs_.attention_flops * seen / costs_.peak_rate +
           bytes / costs_.memory_rate;
  }

  void note(const StepPlan& plan, double seconds) {
    int32_t decodes = 0;
    for (const SequenceSpan& span : plan.spans) decodes += span.num_rows == 1 ? 1 : 0;
    steps_.push_back(
        {plan.num_rows() - decodes, decodes, static_cast<int32_t>(plan.segments.size()), seconds});
  }

  ModelLimits limits_;
  const int32_t adapter_pages_;
  const VirtualCosts costs_;
  double now_ = 0, device_free_ = 0, copies_end_ = 0;
  double busy_ = 0, waited_ = 0, copying_ = 0;
  std::deque<InFlight> in_flight_;
  std::function<void()> on_pause_;
  bool is_set_aside_ = false;
  std::vector<Step> steps_;
};

}  // namespace lorax
