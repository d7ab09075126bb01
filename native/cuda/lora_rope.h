// rope_and_store_kv with the expand of q, k and v in passing: what follows a qkv linear with
// adapters in steps of many rows.
#pragma once

#include "cuda/lora_rows.h"
#include "cuda/rope_kv.h"

namespace lorax::cuda {

// Heads of a multiple of 16, above 64 from sm_90 on; otherwise lora_expand and rope_and_store_kv
// do it.
bool lora_rope_takes(int32_t head_dim);

// rope_and_store_kv of qkv + B v; parts 0, 1 and 2 of the site are q, k and v. Where a row's q goes
// back to is args.qkv, as there.
void lora_rope_and_store_kv(const LoraRowLists& lists, const RopeKv& args, const StepArrays& step,
                            cudaStream_t stream);

}  // namespace lorax::cuda
