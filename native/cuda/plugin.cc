// lorax_cuda.so's entry: the table of plugin.h.
#include "cuda/plugin.h"

#include "cuda/cuda_backend.h"
#include "cuda/probe.h"

extern "C" __attribute__((visibility("default"))) const lorax::CudaPlugin* lorax_cuda_plugin_v1() {
  static constexpr lorax::CudaPlugin kPlugin = {
      lorax::kPluginAbi,
      lorax::cuda::probe_device,
      lorax::make_cuda_backend,
  };
  return &kPlugin;
}
