// LoRA for any number of rows: shrink and expand by rows of the segments (prefill, decode beyond
// the streaming GEMM's rows, devices without it). cuBLASLt computes y = x W^T, then
//
//   v[s][row] = weight * scale * A x[row]         lora_shrink_rows, for the rows of segment s
//   y[row] += sum over s of B v[s][row]           lora_expand, or the kernel that follows anyway
//
// make_lora_rows lists once per step what all sites need; shrink finds a site's slices through the
// adapters' tables and leaves them for the expand. Sums have one order for one site: k is split by
// its length, segments ascend.
//
// A list holds segments of some lengths. Long ones (prompts) are shrunk by tiles of 128 rows, and
// the kernel that follows adds the expand in passing: it walks down rows that have one adapter.
// Short ones (decodes, each with an adapter of its own) take as many trips to memory as they have
// adapters, so both are spread over the device: lora_shrink_short, and lora_expand at once.
// v is bf16: part p's rows begin at p * capacity.row_groups, segment s's at v_begin[s], then
// [max_groups][its rows][16 ranks]. Capturable: counts are read on the device, grids follow `rows`.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <limits>

#include "cuda/step_arrays.h"

namespace lorax::cuda {

// Rows of a segment that are shrunk together.
struct alignas(16) LoraRowTile {
  static constexpr int32_t kRows = 128;
  static constexpr int32_t kShortRows = 8;  // of short segments
  const AdapterTable* adapter = nullptr;    // null: v has no room for the segment
  int32_t segment = 0;
  int32_t index = 0;         // of this tile in the segment
  int32_t first = 0;         // into segment_rows
  int32_t num_rows = 0;      // from there on, at most the list's tile_rows
  int32_t segment_rows = 0;  // of the whole segment
  int32_t v_row = 0;         // of `first`, in the part
};

// Which of 16 rows of y a segment has: bit i of `mask` is row 16 * tile + i. Their v of group j are
// consecutive rows of v from v_row + j * num_rows on.
struct alignas(16) LoraRowPair {
  int32_t segment = 0;
  uint32_t mask = 0;
  int32_t v_row = 0;     // in the part
  int32_t num_rows = 0;  // of the segment
};

// A segment's adapter at one part of the site that was shrunk last.
struct alignas(16) LoraRowSlices {
  const RankGroup* groups = nullptr;
  SliceAddress first_b;    // of group 0
  int32_t num_groups = 0;  // 0: the part is not adapted
};

struct LoraRowsCapacity {
  int32_t rows = 0;
  int32_t segments = 0;
  int32_t segment_rows = 0;
  int64_t row_groups = 0;  // LoraLoad::row_groups, a part

  int64_t max_tiles(int32_t tile_rows) const { return segment_rows / tile_rows + segments; }
  int64_t v_bytes() const { return row_groups * 32 * LoraSiteItems::kMaxParts; }
};

// Buffers of the backend's, for one step at a time. Lists of other segments of the same step may
// share v_begin, slices and v with it.
struct LoraRowLists {
  LoraRowsCapacity capacity;
  int32_t tile_rows = LoraRowTile::kRows;
  int32_t from_rows = 1;  // segments of at least so many rows, and fewer than
  int32_t to_rows = std::numeric_limits<int32_t>::max();
  int64_t* v_begin = nullptr;       // [segments], rows of v: of all segments
  int32_t* num_tiles = nullptr;     // [1]
  LoraRowTile* tiles = nullptr;     // [max_tiles(tile_rows)]
  int32_t* pair_begin = nullptr;    // [rows / 16 rounded up, + 1]
  LoraRowPair* pairs = nullptr;     // [segment_rows]: of row tile i [pair_begin[i], [i + 1])
  LoraRowSlices* slices = nullptr;  // [segments][LoraSiteItems::kMaxParts], of segments with rows
  __nv_bfloat16* v = nullptr;       // [v_bytes()]
};

// A fused linear of one layer: its parts are modules and the columns of y they write.
struct LoraRowSite {
  int32_t layer = 0;
  int32_t num_parts = 0;
  int32_t modules[LoraSiteItems::kMaxParts] = {};
  int32_t column[LoraSiteItems::kMaxParts] = {};
  int32_t columns[LoraSiteItems::kMaxParts] = {};
};

// `rows` here and below: of the activation, the bucket's when recorded.
void make_lora_rows(const LoraRowLists& lists, const StepArrays& step, int32_t rows,
                    cudaStream_t stream);

// x [rows, k]; fills lists.v and lists.slices for the site, which the operations below then read.
void lora_shrink_rows(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                      const __nv_bfloat16* x, int32_t rows, int32_t k, cudaStream_t stream);

// The same of a list with tiles of kShortRows.
void lora_shrink_short(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                       const __nv_bfloat16* x, int32_t rows, int32_t k, cudaStream_t stream);

// y [rows, n] += B v
void lora_expand(const LoraRowLists& lists, const LoraRowSite& site, __nv_bfloat16* y, int32_t rows,
                 int32_t n, cudaStream_t stream);

// out = silu(gate + B v) * (up + B v), x [rows, 2 inner] = [gate | up] (parts 0 and 1 of the site),
// out [rows, inner]; x stays as it is.
void lora_silu_mul(const LoraRowLists& lists, const __nv_bfloat16* x, __nv_bfloat16* out,
                   int32_t rows, int32_t inner, cudaStream_t stream);

struct LoraNormArguments {
  float* residual = nullptr;             // [rows, hidden]
  const __nv_bfloat16* delta = nullptr;  // [rows, hidden]
  const float* gain = nullptr;           // [hidden]
  __nv_bfloat16* y = nullptr;            // [rows, hidden]
  float eps = 0.0f;
  int32_t rows = 0;
  int32_t hidden = 0;
};

// residual += delta + B v, then y = residual / sqrt(mean(residual^2) + eps) * gain; the site has
// one part.
void lora_add_rms_norm(const LoraRowLists& lists, const LoraNormArguments& arguments,
                       cudaStream_t stream);

}  // namespace lorax::cuda
