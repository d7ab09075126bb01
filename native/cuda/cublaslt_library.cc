#include "cuda/cublaslt_library.h"

#include <dlfcn.h>

#include <type_traits>

#include "backend/error.h"

namespace lorax::cuda {

CublasLtLibrary CublasLtLibrary::load(std::span<const char* const> names) {
  void* handle = nullptr;
  std::string why, wanted;
  for (const char* name : names) {
    wanted += (wanted.empty() ? "" : " nor ") + std::string(name);
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    const char* error = dlerror();
    if (why.empty() && error != nullptr) why = error;
  }
  const auto unavailable = [](const std::string& message) {
    return Error("DEVICE_UNAVAILABLE", message, {{"reason", std::string("no-cublaslt")}});
  };
  if (handle == nullptr) {
    throw unavailable(
        "neither " + wanted + " can be opened (" + why +
        "); install cuBLAS (CUDA toolkit: libcublas; pip: nvidia-cublas) and have its folder on "
        "the loader's path (ldconfig or LD_LIBRARY_PATH)");
  }
  CublasLtLibrary out;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    if (function == nullptr) {
      throw unavailable(std::string("this libcublasLt has no ") + name +
                        "; install cuBLAS 12 or 13");
    }
  };
  find(out.create, "cublasLtCreate");
  find(out.destroy, "cublasLtDestroy");
  find(out.get_version, "cublasLtGetVersion");
  find(out.matmul, "cublasLtMatmul");
  find(out.desc_create, "cublasLtMatmulDescCreate");
  find(out.desc_destroy, "cublasLtMatmulDescDestroy");
  find(out.desc_set, "cublasLtMatmulDescSetAttribute");
  find(out.layout_create, "cublasLtMatrixLayoutCreate");
  find(out.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(out.layout_set, "cublasLtMatrixLayoutSetAttribute");
  find(out.preference_create, "cublasLtMatmulPreferenceCreate");
  find(out.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(out.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(out.get_heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(out.algo_check, "cublasLtMatmulAlgoCheck");
  return out;
}

const CublasLtLibrary& CublasLtLibrary::open() {
  static constexpr const char* kNames[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
  static const CublasLtLibrary library = load(kNames);  // a failure is tried again the next time
  return library;
}

void check_cublas(cublasStatus_t status, const char* call, const std::string& what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error("ENGINE_LOST",
              std::string(call) + " failed for " + what + " (cublasStatus " +
                  std::to_string(static_cast<int>(status)) + ")",
              {{"call", std::string(call)}});
}

}  // namespace lorax::cuda
