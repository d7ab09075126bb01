// The work lists of the LoRA kernels, made on the device at the start of a step from its segments
// and the adapters' tables: a recorded step serves whatever adapters its rows have.
//
// Two forms. Few rows (decode): for every site the items of stream_gemm.h's epilogue and the units
// of lora_shrink.h, v in fragments of 8 rows. Any rows (prefill, and devices without the streaming
// GEMM): one list per step, sites are looked up in the adapters' tables, v by row of the segment
// (lora_rows.h). Buffers are the backend's, of the sizes given here; the kernels never write
// beyond them, and a step that would must not be given (LoraLoad says how large it is).
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

// Up to kMaxRows rows of one item: what lora_shrink.h takes at a time.
struct LoraUnit {
  static constexpr int32_t kMaxRows = 8;
  const uint8_t* a = nullptr;
  float scale = 0.0f;
  int32_t rows_begin = 0;  // into segment_rows
  int32_t num_rows = 0;
  // Rows [first_row, end_row) of the item's v are this unit's to write: its own rows, and zeros
  // between and around them.
  int32_t first_row = 0;
  int32_t end_row = 0;
  int32_t v_row = 0;  // of row 0, into the site's v as rows of 16: row r's is v_row + r
};

// What a step asks of the buffers; counted on the host from its segments.
struct LoraLoad {
  int64_t groups = 0;      // sum over segments of max_groups
  int64_t units = 0;       // sum of max_groups * chunks of LoraUnit::kMaxRows rows
  int64_t fragments = 0;   // sum of max_groups * blocks of 8 rows from the first row to the last
  int64_t row_groups = 0;  // sum of max_groups * rows
  void add(int32_t max_groups, std::span<const int32_t> rows);
};

// Sizes of the few-rows form, for every part of every site alike.
struct LoraItemsCapacity {
  int32_t groups = 1024;  // 256 rows of rank 64, each its own adapter
  int32_t units = 1024;
  int32_t fragments = 8192;  // 2 MB a part
  bool fits(const LoraLoad& load) const {
    return load.groups <= groups && load.units <= units && load.fragments <= fragments;
  }
  int64_t items_bytes(int64_t num_parts) const {
    return num_parts * groups * static_cast<int64_t>(sizeof(LoraItem));
  }
  int64_t units_bytes(int64_t num_parts) const {
    return num_parts * units * static_cast<int64_t>(sizeof(LoraUnit));
  }
  // v is the site's that runs: one buffer for all.
  int64_t v_bytes() const { return int64_t{LoraSiteItems::kMaxParts} * fragments * 256; }
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
