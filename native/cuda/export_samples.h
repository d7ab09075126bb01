// Hands a step's samples to the host: the last kernel of a step writes them into pinned memory,
// into the step's own slot, so that the next step's may be on their way before these are read.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/sample.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

// One sampled row on the host.
struct ExportedSample {
  int32_t token;
  float logprob;
  int32_t top_tokens[kMaxLogprobs];
  float top_logprobs[kMaxLogprobs];
};

// slots [num_slots][max_rows] in pinned memory; `rows` of the recorded step, of which
// samples.header->num_rows are real. Alternatives are copied as far as the row asked for them.
void export_samples(const SampleOutputs& outputs, const SampleArrays& samples,
                    const StepCounts* counts, int32_t rows, int32_t max_rows, ExportedSample* slots,
                    cudaStream_t stream);

}  // namespace lorax::cuda
