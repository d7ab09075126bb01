// Counters by which a kernel tells a later one that is already running that its output is complete
// (StepArrays::ready): earlier than the end of the kernels between them.
//
// Every block of the writer arrives once. A waiter spins, so all blocks of the writer must have
// started before it: kernels of a stream that are launched by programmatic dependent launch start
// only when all blocks of the one before have, which holds for any two of such a chain; without the
// overlap the writer has ended. A counter is used once a step and zeroed by the step's upload.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace lorax::cuda {

// By all threads of a block, after its last write of the output. Null: nothing is told.
__device__ __forceinline__ void signal_ready(uint32_t* ready) {
  if (ready == nullptr) return;
  __syncthreads();
  if (threadIdx.x == 0) {
    // Releases what the barrier ordered before it, that is, the writes of the whole block.
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(ready) : "memory");
  }
}

// By a thread that then has the output read by the copy engine.
__device__ __forceinline__ void wait_until_ready(const uint32_t* ready, uint32_t count) {
  uint32_t arrived;
  // An acquire drops the cache of the kernels beside us: once.
  do {
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(ready) : "memory");
  } while (arrived < count);
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(arrived) : "l"(ready) : "memory");
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  // It was written as ordinary memory.
  asm volatile("fence.proxy.async.global;" ::: "memory");
#endif
}

}  // namespace lorax::cuda
