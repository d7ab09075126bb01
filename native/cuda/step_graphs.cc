// Stream capture; instantiated graphs are uploaded at once, so that a first launch costs no more.
#include "cuda/step_graphs.h"

#include <algorithm>
#include <exception>

#include "cuda/check.h"

namespace lorax::cuda {

StepGraphs::~StepGraphs() {
  for (const auto& [key, graph] : graphs_) cudaGraphExecDestroy(graph);
}

std::vector<int32_t> StepGraphs::buckets(int32_t max_rows) {
  std::vector<int32_t> out;
  for (const int32_t rows : {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256}) {
    if (rows <= max_rows) out.push_back(rows);
  }
  return out;
}

void StepGraphs::record(int32_t rows, AdapterKernels adapters, const std::function<void()>& issue) {
  LORAX_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    issue();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  LORAX_CUDA(cudaStreamEndCapture(stream_, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  check(status, "cudaGraphInstantiate");
  graphs_[{rows, adapters}] = executable;
  LORAX_CUDA(cudaGraphUpload(executable, stream_));
}

int32_t StepGraphs::bucket_for(int32_t rows, AdapterKernels adapters) const {
  const auto found =
      std::find_if(graphs_.lower_bound({rows, AdapterKernels::kNone}), graphs_.end(),
                   [&](const auto& graph) { return graph.first.second == adapters; });
  return found == graphs_.end() ? 0 : found->first.first;
}

void StepGraphs::launch(int32_t bucket, AdapterKernels adapters) const {
  LORAX_CUDA(cudaGraphLaunch(graphs_.at({bucket, adapters}), stream_));
}

}  // namespace lorax::cuda
