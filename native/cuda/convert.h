// out[i] = in[i] as bf16 or float32; *found_bad = 1 when some in[i] is NaN or Inf, or becomes Inf.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/backend.h"

namespace lorax::cuda {

// in [count] of type `from`, out [count] of type `to` (kBF16 or kF32), both on the device;
// found_bad is device-visible.
void convert(const void* in, DType from, void* out, DType to, int64_t count, int32_t* found_bad,
             cudaStream_t stream);

}  // namespace lorax::cuda
