// What adapters have beside the plain LoRA of the projections: gains and shifts of outputs (DoRA,
// biases of B), LoRA on head and embedding, whole weights in their place (step_arrays.h,
// AdapterExtra).
//
// Run after a linear and its LoRA are complete, in steps that hold such an adapter, and in no
// other: such steps are not recorded, and these kernels are simple. A block has one row and walks
// through the step's segments, so what is done to a row has one order, and its neighbours no part
// in it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/lora_rows.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

// y[row, column] = gain * y + weight * shift, y [rows, n] in `parts` sums that lie `part_stride`
// apart (split_sum.h): each is scaled, the first is shifted.
void apply_affine(const StepArrays& step, const LoraRowSite& site, __nv_bfloat16* y, int32_t rows,
                  int32_t n, int32_t parts, int64_t part_stride, cudaStream_t stream);

// out = silu(gate) * up of x [rows, 2 inner] = [gate | up], with the affines of both; rows without
// get the bits that the streaming GEMM's own silu gives.
void affine_silu_mul(const StepArrays& step, const LoraRowSite& site, const __nv_bfloat16* x,
                     __nv_bfloat16* out, int32_t rows, int32_t inner, cudaStream_t stream);

// The head's logits [rows, vocab] of x [rows, hidden], the sampled rows in their order: a whole W
// in place of the base's, then weight * scale * B (A x), then the affine.
void adapt_head(const StepArrays& step, int32_t layer, int32_t module, const __nv_bfloat16* x,
                float* logits, int32_t rows, int32_t vocab, int32_t hidden, cudaStream_t stream);

// The same of the embedding: residual [rows, hidden], tokens [rows].
void adapt_embedding(const StepArrays& step, int32_t layer, int32_t module, const int32_t* tokens,
                     float* residual, int32_t rows, int32_t hidden, cudaStream_t stream);

}  // namespace lorax::cuda
