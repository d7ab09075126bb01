// One rank's part of a row of logits, and the passes over it: reading it from device memory, its
// greatest value, what else a pass wants of it.
//
// A thread always meets the same quads of tokens, so passes need no barrier between them. Included
// by the sampling kernels alone.
#pragma once

#include <cstdint>

#include "cuda/sample_group.cuh"

namespace lorax::cuda::sampling {

// ---- a rank's part of the row ----

struct Slice {
  float* values;  // [size rounded up to 4], -inf past the end; in shared memory or the workspace
  int32_t begin;  // token of values[0], a multiple of 4
  int32_t size;
  int32_t vocab;  // tokens of the whole row

  // op(token, four values) for the quads of this thread: always the same ones.
  template <typename Op>
  __device__ __forceinline__ void each_quad(Op&& op) const {
    for (int32_t i = threadIdx.x * 4; i < size; i += kThreads * 4) {
      op(begin + i, reinterpret_cast<float4*>(values + i));
    }
  }
  template <typename Op>
  __device__ __forceinline__ void each(Op&& op) const {
    each_quad([&](int32_t token, const float4* quad) {
      const float4 x = *quad;
      op(token, x.x);
      op(token + 1, x.y);
      op(token + 2, x.z);
      op(token + 3, x.w);
    });
  }
};

// ---- reading the row ----

// A value and its token into the greatest so far; what no logit may be (NaN, +inf) becomes the key
// 0, before all others.
struct Greatest {
  float value = -INFINITY;
  int32_t token = 0;
  bool fault = false;

  __device__ __forceinline__ void offer(int32_t t, float x) {
    fault |= !(x < INFINITY);
    if (x > value) {
      value = x;
      token = t;
    }
  }
  __device__ __forceinline__ void offer(int32_t t, float4 x) {
    offer(t, x.x);
    offer(t + 1, x.y);
    offer(t + 2, x.z);
    offer(t + 3, x.w);
  }
  __device__ __forceinline__ uint64_t packed() const {
    return pack(fault ? 0 : key_of(value), token);
  }
};

__device__ __forceinline__ bool usable(uint64_t greatest) {
  return key_part(greatest) >= kKeyOfGreatest && key_part(greatest) < kKeyOfLeast;
}

// Reads logits [size] of this rank; keeps them in slice.values when `keep`.
__device__ Greatest read_slice(const float* logits, const Slice& slice, bool aligned, bool keep) {
  Greatest greatest;
  if (aligned) {  // then size is a multiple of 4
    constexpr int kInFlight = 4;
    constexpr int32_t kStep = kThreads * 4;
    int32_t i = threadIdx.x * 4;
    for (; i + (kInFlight - 1) * kStep < slice.size; i += kInFlight * kStep) {
      float4 x[kInFlight];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        x[j] = __ldcs(reinterpret_cast<const float4*>(logits + i + j * kStep));
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        if (keep) *reinterpret_cast<float4*>(slice.values + i + j * kStep) = x[j];
        greatest.offer(slice.begin + i + j * kStep, x[j]);
      }
    }
    for (; i < slice.size; i += kStep) {
      const float4 x = __ldcs(reinterpret_cast<const float4*>(logits + i));
      if (keep) *reinterpret_cast<float4*>(slice.values + i) = x;
      greatest.offer(slice.begin + i, x);
    }
    return greatest;
  }
  const int32_t padded = (slice.size + 3) / 4 * 4;
  for (int32_t i = threadIdx.x; i < padded; i += kThreads) {
    const float x = i < slice.size ? logits[i] : -INFINITY;
    if (keep) slice.values[i] = x;
    greatest.offer(slice.begin + i, x);
  }
  if (keep) __syncthreads();  // later a thread reads whole quads
  return greatest;
}

}  // namespace lorax::cuda::sampling
