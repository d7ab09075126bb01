// residual[row] = table[token of row]: the first kernel of a step, which also tells the rest of the
// step the tokens that only the device knows.
//
// A token id below zero, -1 - i, is sample i of the step before. Capturable: all that changes from
// step to step is read from device memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace lorax::cuda {

struct EmbedArguments {
  const __nv_bfloat16* table = nullptr;      // [vocab, hidden]
  const int32_t* token_ids = nullptr;        // [rows]; padded rows hold any token, such as 0
  const int32_t* previous_tokens = nullptr;  // [samples of the step before]
  float* residual = nullptr;                 // [rows, hidden]
  // [rows]: the token each row was fed, known now. The sampler reads it (sample.h): by then
  // previous_tokens is being overwritten.
  int32_t* input_tokens = nullptr;
  int32_t rows = 0;
  int32_t hidden = 0;
  int32_t vocab = 0;
};

// A failed sample (-1) embeds token 0: its sequence has ended, the row is harmless.
void embed(const EmbedArguments& arguments, cudaStream_t stream);

}  // namespace lorax::cuda
