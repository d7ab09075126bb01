// The CUDA implementation of backend/backend.h: bf16 on one GPU of compute capability 8.0 or newer.
//
// Steps are enqueued on one stream and collected later; steps of few rows are recorded as CUDA
// graphs. Plain C++: the addon includes it for CudaOptions, and reaches the function through
// plugin.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"

namespace lorax {

struct CudaOptions {
  int32_t device = 0;  // as the CUDA runtime counts
  // Of the memory that is free once all else has taken its share, what the page pool takes where
  // allocate_pages is given no size.
  double memory_fraction = 0.9;
  std::string cache_directory;  // measured choices are kept here between runs; empty = nowhere
  bool deterministic = false;   // a sequence's numbers do not depend on its neighbours
};

// Throws DEVICE_UNAVAILABLE as probe_device (cuda/probe.h) does, POOL_EXHAUSTED for memory that
// is not to be had, ENGINE_LOST for a failing call.
std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options);

}  // namespace lorax
