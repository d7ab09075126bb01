#include "cuda/cublaslt.h"

#include <array>
#include <type_traits>

#include "cuda/check.h"
#include "cuda/cublaslt_state.h"

namespace lorax::cuda {

std::string describe(const GemmShape& shape, int32_t rows) {
  return "y[" + std::to_string(rows) + ", " + std::to_string(shape.n) +
         "], k = " + std::to_string(shape.k) + (shape.float_output ? ", float32" : ", bf16") +
         (shape.has_bias ? ", bias" : "");
}

// ---- descriptors ----

GemmDescriptors::GemmDescriptors(const CublasLtLibrary& library, const GemmShape& shape)
    : library_(library), shape_(shape) {
  const std::string what = describe(shape, 1);
  const cudaDataType_t y_type = shape.float_output ? CUDA_R_32F : CUDA_R_16BF;
  const auto n = static_cast<uint64_t>(shape.n), k = static_cast<uint64_t>(shape.k);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check_cublas(library_.desc_set(matmul, attribute, &value, sizeof(value)),
                 "cublasLtMatmulDescSetAttribute", what);
  };
  try {
    check_cublas(library_.desc_create(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescCreate", what);
    set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    if (shape.has_bias) {
      set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, y_type);
    }
    check_cublas(library_.layout_create(&weight, CUDA_R_16BF, k, n, shape.k),
                 "cublasLtMatrixLayoutCreate", what);
    check_cublas(library_.layout_create(&x, CUDA_R_16BF, k, 1, shape.k),
                 "cublasLtMatrixLayoutCreate", what);
    check_cublas(library_.layout_create(&y, y_type, n, 1, shape.n), "cublasLtMatrixLayoutCreate",
                 what);
  } catch (...) {
    destroy();
    throw;
  }
}

GemmDescriptors::~GemmDescriptors() { destroy(); }

void GemmDescriptors::destroy() {
  for (const cublasLtMatrixLayout_t layout : {weight, x, y}) {
    if (layout != nullptr) library_.layout_destroy(layout);
  }
  if (matmul != nullptr) library_.desc_destroy(matmul);
}

void GemmDescriptors::set_rows(int32_t rows) {
  if (rows == rows_) return;
  const auto cols = static_cast<uint64_t>(rows);
  for (const cublasLtMatrixLayout_t layout : {x, y}) {
    check_cublas(library_.layout_set(layout, CUBLASLT_MATRIX_LAYOUT_COLS, &cols, sizeof(cols)),
                 "cublasLtMatrixLayoutSetAttribute", describe(shape_, rows));
  }
  rows_ = rows;
}

void GemmDescriptors::set_bias(const void* bias) {
  check_cublas(library_.desc_set(matmul, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof(bias)),
               "cublasLtMatmulDescSetAttribute", describe(shape_, rows_));
}

// ---- state ----

CublasLt::State::State(int which, std::string directory)
    : library(CublasLtLibrary::open()), device(which), cache_directory(std::move(directory)) {
  LORAX_CUDA(cudaSetDevice(device));
  cudaDeviceProp properties;
  LORAX_CUDA(cudaGetDeviceProperties(&properties, device));
  owner.device = std::string(properties.name) + " sm_" +
                 std::to_string(properties.major * 10 + properties.minor) + " " +
                 std::to_string(properties.multiProcessorCount);
  owner.version = static_cast<int64_t>(library.get_version());
  check_cublas(library.create(&handle), "cublasLtCreate", owner.device);
  const cudaError_t status = cudaMalloc(&workspace, kWorkspaceBytes);
  if (status != cudaSuccess) {
    library.destroy(handle);
    check(status, "cudaMalloc of cuBLASLt's workspace (32 MiB)");
  }
}

CublasLt::State::~State() {
  descriptors_of.clear();
  library.destroy(handle);
  cudaFree(workspace);
}

GemmDescriptors& CublasLt::State::descriptors(const GemmShape& shape) {
  std::unique_ptr<GemmDescriptors>& found = descriptors_of[shape];
  if (!found) found = std::make_unique<GemmDescriptors>(library, shape);
  return *found;
}

std::vector<cublasLtMatmulAlgo_t> CublasLt::State::guesses(const GemmShape& shape, int32_t rows,
                                                           int32_t most) {
  GemmDescriptors& d = descriptors(shape);
  d.set_rows(rows);
  cublasLtMatmulPreference_t raw = nullptr;
  check_cublas(library.preference_create(&raw), "cublasLtMatmulPreferenceCreate",
               describe(shape, rows));
  const auto destroy = [this](cublasLtMatmulPreference_t p) { library.preference_destroy(p); };
  const std::unique_ptr<std::remove_pointer_t<cublasLtMatmulPreference_t>, decltype(destroy)>
      preference(raw, destroy);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check_cublas(library.preference_set(raw, attribute, &value, sizeof(value)),
                 "cublasLtMatmulPreferenceSetAttribute", describe(shape, rows));
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  // Parts of k are added in float32, in one order: never in bf16, never in y itself.
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    set(attribute, uint32_t{16});
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<size_t>(most));
  int found = 0;
  check_cublas(library.get_heuristic(handle, d.matmul, d.weight, d.x, d.y, d.y, raw, most,
                                     results.data(), &found),
               "cublasLtMatmulAlgoGetHeuristic", describe(shape, rows));
  std::vector<cublasLtMatmulAlgo_t> algos;
  for (int i = 0; i < found; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) algos.push_back(results[i].algo);
  }
  if (algos.empty()) {
    check_cublas(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic",
                 describe(shape, rows));
  }
  return algos;
}

