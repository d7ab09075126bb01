// One pass, grid-stride; load time only.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/check.h"
#include "cuda/convert.h"

namespace lorax::cuda {
namespace {

__device__ float to_float(float x) { return x; }
__device__ float to_float(__half x) { return __half2float(x); }
__device__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename Out>
__device__ Out from_float(float x);
template <>
__device__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

template <typename In, typename Out>
__global__ void convert_kernel(const In* __restrict__ in, Out* __restrict__ out, int64_t count,
                               int32_t* found_bad) {
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  bool bad = false;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += stride) {
    const Out value = from_float<Out>(to_float(in[i]));
    bad |= !isfinite(to_float(value));
    out[i] = value;
  }
  if (bad) *found_bad = 1;
}

template <typename In>
void launch(const In* in, void* out, DType to, int64_t count, int32_t* found_bad,
            cudaStream_t stream) {
  constexpr int kThreads = 256;
  constexpr int kBlocks = 1024;
  if (to == DType::kF32) {
    convert_kernel<<<kBlocks, kThreads, 0, stream>>>(in, static_cast<float*>(out), count,
                                                     found_bad);
  } else {
    convert_kernel<<<kBlocks, kThreads, 0, stream>>>(in, static_cast<__nv_bfloat16*>(out), count,
                                                     found_bad);
  }
  check_launch("convert");
}

}  // namespace

void convert(const void* in, DType from, void* out, DType to, int64_t count, int32_t* found_bad,
             cudaStream_t stream) {
  switch (from) {
    case DType::kF32:
      return launch(static_cast<const float*>(in), out, to, count, found_bad, stream);
    case DType::kF16:
      return launch(static_cast<const __half*>(in), out, to, count, found_bad, stream);
    case DType::kBF16:
      return launch(static_cast<const __nv_bfloat16*>(in), out, to, count, found_bad, stream);
  }
}

}  // namespace lorax::cuda
