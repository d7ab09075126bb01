// Blocks that share their shared memory (thread block clusters), and what stands for them before
// sm_90: a block that is its own cluster.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lorax::cuda {

template <int kCluster>
__device__ __forceinline__ int cluster_rank() {
  uint32_t rank = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (kCluster > 1) asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return static_cast<int>(rank);
}

template <int kCluster>
__device__ __forceinline__ void cluster_barrier() {
  if constexpr (kCluster == 1) {
    __syncthreads();
  } else {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
  }
}

// What block `rank` of the cluster has where this one has `mine`, in shared memory.
template <int kCluster>
__device__ __forceinline__ float4 load_from_block(const float* mine, int rank) {
  if constexpr (kCluster == 1) {
    return *reinterpret_cast<const float4*>(mine);
  } else {
    float4 out = {};
#if __CUDA_ARCH__ >= 900
    uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(mine));
    asm("mapa.shared::cluster.u32 %0, %0, %1;" : "+r"(address) : "r"(rank));
    asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(out.x), "=f"(out.y), "=f"(out.z), "=f"(out.w)
                 : "r"(address)
                 : "memory");
#endif
    return out;
  }
}

}  // namespace lorax::cuda
