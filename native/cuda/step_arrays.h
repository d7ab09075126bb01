// What one step's kernels read on the device: the StepPlan as plain arrays at fixed addresses.
//
// Filled by one copy from pinned memory in begin_step, so a recorded graph serves every plan of
// its number of rows. A graph's rows are a bucket: rows >= counts->num_rows are padding, which
// kernels skip or compute on harmless values. Plain C++; included by .cu files and by the host.
#pragma once

#include <cstdint>

#include "cuda/host_device.h"

namespace lorax::cuda {

struct StepCounts {
  static constexpr int32_t kMaxSites = 1 << 12;       // fused linears: of 1024 layers
  static constexpr int32_t kMaxMark = (1 << 20) - 1;  // with a site's index 32 bits
  int32_t num_rows = 0;
  int32_t num_spans = 0;
  int32_t num_logits_rows = 0;
  int32_t num_segments = 0;
  int32_t result_slot = 0;  // where on the host its samples go (export_samples.h)
  int32_t mark = 0;         // 1 .. kMaxMark in turns, a step's own (stream_gemm_shrink.cuh)
  int32_t keeps_lists = 0;  // the lists of adapters' work that a step before left are this one's
};

// The rows of one sequence (backend/step_plan.h, SequenceSpan); in a recorded step one of them.
struct DeviceSpan {
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t first_position = 0;
  int32_t block_table_begin = 0;
  int32_t num_stored = 0;  // positions whose KV earlier steps have stored
};

// Where a slice of A or of B lies in pages (adapter_image.h): 16 ranks, or a half of 8. Slices are
// aligned, so the lowest bit of their address says which.
class SliceAddress {
 public:
  static constexpr int32_t kABlockBytes = 1024;  // 32 k x 16 ranks
  static constexpr int32_t kBTileBytes = 512;    // 16 outs x 16 ranks

  SliceAddress() = default;
  SliceAddress(const uint8_t* at, bool is_half)
      : tagged_(reinterpret_cast<uintptr_t>(at) | (is_half ? 1 : 0)) {}

  LORAX_HOST_DEVICE bool is_half() const { return (tagged_ & 1) != 0; }
  LORAX_HOST_DEVICE int32_t a_block_bytes() const { return kABlockBytes >> (tagged_ & 1); }
  LORAX_HOST_DEVICE int32_t b_tile_bytes() const { return kBTileBytes >> (tagged_ & 1); }
  LORAX_HOST_DEVICE const uint8_t* a_block(int64_t i) const { return at() + i * a_block_bytes(); }
  LORAX_HOST_DEVICE const uint8_t* b_tile(int64_t i) const { return at() + i * b_tile_bytes(); }

 private:
  LORAX_HOST_DEVICE const uint8_t* at() const {
    return reinterpret_cast<const uint8_t*>(tagged_ & ~uintptr_t{1});
  }

