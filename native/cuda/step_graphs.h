// Recorded steps of few rows: one CUDA graph per number of rows and kind of kernels for adapters.
//
// A graph knows nothing of a step but its rows: all else is read from StepArrays, so one graph
// serves any sequences and any adapters. It ends with the logits. Used by the backend alone.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

namespace lorax::cuda {

// Which kernels a step has for its adapters: those of the linears, or some of their own.
enum class AdapterKernels { kNone, kFused, kApart };

class StepGraphs {
 public:
  explicit StepGraphs(cudaStream_t stream) : stream_(stream) {}
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  // The numbers of rows worth a graph, ascending: 1 to `max_rows`.
  static std::vector<int32_t> buckets(int32_t max_rows);

  // Captures what `issue` enqueues on the stream.
  void record(int32_t rows, AdapterKernels adapters, const std::function<void()>& issue);

  // The smallest recorded number of rows that holds `rows`; 0 when there is none.
  int32_t bucket_for(int32_t rows, AdapterKernels adapters) const;

  void launch(int32_t bucket, AdapterKernels adapters) const;

 private:
  cudaStream_t stream_;
  std::map<std::pair<int32_t, AdapterKernels>, cudaGraphExec_t> graphs_;
};

}  // namespace lorax::cuda
