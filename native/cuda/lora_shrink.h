// Shrink for few rows: v = weight * scale * A x for the units of one site (lora_items.h).
//
// Every sum has one order, whatever else is in the step: k is cut into 32 pieces by its length
// alone, and their sums are added by one tree. v is bf16 in the fragments of LoraItem:
// [fragments][8 rows][16 ranks], which is mma B-fragment order [32 lanes][4] with the ranks ordered
// as adapter_image.h orders B's; rows of other adapters are zeros. Capturable: the number of units
// is read on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/lora_items.h"

namespace lorax::cuda {

struct LoraShrinkArguments {
  const __nv_bfloat16* x = nullptr;  // [rows, k]
  int32_t k = 0;
  const LoraUnit* units = nullptr;  // of the site
  const int32_t* num_units = nullptr;
  __nv_bfloat16* v = nullptr;
  // The lists were complete before the kernel before this one began: they are read, and A is
  // prefetched, while that one still runs. True where a kernel that overlaps nothing came between.
  bool lists_ready = false;
  int32_t blocks_per_multiprocessor = 2;  // changes no bit
};

void lora_shrink(const LoraShrinkArguments& arguments, const StepArrays& step, cudaStream_t stream);

}  // namespace lorax::cuda