  uintptr_t tagged_ = 0;
};

// Up to 16 ranks of one module of a resident adapter.
struct RankGroup {
  SliceAddress a;  // [ceil(d_in / 32)] blocks
  SliceAddress b;  // [ceil(d_out / 16)] tiles
};

// One (layer, module) of a resident adapter.
struct AdapterEntry {
  const RankGroup* groups = nullptr;  // [num_groups]
  int32_t num_groups = 0;             // 0: the module is not adapted
  float scale = 0.0f;
};

// A matrix in pages: its rows in chunks, each of which lies in one page.
struct PagedRows {
  const uint8_t* const* chunks = nullptr;  // null: there is none
  int32_t rows_per_chunk = 1;
  int32_t row_bytes = 0;

#ifdef __CUDACC__
  template <typename T>
  __device__ __forceinline__ const T* row(int32_t i) const {
    const uint8_t* chunk = chunks[i / rows_per_chunk];
    return reinterpret_cast<const T*>(chunk + int64_t{i % rows_per_chunk} * row_bytes);
  }
#endif
};

// What one (layer, module) has beside its groups, or instead (adapter_formats.h). The LoRA of head
// and embedding is here, bf16: A [rank, d_in] of the head, [d_in, rank] of the embedding, and B
// [d_out, rank]; so is what takes the place of their W, and every module's gain and shift, float32.
struct AdapterExtra {
  PagedRows whole;
  PagedRows a;
  PagedRows b;
  PagedRows gain;   // [d_out]
  PagedRows shift;  // [d_out]
  int32_t rank = 0;
  float scale = 0.0f;
};

// In device memory, one per resident adapter, at the start of its first page.
struct alignas(16) AdapterTable {
  const AdapterEntry* entries = nullptr;  // [num_layers][num_modules]
  int32_t num_layers = 0;                 // the highest the adapter names, plus one
  int32_t num_modules = 0;
  int32_t max_groups = 0;  // of any entry
  int32_t unused = 0;
  const AdapterExtra* extras = nullptr;  // [num_layers][num_modules]; null: plain
};

// The rows of one adapter (backend/step_plan.h, LoraSegment). Rows ascend within a segment.
struct DeviceSegment {
  const AdapterTable* adapter = nullptr;
  int32_t rows_begin = 0;  // into segment_rows and segment_weights
  int32_t rows_end = 0;
};

// Rows whose final hidden states are added up (backend/step_plan.h, PooledSpan).
struct DevicePooledSpan {
  int32_t slot = 0;
  int32_t first_row = 0;
  int32_t num_rows = 0;
  int32_t starts = 0;
  int32_t result = -1;  // 0 or more: the sum ends, as this one of the step
};

struct StepArrays {
  const StepCounts* counts = nullptr;
  const int32_t* token_ids = nullptr;  // [max_rows]; -1 - i: sample i of the step before
  const int32_t* positions = nullptr;  // [max_rows]
  const int32_t* row_span = nullptr;   // [max_rows]
  const DeviceSpan* spans = nullptr;   // [max_rows]
  const int32_t* block_tables = nullptr;
  const int32_t* logits_rows = nullptr;     // [max_logits_rows]
  const DeviceSegment* segments = nullptr;  // [max_rows]
  const int32_t* segment_rows = nullptr;    // [max_rows]; base rows are in none
  const float* segment_weights = nullptr;   // [max_rows]
};

// The adapters' work at one fused linear of one layer, made on the device at the start of a step
// (lora_items.h). An item is 16 ranks of one adapter in one part of the linear, for the rows of one
// segment.

// Up to 8 rows of an item: what the shrink takes at a time.
struct alignas(16) LoraUnit {
  static constexpr int32_t kMaxRows = 8;
  static constexpr int32_t kPieces = 8;  // of k: sums of their own
  static constexpr uint8_t kNoRow = 0xff;
  SliceAddress a;
  uint8_t rows[kMaxRows] = {};  // of x, ascending
};

// B of an item, and 16 rows of x with rows of the item among them.
struct alignas(16) LoraChunk {
  static constexpr int32_t kRows = 16;
  SliceAddress b;
  int32_t first_row = 0;  // a multiple of kRows
};

// One row of an item: v[row] = factor * A x[row], of ranks 8 to 15 high_factor * A x[row].
struct alignas(16) LoraRow {
  int32_t unit_row = 0;  // unit * kMaxRows + its place there
  int32_t at = 0;        // in its set: chunk * LoraChunk::kRows + row of the chunk
  float factor = 0.0f;
  float high_factor = 0.0f;  // 0 where the slice is a half
};

// Chunks of one part that the streaming GEMM takes at a time, and their rows.
struct alignas(16) LoraSet {
  static constexpr int32_t kMaxChunks = 8;
  int32_t first_chunk = 0;
  int32_t first_row = 0;
  int16_t num_chunks = 0;
  int16_t num_rows = 0;
};

// Part p's sets are [set_begin[p], set_begin[p + 1]).
struct alignas(16) LoraSiteItems {
  static constexpr int kMaxParts = 3;
  int32_t set_begin[kMaxParts + 1] = {};
  int32_t num_units = 0;
};

}  // namespace lorax::cuda
