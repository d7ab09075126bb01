// How small kernels are timed: many launches in one graph, so that gaps between launches do not
// count.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace lorax::bench {

// Median microseconds of one of `count` launches in a graph; launch(i) enqueues the i-th.
double micros(int count, cudaStream_t stream, const std::function<void(int)>& launch);

}  // namespace lorax::bench
