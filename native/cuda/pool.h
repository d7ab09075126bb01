// Sums of final hidden states for embeddings, in float32 and never rounded to bf16:
//   sum[slot] += x[row] / sqrt(mean(x[row]^2) + eps) * gain,   x = residual + delta
//
// A column of a sum adds its rows one after another, whatever the step they came in. Issued step by
// step: a step with pooled rows is no recorded one.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/split_sum.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

struct PoolArguments {
  const float* residual = nullptr;       // [rows, hidden]
  const __nv_bfloat16* delta = nullptr;  // [rows, hidden], or
  SplitSum split;                        // it is in parts
  const float* gain = nullptr;           // [hidden]
  float eps = 0.0f;
  int32_t rows = 0;
  int32_t hidden = 0;
  const DevicePooledSpan* spans = nullptr;  // [num_spans]
  int32_t num_spans = 0;
  float* factors = nullptr;  // [rows], between the kernels
  float* sums = nullptr;     // [slots, hidden]
  float* results = nullptr;  // [results, hidden], in pinned memory
};

void pool(const PoolArguments& arguments, cudaStream_t stream);

}  // namespace lorax::cuda
