// The PTX instructions the attention kernels are written in, and their launch.
//
// Programmatic dependent launch: a kernel may start while the one before it still runs, lets the
// next one start with launch_dependents(), and reads or writes nothing the one before touches until
// wait_for_previous(). Every block waits, also one without work: the next kernel takes our end for
// the end of all before us.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/check.h"

namespace lorax::cuda {

__device__ __forceinline__ void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

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

// cap * tanh(score / cap): tanh(x) = 1 - 2 / (e^2x + 1), exact enough where tanh.approx (2^-11 of
// the cap) is not.
__device__ __forceinline__ float soft_capped(float score, float cap) {
  constexpr float kTwoLog2E = 2.885390081777927f;
  const float e = exp2_fast(score / cap * kTwoLog2E);
  return cap * (1.0f - 2.0f / (e + 1.0f));
}

// One after the other on `stream`, started early (above) where the device can.
template <typename... Params, typename... Args>
void launch_dependent(const char* name, void (*kernel)(Params...), dim3 grid, int threads,
                      size_t shared_bytes, cudaStream_t stream, Args&&... args) {
  static const int compute_major = [] {
    int device = 0;
    int major = 0;
    LORAX_CUDA(cudaGetDevice(&device));
    LORAX_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    return major;
  }();
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = compute_major >= 9 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...), name);
}

}  // namespace lorax::cuda
