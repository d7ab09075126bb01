// RMS norm of the float32 residual stream (Zhang & Sennrich 2019), with or without the addition of
// a layer's output: y = x / sqrt(mean(x^2) + eps) * gain.
//
// One block per row; the sum of squares of a row has one order whatever the number of rows.
// Capturable.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/split_sum.h"

namespace lorax::cuda {

struct NormArguments {
  float* residual = nullptr;             // [all rows, hidden]
  const __nv_bfloat16* delta = nullptr;  // [all rows, hidden], or null: nothing is added, or
  SplitSum split;                        // it is in parts
  const float* gain = nullptr;           // [hidden]
  __nv_bfloat16* y = nullptr;            // [rows, hidden]
  float eps = 0.0f;
  int32_t rows = 0;  // of y
  int32_t hidden = 0;
  // Gather: y[i] is of row gather[i], for i < *gather_count; other rows of y stay as they are, and
  // other rows of the residual are not added to. Null: y[i] is of row i.
  const int32_t* gather = nullptr;  // [rows], distinct
  const int32_t* gather_count = nullptr;
};

// residual[row] += delta[row] (in place, when there is a delta), then y = norm(residual[row]).
void rms_norm(const NormArguments& arguments, cudaStream_t stream);

}  // namespace lorax::cuda
