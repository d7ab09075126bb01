// One launch first, outside the capture: it loads the kernel. Two replays warm up.
#include "common/graph_timer.h"

#include <algorithm>
#include <vector>

#include "cuda/check.h"

namespace lorax::bench {

double micros(int count, cudaStream_t stream, const std::function<void(int)>& launch) {
  constexpr int kWarmUp = 2;
  constexpr int kReplays = 9;
  launch(0);
  LORAX_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  cudaEvent_t begin, end;
  LORAX_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) launch(i);
  LORAX_CUDA(cudaStreamEndCapture(stream, &graph));
  LORAX_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  LORAX_CUDA(cudaEventCreate(&begin));
  LORAX_CUDA(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + kReplays; ++i) {
    LORAX_CUDA(cudaEventRecord(begin, stream));
    LORAX_CUDA(cudaGraphLaunch(exec, stream));
    LORAX_CUDA(cudaEventRecord(end, stream));
    LORAX_CUDA(cudaEventSynchronize(end));
    float ms = 0.0f;
    LORAX_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= kWarmUp) times.push_back(ms * 1e3 / count);
  }
  LORAX_CUDA(cudaEventDestroy(begin));
  LORAX_CUDA(cudaEventDestroy(end));
  LORAX_CUDA(cudaGraphExecDestroy(exec));
  LORAX_CUDA(cudaGraphDestroy(graph));
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace lorax::bench
