// Sampling one row of logits on the CPU, in the order of operations of backend/sampling.h.
//
// The result is a pure function of the logits and the row. Reentrant: any thread may call it, each
// has its own scratch memory. Called by the CPU backend for every logits row of a step.
#pragma once

#include <cstdint>

#include "backend/sampling.h"

namespace lorax::cpu {

// logits [vocab]
void sample_row(const float* logits, int32_t vocab, const SampleRow& row, SampleResult* result);

}  // namespace lorax::cpu
