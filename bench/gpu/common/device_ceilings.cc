// Medians of timed repetitions, after a warm-up.
#include "common/device_ceilings.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <functional>
#include <random>
#include <vector>

#include "cuda/check.h"
#include "cuda/cublaslt.h"
#include "cuda/device_memory.h"

namespace lorax::bench {
namespace {

double median_seconds(cudaStream_t stream, int repetitions, const std::function<void()>& enqueue) {
  cudaEvent_t begin, end;
  LORAX_CUDA(cudaEventCreate(&begin));
  LORAX_CUDA(cudaEventCreate(&end));
  std::vector<double> seconds;
  for (int i = 0; i < repetitions + 3; ++i) {
    LORAX_CUDA(cudaEventRecord(begin, stream));
    enqueue();
    LORAX_CUDA(cudaEventRecord(end, stream));
    LORAX_CUDA(cudaEventSynchronize(end));
    float ms = 0.0f;
    LORAX_CUDA(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) seconds.push_back(ms / 1e3);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace

DeviceCeilings measure_device_ceilings(const std::string& cache_directory) {
  DeviceCeilings out;
  cudaDeviceProp properties;
  LORAX_CUDA(cudaGetDeviceProperties(&properties, 0));
  out.name = properties.name;
  cudaStream_t stream;
  LORAX_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  {
    constexpr int64_t kBytes = int64_t{2} << 30;
    const cuda::DeviceBuffer from(kBytes, "copy");
    const cuda::DeviceBuffer to(kBytes, "copy");
    LORAX_CUDA(cudaMemset(from.as<void>(), 1, kBytes));
    const double seconds = median_seconds(stream, 20, [&] {
      LORAX_CUDA(cudaMemcpyAsync(to.as<void>(), from.as<void>(), kBytes, cudaMemcpyDeviceToDevice,
                                 stream));
    });
    out.copy_bytes_per_second = 2.0 * kBytes / seconds;
  }
  {
    constexpr int32_t kSize = 8192;
    constexpr int64_t kValues = int64_t{kSize} * kSize;
    std::mt19937 engine(1);
    std::vector<uint16_t> values(kValues);
    // Random mantissas and signs around 1.
    for (uint16_t& value : values) value = static_cast<uint16_t>(0x3f00u ^ (engine() & 0x80ffu));
    const cuda::DeviceBuffer x(kValues * 2, "gemm"), w(kValues * 2, "gemm"), y(kValues * 2, "gemm");
    for (const cuda::DeviceBuffer* to : {&x, &w}) {
      LORAX_CUDA(cudaMemcpy(to->as<void>(), values.data(), kValues * 2, cudaMemcpyHostToDevice));
    }
    cuda::CublasLt cublaslt(0, cache_directory);
    const cuda::GemmShape shape{kSize, kSize, false, false};
    const cuda::GemmUse use{shape, kSize};
    cublaslt.tune(std::span(&use, 1), stream);
    const double seconds = median_seconds(stream, 50, [&] {
      cublaslt.matmul(shape, kSize,
                      {x.as<__nv_bfloat16>(), w.as<__nv_bfloat16>(), nullptr, y.as<void>()},
                      stream);
    });
    out.gemm_flops = 2.0 * kValues * kSize / seconds;
  }
  cudaStreamDestroy(stream);
  return out;
}

}  // namespace lorax::bench
