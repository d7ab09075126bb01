// The one symbol of lorax_cuda.so: how the addon, which knows no CUDA, gets at the CUDA backend.
//
// C++ objects and exceptions cross here, so both sides must be compiled from the same headers:
// `abi` says so, a hash of them that CMake makes (cmake/LoraxPluginAbi.cmake). Each side may carry
// its own libstdc++, never its own unwinder: types are compared by name, memory comes from the one
// malloc of the process.
// Implemented by cuda/plugin.cc, opened by binding/backend_plugin.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "cuda/cuda_backend.h"

namespace lorax {

// Nothing but `abi`, which stays first, may be touched before it was compared.
struct CudaPlugin {
  const char* abi = nullptr;  // kPluginAbi of the other side

  // One line about a usable device, "NVIDIA H100 80GB HBM3, sm_90, 79.2 GiB"; or throws
  // DEVICE_UNAVAILABLE, whose message completes "CUDA is not used, since ...".
  std::string (*probe)(int32_t device) = nullptr;

  std::unique_ptr<Backend> (*make_backend)(const CudaOptions& options) = nullptr;
};

inline constexpr char kPluginEntry[] = "lorax_cuda_plugin_v1";
using PluginEntry = const CudaPlugin* (*)();

}  // namespace lorax

#if defined(LORAX_PLUGIN_ABI)
namespace lorax {
#if defined(_LIBCPP_VERSION)
inline constexpr char kPluginAbi[] = LORAX_PLUGIN_ABI "-libc++";
#else
inline constexpr char kPluginAbi[] = LORAX_PLUGIN_ABI "-libstdc++";
#endif
}  // namespace lorax
#endif
