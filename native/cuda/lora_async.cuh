// Copies of 16 bytes from global to shared memory that a thread starts now and waits for later
// (cp.async): many bytes under way and no registers held. Any device from sm_80 on.
//
// What arrived is seen by the thread that asked for it once it has waited; by others after a
// barrier behind that.
#pragma once

#include <cstdint>

namespace lorax::cuda {

// Past the first-level cache; the second takes whole lines, whose rest is wanted soon.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}

// Zeros where `exists` is false; `from` must be readable all the same.
__device__ __forceinline__ void copy_async_or_zero(void* to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from), "r"(exists ? 16 : 0)
               : "memory");
}

// Ends a group of copies: what this thread started since the last group.
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

// Until at most the kNewest newest groups are under way.
template <int kNewest>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
}

}  // namespace lorax::cuda
