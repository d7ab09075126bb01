// kWidth consecutive values in registers, as float32: loaded from and stored to bf16 or float32
// memory with accesses of 16 bytes.
//
// Width 8 needs addresses aligned to 8 values; width 1 takes any. Included by element-wise kernels.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace lorax::cuda {

template <int kWidth>
struct Floats;

template <>
struct Floats<8> {
  float v[8];

  __device__ __forceinline__ void load(const __nv_bfloat16* from) {
    const uint4 raw = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v[2 * i] = __uint_as_float(words[i] << 16);
      v[2 * i + 1] = __uint_as_float(words[i] & 0xFFFF0000u);
    }
  }
  __device__ __forceinline__ void load(const float* from) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w;
    v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
  }
  __device__ __forceinline__ void store(__nv_bfloat16* to) const {
    __nv_bfloat162 pairs[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(pairs);
  }
  __device__ __forceinline__ void store(float* to) const {
    reinterpret_cast<float4*>(to)[0] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(v[4], v[5], v[6], v[7]);
  }
};

template <>
struct Floats<1> {
  float v[1];

  __device__ __forceinline__ void load(const __nv_bfloat16* from) {
    v[0] = __bfloat162float(*from);
  }
  __device__ __forceinline__ void load(const float* from) { v[0] = *from; }
  __device__ __forceinline__ void store(__nv_bfloat16* to) const {
    *to = __float2bfloat16_rn(v[0]);
  }
  __device__ __forceinline__ void store(float* to) const { *to = v[0]; }
};

}  // namespace lorax::cuda
