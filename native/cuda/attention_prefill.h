// Attention of prefill rows: sequences with two or more rows in the step, causal over the pages of
// earlier chunks and the chunk's own rows, whose k and v are in the pages already.
//
// A row's output depends on its sequence alone: KV is walked in fixed tiles from position 0, so
// neighbours and chunk boundaries change nothing (but a chunk of one row is attention_decode's,
// unless prefill_from is 1 and attention_decode is not called). Needs
// no plan from the host and no workspace: the blocks find their rows in the spans.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/attention_decode.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

// out[row] = softmax(scale q k^T) v for the rows of spans of prefill_from rows or more; other rows
// of `out` are left alone. A mixed step calls attention_decode too, in any order.
void attention_prefill(const Attention& args, const StepArrays& step, cudaStream_t stream);

}  // namespace lorax::cuda
