#include "cuda/device_shape.h"

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>

#include "cuda/check.h"

namespace lorax::cuda {

DeviceShape device_shape() {
  static std::mutex mutex;
  static std::map<int, DeviceShape> known;
  int device = 0;
  LORAX_CUDA(cudaGetDevice(&device));
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = known.try_emplace(device);
  if (is_new) {
    LORAX_CUDA(
        cudaDeviceGetAttribute(&at->second.major, cudaDevAttrComputeCapabilityMajor, device));
    LORAX_CUDA(cudaDeviceGetAttribute(&at->second.multiprocessors, cudaDevAttrMultiProcessorCount,
                                      device));
  }
  return at->second;
}

}  // namespace lorax::cuda
