// Lays the scheduled chunks out as the index arrays of a StepPlan: a pure function.
//
// Sequences of the same adapters are adjacent, base first, then by their handles, then by arrival,
// and segments are in order of their handles, so equal inputs give equal plans. Called by the
// engine once per step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/step_plan.h"

namespace lorax {

struct PlannedAdapter {
  int32_t handle = 0;
  float weight = 1.0f;
  const ResidentAdapter* resident = nullptr;
  int32_t first_position = 0;
};

struct PlannedSequence {
  std::span<const int32_t> tokens;  // all known ones
  int32_t unknown_token = -1;       // 0 or more: one follows, that sample of the step before
  int32_t first_position = 0;
  int32_t num_rows = 0;
  std::span<const int32_t> pages;            // at least what covers first_position + num_rows
  std::span<const PlannedAdapter> adapters;  // ascending by handle; empty = base
  bool samples = false;  // the rows reach the last token: the next one is sampled
  SampleRow sample;
  int32_t sum = -1;  // 0 or more: it is embedded; its rows from `first_pooled` on are summed there
  int32_t first_pooled = 0;  // position
};

// Fills `plan` (its buffers are reused) from sequences in order of arrival. `sampled` [number of
// logits rows]: which of `sequences` each logits row belongs to; `embedded`: likewise of each sum
// that ends.
void make_step_plan(int64_t step, int32_t block_tokens, std::span<const PlannedSequence> sequences,
                    StepPlan* plan, std::vector<int32_t>* sampled, std::vector<int32_t>* embedded);

}  // namespace lorax
