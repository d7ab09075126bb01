// dlopen keeps count by file, so every engine of the process gets the same plugin.
#include "binding/backend_plugin.h"

#include <cstring>
#include <utility>

#include "backend/error.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace lorax {
namespace {

Error unavailable(const char* reason, const std::string& message, const std::string& path) {
  ErrorData data{{"device", std::string("cuda")}, {"reason", std::string(reason)}};
  if (!path.empty()) data["file"] = path;
  return Error("DEVICE_UNAVAILABLE", message, std::move(data));
}

}  // namespace

#if defined(__linux__)

const CudaPlugin& open_cuda_plugin(const std::string& path) {
  if (path.empty()) {
    throw unavailable("not-built", "the CUDA backend (lorax_cuda.so) is not built", path);
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    const char* why = dlerror();
    throw unavailable(
        "not-loadable",
        "the CUDA backend cannot be opened: " + std::string(why == nullptr ? path.c_str() : why),
        path);
  }
  const auto entry = reinterpret_cast<PluginEntry>(dlsym(library, kPluginEntry));
  const CudaPlugin* plugin = entry == nullptr ? nullptr : entry();
  if (plugin == nullptr || std::strcmp(plugin->abi, kPluginAbi) != 0) {
    throw unavailable("other-version",
                      path + " is not of this version: build it again (`npx lorax-js build`)",
                      path);
  }
  return *plugin;
}

#else

const CudaPlugin& open_cuda_plugin(const std::string& path) {
  throw unavailable("not-built", "the CUDA backend is for Linux only", path);
}

#endif

}  // namespace lorax
