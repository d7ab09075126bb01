// The work lists of the LoRA kernels, made on the device at the start of a step from its segments
// and the adapters' tables: a recorded step serves whatever adapters its rows have.
//
// Two forms. Few rows (decode): for every site the items and units of stream_gemm.h. Any rows
// (prefill, and devices without the streaming GEMM): one list per step, sites are looked up in the
// adapters' tables, v by row of the segment (lora_rows.h). Buffers are the backend's, of the sizes
// given here; the kernels never write beyond them, and a step that would must not be given
// (LoraLoad says how large it is).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <vector>

#include "cuda/step_arrays.h"

namespace lorax::cuda {

// A fused linear of one layer.
struct LoraSiteModules {
  int32_t layer = 0;
  int32_t num_parts = 0;
  int32_t modules[LoraSiteItems::kMaxParts] = {};
};

// Up to kMaxRows rows of one item: what the shrink takes at a time (stream_gemm_shrink.cuh).
struct LoraUnit {
  static constexpr int32_t kMaxRows = 8;
  static constexpr int32_t kPieces = 8;  // of k: sums of their own
  const uint8_t* a = nullptr;
  int32_t rows_begin = 0;  // into segment_rows
  int32_t num_rows = 0;
};

// What a step asks of the buffers; counted on the host from its segments.
struct LoraLoad {
  int64_t groups = 0;      // sum over segments of max_groups
  int64_t units = 0;       // sum of max_groups * chunks of LoraUnit::kMaxRows rows
  int64_t row_groups = 0;  // sum of max_groups * rows
  void add(int32_t max_groups, std::span<const int32_t> rows);
};

// Sizes of the few-rows form, for every part of every site alike.
struct LoraItemsCapacity {
  int32_t groups = 1024;  // 256 rows of rank 64, each its own adapter
  int32_t units = 1024;
  bool fits(const LoraLoad& load) const { return load.groups <= groups && load.units <= units; }
  int64_t items_bytes(int64_t num_parts) const {
    return num_parts * groups * static_cast<int64_t>(sizeof(LoraItem));
  }
  int64_t units_bytes(int64_t num_parts) const {
    return num_parts * units * static_cast<int64_t>(sizeof(LoraUnit));
  }
  // Workspace of the site that runs, [units][kPieces][kMaxRows][16 ranks] float: one for all.
  int64_t pieces_bytes() const {
    return int64_t{LoraSiteItems::kMaxParts} * units * LoraUnit::kPieces * LoraUnit::kMaxRows * 64;
  }
};

// Where the lists of all sites lie. Site i's items begin at item i_parts * capacity.groups, its
// units at i_parts * capacity.units, i_parts = parts of the sites before it.
struct LoraItemLists {
  LoraItemsCapacity capacity;
  int32_t num_sites = 0;
  const LoraSiteModules* sites = nullptr;  // [num_sites]
  const int32_t* parts_before = nullptr;   // [num_sites]
  LoraSiteItems* ranges = nullptr;         // [num_sites]
  int32_t* num_units = nullptr;            // [num_sites]
  LoraItem* items = nullptr;
  LoraUnit* units = nullptr;
};

// Fills ranges, num_units, items and units of every site. Rows ascend within a segment; a segment
// without rows or without an adapter has no items.
void make_lora_items(const LoraItemLists& lists, const StepArrays& step, cudaStream_t stream);

}  // namespace lorax::cuda
