// Functions that kernels and the host share.
#pragma once

#ifdef __CUDACC__
#define LORAX_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define LORAX_HOST_DEVICE inline
#endif
