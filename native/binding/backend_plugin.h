// Opens lorax_cuda.so, the CUDA backend, which a machine without CUDA neither has nor needs.
//
// Knows no N-API and no path: TypeScript found it. A plugin stays open until the process ends,
// since objects, exceptions and threads of it may live anywhere. Called by make_model, any thread.
#pragma once

#include <string>

#include "cuda/plugin.h"

namespace lorax {

// `path` empty: there is none. Throws DEVICE_UNAVAILABLE; its data's `reason` is not-built,
// not-loadable or other-version.
const CudaPlugin& open_cuda_plugin(const std::string& path);

}  // namespace lorax
