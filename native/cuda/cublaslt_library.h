// libcublasLt as opened at run time: its functions by name, its types from the toolkit's header.
// Never linked, so that the backend loads where the library is missing. Used by cublaslt*.cc.
#pragma once

#include <cublasLt.h>

#include <span>
#include <string>

namespace lorax::cuda {

struct CublasLtLibrary {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetVersion) get_version = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) layout_set = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) get_heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) algo_check = nullptr;

  // The machine's, opened once, never closed. Throws DEVICE_UNAVAILABLE (reason no-cublaslt).
  static const CublasLtLibrary& open();

  // The first of these that can be opened; open() asks for versions 13 and 12.
  static CublasLtLibrary load(std::span<const char* const> names);
};

// Throws ENGINE_LOST naming the call and what it was for.
void check_cublas(cublasStatus_t status, const char* call, const std::string& what);

}  // namespace lorax::cuda
