// The CUDA implementation of backend/backend.h: bf16 on one GPU of compute capability 8.0 or newer.
//
// Steps are enqueued on one stream and collected later; decode steps are recorded as CUDA graphs.
// Plain C++: the addon includes it for CudaOptions, and reaches the function through plugin.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"

namespace lorax {

// How linears of few rows are launched. For benchmarks; no choice changes a result.
struct LinearTuning {
  // A linear reads x as soon as x is complete, not when the kernels in between have ended: where
  // adapters' shrink is in between, and where nothing is.
  bool flags_with_adapters = true;
  bool flags_on_base = false;
  // Of shared memory, for a block that streams weights, in steps without and with adapters; what it
  // leaves is room for small kernels beside it. 0: all there is.
  int64_t shared_bytes_cap = 0;
  int64_t shared_bytes_cap_with_adapters = 188 * 1024;  // a block of shrink fits beside
  int32_t shrink_blocks = 1;                            // of adapters' shrink, a multiprocessor
};

struct CudaOptions {
  int32_t device = 0;  // as the CUDA runtime counts
  // Of the memory that is free once all else has taken its share, what the page pool takes where
  // allocate_pages is given no size.
  double memory_fraction = 0.9;
  std::string cache_directory;  // measured choices are kept here between runs; empty = nowhere
  bool deterministic = false;   // a sequence's numbers do not depend on its neighbours
  LinearTuning tuning;
};

// Throws DEVICE_UNAVAILABLE as probe_device (cuda/probe.h) does, POOL_EXHAUSTED for memory that
// is not to be had, ENGINE_LOST for a failing call.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

}  // namespace lorax
