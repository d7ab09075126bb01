// y = x W^T (+ bias) (+ LoRA) for few rows: streams W once from device memory at its full speed
// (Hopper only). One StreamGemm per weight, launched once per step by the CUDA backend.
//
// A launch starts reading W, and its adapters' slices, before the kernel ahead of it has finished
// (programmatic dependent launch); x and what depends on it, after. With `split` > 1 the parts of k
// are left as sums of their own, which the operation that follows adds (split_sum.h). For one
// (n, k) an output element has one order of accumulation whatever the number of rows; LoRA items
// are added in the order of their list, to the part of k that owns the element's row of W, after
// its sum (but see StreamGemmLora::early).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/lora_items.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

// How one launch cuts and streams W. `split` alone fixes the order of accumulation, the rest the
// speed.
struct StreamGemmConfig {
  int32_t split = 1;        // parts of k: 1, 2, 4 or 8
  int32_t block_atoms = 2;  // of 64 k in one stage of the rings
  int32_t w_stages = 4;     // of the ring of W in shared memory
  int32_t x_stages = 4;     // of the ring of x
  int32_t in_flight = 2;    // blocks of W under way at most
  int32_t lora_sets = 2;    // of the ring of B slices and v
  int32_t blocks = 0;       // 0: as many as are needed for an even share
};

// Rows are computed in buckets of this many: 8, 16, 32, 64, 128. 0 above.
int32_t stream_gemm_columns(int32_t rows);

// Whether the device has what the kernel needs (compute capability 9.0).
bool stream_gemm_available(int device);

// Parts of k for a weight whose sums may be left in parts, from its shape alone.
int32_t stream_gemm_split(int64_t n, int64_t k, int32_t num_sms);

// The configuration for `rows` rows of x and `split` parts of k. `lora`: with adapters; `gated`: W
// is gate and up.
StreamGemmConfig stream_gemm_config(int32_t split, int32_t rows, bool lora, bool gated);

// Bytes of shared memory of one block; over 232,448 it cannot be launched.
int64_t stream_gemm_shared_bytes(const StreamGemmConfig& config, int32_t rows, bool lora,
                                 bool gated);

// The adapted modules of one site. Lists (lora_items.h) and their arrays are in device memory and
// were complete before the kernel ahead of the launch began; it does what they say when it runs.
struct StreamGemmLora {
  LoraSiteLists lists;
  // Workspace of all launches, of LoraItemsCapacity::pieces_bytes(), zero at first. What a launch
  // leaves there is told from what others left by counts->mark, the step's, and the site's index.
  uint4* pieces = nullptr;
  const StepCounts* counts = nullptr;
  int32_t site_index = 0;
  // For up to 64 rows: add the adapters' share on the way through k, while W arrives, instead of at
  // its end. Then the order of accumulation depends on whether there are more.
  bool early = false;
  // Part p: columns [column[p], column[p] + columns[p]); column[p] is a multiple of 16, but for the
  // second of a gated W.
  int32_t num_parts = 0;
  int32_t column[LoraSiteItems::kMaxParts] = {};
  int32_t columns[LoraSiteItems::kMaxParts] = {};
};

struct StreamGemmArguments {
  const void* x = nullptr;  // [max_rows, k] bf16; rows beyond `rows` are read, never used
  int32_t max_rows = 0;     // allocated
  int32_t rows = 0;         // to compute: 1 .. 128
  // [rows, n] bf16 or float32; with split > 1 part p's sums, without bias but in the first, lie
  // part_stride elements on.
  void* y = nullptr;
  bool float32_out = false;
  int64_t part_stride = 0;
  // W is [gate | up], n / 2 rows each, and y [rows, n / 2] bf16 is silu(gate) * up, both rounded to
  // bf16 before; split is 1.
  bool gated = false;
  const float* bias = nullptr;           // [n]
  const StreamGemmLora* lora = nullptr;  // read at the call
  uint64_t* trace = nullptr;  // [blocks][8] times, in builds with LORAX_STREAM_GEMM_TRACE
};

// One weight W [n, k], bf16, row-major, 16-byte aligned; k a multiple of 8. Does not own it.
class StreamGemm {
 public:
  StreamGemm() = default;
  StreamGemm(const void* w, int64_t n, int64_t k);

  // Enqueues; may be captured into a graph, where the launch becomes a programmatic edge.
  void launch(const StreamGemmArguments& arguments, const StreamGemmConfig& config,
              cudaStream_t stream) const;

  int64_t n() const { return n_; }
  int64_t k() const { return k_; }

 private:
  const void* w_ = nullptr;
  int64_t n_ = 0;
  int64_t k_ = 0;
};

}  // namespace lorax::cuda
