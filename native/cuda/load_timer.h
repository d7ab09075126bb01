// How long a page of an adapter takes from host memory into the pool, by the device's clock.
//
// One load is measured at a time, and read when it is over; nothing waits for it. Step thread.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/recent_rate.h"
#include "cuda/check.h"

namespace lorax::cuda {

class LoadTimer {
 public:
  LoadTimer() {
    LORAX_CUDA(cudaEventCreate(&begin_));
    LORAX_CUDA(cudaEventCreate(&end_));
  }
  ~LoadTimer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  LoadTimer(const LoadTimer&) = delete;
  LoadTimer& operator=(const LoadTimer&) = delete;

  // Around the copies of a load.
  void begin(cudaStream_t copies) {
    if (num_pages_ == 0) LORAX_CUDA(cudaEventRecord(begin_, copies));
  }
  void end(cudaStream_t copies, int32_t num_pages) {
    if (num_pages_ > 0) return;
    LORAX_CUDA(cudaEventRecord(end_, copies));
    num_pages_ = num_pages;
  }

  // 0: none was measured yet.
  int64_t page_ns() {
    if (num_pages_ == 0) return pages_.ns_each();
    if (!is_over(end_)) return pages_.ns_each();
    float millis = 0.0f;
    LORAX_CUDA(cudaEventElapsedTime(&millis, begin_, end_));
    pages_.add(num_pages_, static_cast<int64_t>(static_cast<double>(millis) * 1e6));
    num_pages_ = 0;
    return pages_.ns_each();
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  int32_t num_pages_ = 0;  // of the load being measured; 0: none is
  RecentRate pages_{1 << 12};
};

}  // namespace lorax::cuda