bool CublasLt::State::can_run(const GemmShape& shape, int32_t rows,
                              const cublasLtMatmulAlgo_t& algo) {
  GemmDescriptors& d = descriptors(shape);
  d.set_rows(rows);
  cublasLtMatmulHeuristicResult_t result = {};
  const cublasStatus_t status =
      library.algo_check(handle, d.matmul, d.weight, d.x, d.y, d.y, &algo, &result);
  return status == CUBLAS_STATUS_SUCCESS && result.workspaceSize <= kWorkspaceBytes;
}

cublasStatus_t CublasLt::State::run(const GemmShape& shape, int32_t rows,
                                    const GemmOperands& operands, const cublasLtMatmulAlgo_t& algo,
                                    cudaStream_t stream) {
  GemmDescriptors& d = descriptors(shape);
  d.set_rows(rows);
  if (shape.has_bias) d.set_bias(operands.bias);
  const float alpha = 1.0f, beta = 0.0f;
  return library.matmul(handle, d.matmul, &alpha, operands.weight, d.weight, operands.x, d.x, &beta,
                        operands.y, d.y, operands.y, d.y, &algo, workspace, kWorkspaceBytes,
                        stream);
}

// ---- the class ----

CublasLt::CublasLt(int device, std::string cache_directory)
    : state_(std::make_unique<State>(device, std::move(cache_directory))) {}

CublasLt::~CublasLt() = default;

int64_t CublasLt::version() const { return state_->owner.version; }

void CublasLt::matmul(const GemmShape& shape, int32_t rows, const GemmOperands& operands,
                      cudaStream_t stream) {
  if (rows == 0) return;
  State& state = *state_;
  const int32_t bucket = row_bucket(rows);
  auto exception = state.exceptions.find({shape, rows});
  if (exception == state.exceptions.end()) {
    auto choice = state.choices.find({shape, bucket});
    if (choice == state.choices.end()) {
      const auto best = state.guesses(shape, bucket, 1).front();
      choice = state.choices.insert({{shape, bucket}, best}).first;
    }
    const cublasStatus_t status = state.run(shape, rows, operands, choice->second, stream);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED && status != CUBLAS_STATUS_INVALID_VALUE) {
      return check_cublas(status, "cublasLtMatmul", describe(shape, rows));
    }
    const auto best = state.guesses(shape, rows, 1).front();
    exception = state.exceptions.insert({{shape, rows}, best}).first;
  }
  check_cublas(state.run(shape, rows, operands, exception->second, stream), "cublasLtMatmul",
               describe(shape, rows));
}

}  // namespace lorax::cuda
