// The PTX instructions that attention and the LoRA expand are written in; any device from sm_80 on.
// How kernels are launched and wait for each other is launch.h's.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace lorax::cuda {

// c[16, 8] += a[16, 16] b[16, 8], bf16 in, float32 out. With g = lane / 4 and q = lane % 4:
// a = {(g, 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8)}, b = {(2q, g), (2q + 8, g)},
// c = {(g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)}; a pair is consecutive along k.
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                            uint32_t a3, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// {lo, hi} as one register, lo in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(hi), "f"(lo));
  return packed;
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float reciprocal_fast(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// cap * tanh(score / cap): tanh(x) = 1 - 2 / (e^2x + 1), exact enough where tanh.approx (2^-11 of
// the cap) is not.
__device__ __forceinline__ float soft_capped(float score, float cap) {
  constexpr float kTwoLog2E = 2.885390081777927f;
  const float e = exp2_fast(score / cap * kTwoLog2E);
  return cap * (1.0f - 2.0f / (e + 1.0f));
}

}  // namespace lorax::cuda
