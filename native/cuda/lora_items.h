// The work lists of the LoRA kernels, made on the device at the start of a step from its segments
// and the adapters' tables: a recorded step serves whatever adapters its rows have.
//
// Two forms. Few rows (decode): for every site what step_arrays.h describes. Any rows
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

// What a step asks of the buffers; counted on the host from its segments.
struct LoraLoad {
  int64_t rows = 0;        // of all segments
  int64_t slices = 0;      // sum over segments of max_groups
  int64_t units = 0;       // sum over segments of max_groups * chunks of LoraUnit::kMaxRows rows
  int64_t chunks = 0;      // sum of max_groups * blocks of LoraChunk::kRows rows of x
  int64_t row_groups = 0;  // sum of max_groups * rows
  void add(int32_t max_groups, std::span<const int32_t> rows);
};

// Sizes of the few-rows form, for every part of every site alike: 128 rows of rank 128, each its
// own adapter. Segments whose rows of x are neighbours have at most two chunks a unit.
struct LoraItemsCapacity {
  static constexpr int32_t kMaxStepRows = 128;
  static constexpr int32_t kSegmentRows = 1024;
  static constexpr int32_t kUnits = 1024;
  static constexpr int32_t kChunks = 2 * kUnits;
  static constexpr int32_t kSets = kChunks / LoraSet::kMaxChunks;
  static constexpr int32_t kRows = kUnits * LoraUnit::kMaxRows;
  static bool fits(const LoraLoad& load) {
    return load.rows <= kSegmentRows && load.units <= kUnits && load.chunks <= kChunks;
  }
  // Workspace of the site that runs, [units][kPieces][kMaxRows][16 ranks] float: one for all.
  static constexpr int64_t pieces_bytes() {
    return int64_t{LoraSiteItems::kMaxParts} * kRows * LoraUnit::kPieces * 64;
  }
};

// The lists of a site; numbers in them count from its beginning.
struct LoraSiteLists {
  LoraSiteItems* items = nullptr;
  LoraUnit* units = nullptr;
  LoraSet* sets = nullptr;
  LoraChunk* chunks = nullptr;
  LoraRow* rows = nullptr;
};

// Those of all sites.
struct LoraItemLists {
  int32_t num_sites = 0;
  const LoraSiteModules* sites = nullptr;  // [num_sites]
  const int32_t* parts_before = nullptr;   // [num_sites]: parts of the sites before
  LoraSiteItems* items = nullptr;          // [num_sites]
  LoraUnit* units = nullptr;               // [parts of all sites][kUnits]
  LoraSet* sets = nullptr;                 // [parts of all sites][kSets]
  LoraChunk* chunks = nullptr;             // [parts of all sites][kChunks]
  LoraRow* rows = nullptr;                 // [parts of all sites][kRows]

  constexpr LoraSiteLists of_site(int32_t site, int64_t parts_before_it) const {
    return {items + site, units + parts_before_it * LoraItemsCapacity::kUnits,
            sets + parts_before_it * LoraItemsCapacity::kSets,
            chunks + parts_before_it * LoraItemsCapacity::kChunks,
            rows + parts_before_it * LoraItemsCapacity::kRows};
  }
};

// Fills the lists of every site. Rows ascend within a segment, are below kMaxStepRows, and
// segments follow each other in segment_rows; one without rows or without an adapter has no items.
// The chunks of a part ascend in their rows of x.
void make_lora_items(const LoraItemLists& lists, const StepArrays& step, cudaStream_t stream);

}  // namespace lorax::cuda
