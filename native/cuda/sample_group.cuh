// The blocks that share one row of logits, kRanks of them: a cluster whose blocks read each other's
// shared memory, or a single block. Rank r holds tokens [r * slice, (r + 1) * slice).
//
// A reduction or a select is called by all threads of all ranks and gives all of them the same
// bits. Included by sample.cu alone.
#pragma once

#include <cstdint>

#include "cuda/sample.h"

namespace lorax::cuda::sampling {

constexpr int kThreads = 384;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = kThreads;  // of a histogram: one a thread
constexpr int kMaxRanks = 8;
constexpr int kMaxTies = 64;

// ---- an order on floats as integers ----

// Ascending where the value descends; equal for equal values (-0 and +0). NaN is not for here.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = __float_as_uint(__fadd_rn(x, 0.0f));
  return bits & 0x80000000u ? bits : 0x7FFFFFFFu - bits;
}
__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key : 0x7FFFFFFFu - key);
}
constexpr uint32_t kKeyOfLeast = 0xFF800000u;     // -inf
constexpr uint32_t kKeyOfGreatest = 0x00800000u;  // the greatest finite value; faults come before

// Ascending with the value, for atomicMax.
__device__ __forceinline__ uint32_t mark_of(float x) { return ~key_of(x); }
__device__ __forceinline__ float value_of_mark(uint32_t mark) { return value_of(~mark); }

// A token and its value; ascending: descending by value, the lowest token first.
__device__ __forceinline__ uint64_t pack(uint32_t key, int32_t token) {
  return static_cast<uint64_t>(key) << 32 | static_cast<uint32_t>(token);
}
__device__ __forceinline__ uint32_t key_part(uint64_t packed) {
  return static_cast<uint32_t>(packed >> 32);
}
__device__ __forceinline__ int32_t token_part(uint64_t packed) {
  return static_cast<int32_t>(packed);
}
constexpr uint64_t kNothing = ~0ull;

// ---- shared memory of one block ----

struct RowMemory {
  SampleParameters row;
  uint64_t of_warp[kWarps];
  uint64_t of_rank[2][kMaxRanks];  // turn by turn: a reduction's values are read until the next
  uint32_t count[kBins];
  uint32_t mass_low[kBins];  // 64-bit sums in halves: shared memory adds 32 bits at once
  uint32_t mass_high[kBins];
  uint64_t found[4];
  uint64_t top[32];  // rank 0's: the alternatives, in no order
  uint32_t top_count;
  uint32_t mark;           // mark_of the best noisy value so far, nearly
  uint32_t in_history;     // whether the row's own input stands in its history
  uint32_t num_ties;       // of ties[]; more than fit: the row is gone through again
  int32_t ties[kMaxTies];  // tokens
};

// ---- communication ----

template <int kRanks>
struct Group {
  static __device__ __forceinline__ int rank() {
    return kRanks == 1 ? 0 : static_cast<int>(blockIdx.x % kRanks);
  }

  // A barrier of all threads of all ranks, in halves. Nothing of another rank's is touched before
  // the first one.
  static __device__ __forceinline__ void arrive() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (kRanks > 1) {
      asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    }
#endif
  }
  static __device__ __forceinline__ void wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (kRanks > 1) {
      asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
      return;
    }
#endif
    __syncthreads();
  }
  static __device__ __forceinline__ void sync() {
    arrive();
    wait();
  }

  // The same variable of another rank.
  template <typename T>
  static __device__ __forceinline__ T* at_rank(T* shared, int rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    if constexpr (kRanks > 1) {
      uint64_t peer;
      asm volatile("mapa.u64 %0, %1, %2;" : "=l"(peer) : "l"(shared), "r"(rank));
      return reinterpret_cast<T*>(peer);
    }
#endif
    return shared;
  }
};

struct Least {
  static constexpr uint64_t kIdentity = kNothing;
  // The high halves first, then the low halves of those that share the least.
  static __device__ __forceinline__ uint64_t over_warp(uint64_t x) {
    const auto high = static_cast<uint32_t>(x >> 32);
    const uint32_t least = __reduce_min_sync(~0u, high);
    const uint32_t low = __reduce_min_sync(~0u, high == least ? static_cast<uint32_t>(x) : ~0u);
    return static_cast<uint64_t>(least) << 32 | low;
  }
};

struct Sum {
  static constexpr uint64_t kIdentity = 0;
  static __device__ __forceinline__ uint64_t over_warp(uint64_t x) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
    return x;
  }
};

// Op over the values of all threads of all ranks. `turn` alternates from call to call.
template <int kRanks, typename Op>
__device__ uint64_t reduce(RowMemory& memory, int& turn, uint64_t x) {
  const int lane = threadIdx.x % 32;
  x = Op::over_warp(x);
  if (lane == 0) memory.of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  x = Op::over_warp(lane < kWarps ? memory.of_warp[lane] : Op::kIdentity);
  if constexpr (kRanks == 1) {
    __syncthreads();  // of_warp is read before it is written again
    return x;
  } else {
    uint64_t* slots = memory.of_rank[turn];
    turn ^= 1;
    if (threadIdx.x < kRanks) {
      *Group<kRanks>::at_rank(&slots[Group<kRanks>::rank()], static_cast<int>(threadIdx.x)) = x;
    }
    Group<kRanks>::sync();
    return Op::over_warp(lane < kRanks ? slots[lane] : Op::kIdentity);
  }
}

}  // namespace lorax::cuda::sampling
