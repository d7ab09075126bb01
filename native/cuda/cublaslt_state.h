// What CublasLt holds: the library's handle, the workspace, descriptors per shape, choices. Shared
// by cublaslt.cc (the matmul) and cublaslt_tuning.cc (the choosing).
//
// cuBLASLt counts columns first: our y[rows, n] is its [n, rows] = op(W)[n, k] x[k, rows], with W
// read as [k, n] and transposed.
#pragma once

#include <cublasLt.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cuda/cublaslt.h"
#include "cuda/cublaslt_choices.h"
#include "cuda/cublaslt_library.h"

namespace lorax::cuda {

// Descriptors of one shape; rows are set before each use.
class GemmDescriptors {
 public:
  GemmDescriptors(const CublasLtLibrary& library, const GemmShape& shape);
  ~GemmDescriptors();
  GemmDescriptors(const GemmDescriptors&) = delete;
  GemmDescriptors& operator=(const GemmDescriptors&) = delete;

  void set_rows(int32_t rows);
  void set_bias(const void* bias);

  cublasLtMatmulDesc_t matmul = nullptr;
  cublasLtMatrixLayout_t weight = nullptr;  // [k, n], leading dimension k
  cublasLtMatrixLayout_t x = nullptr;       // [k, rows]
  cublasLtMatrixLayout_t y = nullptr;       // [n, rows]

 private:
  void destroy();

  const CublasLtLibrary& library_;
  const GemmShape shape_;
  int32_t rows_ = 0;
};

struct CublasLt::State {
  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

  State(int device, std::string cache_directory);
  ~State();

  GemmDescriptors& descriptors(const GemmShape& shape);

  // The library's best guesses for this many rows, best first; throws when there is none.
  std::vector<cublasLtMatmulAlgo_t> guesses(const GemmShape& shape, int32_t rows, int32_t most);

  // Whether the algorithm can run on this shape and number of rows, within the workspace.
  bool can_run(const GemmShape& shape, int32_t rows, const cublasLtMatmulAlgo_t& algo);

  cublasStatus_t run(const GemmShape& shape, int32_t rows, const GemmOperands& operands,
                     const cublasLtMatmulAlgo_t& algo, cudaStream_t stream);

  const CublasLtLibrary& library;
  const int device;
  const std::string cache_directory;
  ChoicesOwner owner;
  cublasLtHandle_t handle = nullptr;
  void* workspace = nullptr;  // [kWorkspaceBytes]
  std::map<GemmShape, std::unique_ptr<GemmDescriptors>> descriptors_of;
  GemmChoices choices;
  // For exact numbers of rows that a bucket's choice could not do.
  GemmChoices exceptions;
};

std::string describe(const GemmShape& shape, int32_t rows);

}  // namespace lorax::cuda
