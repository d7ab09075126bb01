// y = x W^T (+ bias) (+ LoRA expand) for few rows: streams W once from device memory at its full
// speed (Hopper only). One StreamGemm per weight, launched once per step by the CUDA backend.
//
// A launch starts reading W before the kernel ahead of it has finished (programmatic dependent
// launch), and x too where a counter says that x is complete; whatever else it reads, it reads
// after. For one (n, k) an output element has one order
// of accumulation whatever the number of rows; LoRA items are added in the order of their list.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/step_arrays.h"

namespace lorax::cuda {

// How one launch cuts and streams W. `split` alone fixes the order of accumulation, the rest the
// speed: a tuner may try others.
struct StreamGemmConfig {
  int32_t tile_rows = 64;     // of W: 64, or 128 for up to 128 rows
  int32_t split = 1;          // parts of k: 1, 2, 4 (8 with tile_rows 128); a cluster sums them
  int32_t block_atoms = 1;    // of 64 k in one stage of the ring
  int32_t stages = 8;         // of the ring in shared memory
  int32_t in_flight = 0;      // blocks of W under way at most; 0: as many as the ring has stages
  int32_t trigger = 1 << 30;  // blocks before the last load at which the next kernel may start
  int32_t clusters = 0;       // 0: as many as are needed for an even share
  int32_t prefetch_next = 0;  // first blocks of the next GEMM requested into L2 at the end
  int32_t lora_slots = 4;     // of the ring of B slices
  // Asked for at least: over half of a multiprocessor's keeps a second block away.
  int32_t min_shared_bytes = 0;
};

// Rows are computed in buckets of this many: 8, 16, 32, 64, 128, 256. 0 above.
int32_t stream_gemm_columns(int32_t rows);

// Whether the device has what the kernel needs (compute capability 9.0).
bool stream_gemm_available(int device);

// The configuration for y[rows, n] = x[rows, k] W^T on a device of `num_sms`.
StreamGemmConfig stream_gemm_config(int64_t n, int64_t k, int32_t rows, int32_t num_sms);

// Bytes of shared memory of one block; over 232,448 it cannot be launched.
int64_t stream_gemm_shared_bytes(const StreamGemmConfig& config, int32_t rows, bool lora);

// The adapted modules of one site. All arrays are in device memory and may be written by any
// earlier kernel of the stream; a launch does what they say at the time it runs.
struct StreamGemmLora {
  const LoraItem* items = nullptr;
  const LoraSiteItems* site = nullptr;
  const void* v = nullptr;  // [fragments][32 lanes][4 bf16]
  int32_t num_parts = 0;    // part p: columns [column[p], column[p] + columns[p]), multiples of 16
  int32_t column[LoraSiteItems::kMaxParts] = {};
  int32_t columns[LoraSiteItems::kMaxParts] = {};
};

class StreamGemm;

struct StreamGemmArguments {
  const void* x = nullptr;  // [max_rows, k] bf16; rows beyond `rows` are read, never used
  int32_t max_rows = 0;     // allocated
  int32_t rows = 0;         // to compute: 1 .. 256
  void* y = nullptr;        // [rows, n] bf16 or float32
  bool float32_out = false;
  const float* bias = nullptr;           // [n]
  const StreamGemmLora* lora = nullptr;  // read at the call
  // Counts blocks of the kernel that writes x (ready.cuh); x is complete at x_ready_count. Then x
  // is read while the kernels after that one still run, and y is written then too where `lora` is
  // null: they must read nothing that is at y. Null: x is read when all kernels ahead have ended.
  const uint32_t* x_ready = nullptr;
  uint32_t x_ready_count = 0;
  // The GEMM that follows in the stream, as it will be launched: the end of this one requests its
  // first blocks into L2.
  const StreamGemm* next = nullptr;
  const StreamGemmConfig* next_config = nullptr;
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
