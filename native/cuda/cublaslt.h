// y = x W^T (+ bias) through cuBLASLt, for steps of many rows: bf16 in, float32 accumulated.
//
// The library is the machine's, opened at run time. Which of its algorithms runs for (rows bucket,
// n, k) is measured at load time, and kept on disk per device and version of the library. One
// thread at a time; a matmul only enqueues and can be captured. Used by the backend's linears.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace lorax::cuda {

// What is multiplied, but for the number of rows.
struct GemmShape {
  int32_t n = 0;
  int32_t k = 0;
  bool float_output = false;  // y is float32, else bf16
  bool has_bias = false;

  friend bool operator==(const GemmShape&, const GemmShape&) = default;
  friend auto operator<=>(const GemmShape&, const GemmShape&) = default;
};

struct GemmOperands {
  const __nv_bfloat16* x = nullptr;       // [rows, k]
  const __nv_bfloat16* weight = nullptr;  // [n, k]
  const void* bias = nullptr;             // [n], of y's element type; null without has_bias
  void* y = nullptr;                      // [rows, n]
};

// A shape that steps will use, with the most rows it will see.
struct GemmUse {
  GemmShape shape;
  int32_t max_rows = 0;
};

// What tune() did, for logs and tests.
struct TuningReport {
  int32_t measured = 0;    // (bucket, shape) pairs timed now
  int32_t remembered = 0;  // taken from disk
  double seconds = 0.0;
};

class CublasLt {
 public:
  // `cache_directory`: where choices are kept between runs, made if need be; empty = nowhere.
  // Throws DEVICE_UNAVAILABLE (reason no-cublaslt) where the library is missing.
  CublasLt(int device, std::string cache_directory);
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;
  CublasLt& operator=(const CublasLt&) = delete;

  // Chooses algorithms for every bucket up to max_rows: from disk, else by timing the library's
  // best guesses on weights that are not in the cache. Takes device memory for as long as it runs;
  // without enough of it the library's first guess stands. Waits for the stream.
  TuningReport tune(std::span<const GemmUse> uses, cudaStream_t stream);

  // Shapes that were not tuned run on the library's first guess, asked for on their first use.
  // All pointers are 16-byte aligned.
  void matmul(const GemmShape& shape, int32_t rows, const GemmOperands& operands,
              cudaStream_t stream);

  int64_t version() const;  // of the library, 130101 = 13.1.1

  struct State;

 private:
  std::unique_ptr<State> state_;
};

}  // namespace lorax::cuda
