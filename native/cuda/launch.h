// Launching kernels that overlap the one before them (programmatic dependent launch), optionally in
// clusters; and the two instructions such kernels hold.
//
// Every kernel launched here calls let_next_start() at its start and wait_for_previous() before it
// touches what an earlier kernel of the stream writes or reads, on every path: a kernel that ended
// without waiting would let the next one run beside the one before. (make_lora_rows alone lets
// nobody start before its end.) Included by .cu files only.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <utility>

#include "cuda/check.h"

namespace lorax::cuda {

struct LaunchShape {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  unsigned cluster = 1;  // blocks along x that share their shared memory; sm_90 and newer
  bool overlaps = true;  // false: starts when all before it have ended
};

// Before sm_90 there is no overlap: kernels of a stream follow each other.
__device__ __forceinline__ void wait_for_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ __forceinline__ void let_next_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// The attribute that asks for the overlap is ignored by devices that have none.
template <typename... Params, typename... Args>
void launch_overlapping(const char* name, void (*kernel)(Params...), const LaunchShape& shape,
                        cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = attributes;
  if (shape.overlaps) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs].val.clusterDim.x = shape.cluster;
    attributes[config.numAttrs].val.clusterDim.y = 1;
    attributes[config.numAttrs++].val.clusterDim.z = 1;
  }
  check(cudaLaunchKernelEx(&config, kernel, Params(std::forward<Args>(args))...), name);
}

}  // namespace lorax::cuda
