// Every CUDA call goes through LORAX_CUDA, every launch through check_launch: a failure throws
// ENGINE_LOST naming the call. An error that poisons the process's context says `recoverable`
// false: no engine can be made in this process any more.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "backend/error.h"

namespace lorax::cuda {

// Whether a fresh engine may be made in this process after `status` (CUDA runtime API, sticky
// errors).
bool is_recoverable(cudaError_t status);

[[noreturn]] void fail(cudaError_t status, const char* call);

inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) fail(status, call);
}

// After a kernel launch. `kernel` is its name, for the error.
inline void check_launch(const char* kernel) { check(cudaGetLastError(), kernel); }

// What was in the stream before `event` was recorded is over.
inline bool is_over(cudaEvent_t event) {
  const cudaError_t status = cudaEventQuery(event);
  if (status == cudaErrorNotReady) {
    cudaGetLastError();  // it is no error
    return false;
  }
  check(status, "cudaEventQuery");
  return true;
}

}  // namespace lorax::cuda

#define LORAX_CUDA(call) ::lorax::cuda::check((call), #call)
