// One step of the engine as plain index arrays: everything the device needs, nothing about
// requests.
//
// Made by engine/scheduler, immutable afterwards; read by model/ and by every backend. A row is one
// token of one sequence; the rows of a sequence are contiguous and their positions consecutive.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/sampling.h"

namespace lorax {

class ResidentAdapter;  // backend.h: an adapter whose weights lie in pool pages

// The rows of one sequence.
struct SequenceSpan {
  int32_t first_row = 0;
  int32_t num_rows = 0;           // 1 for a decode, up to the chunk for a prefill
  int32_t first_position = 0;     // position of first_row; KV of [0, first_position) is in pages
  int32_t block_table_begin = 0;  // into StepPlan::block_tables
  int32_t num_blocks = 0;         // covers positions [0, first_position + num_rows)
};

// A row is in at most so many segments: the adapters of a mix.
inline constexpr int32_t kMaxSegmentsPerRow = 8;

// y[row] += weight * scale * B (A x[row]) for the rows of one adapter. A row may be in several
// segments; base rows are in none. Each adapter has one segment, and any two adapters have theirs
// in the same order in every plan, so that what is added to a row has one order.
struct LoraSegment {
  const ResidentAdapter* adapter = nullptr;
  int32_t rows_begin = 0;  // into segment_rows and segment_weights
  int32_t rows_end = 0;
};

// Rows of one sequence whose final hidden states h (after the last norm) are added up for its
// embedding: sum[slot] = (starts ? 0 : sum[slot]) + h[row] + h[row + 1] + ...
struct PooledSpan {
  int32_t slot = 0;  // which of the backend's sums
  int32_t first_row = 0;
  int32_t num_rows = 0;  // 1 or more
  bool starts = false;
  bool ends = false;  // the sum is a result of this step; its slot is free
};

struct StepPlan {
  int64_t step = 0;
  std::vector<int32_t> token_ids;  // [num_rows]; -1 - i: sample i of the step before, not yet known
  std::vector<int32_t> positions;  // [num_rows]
  std::vector<SequenceSpan> spans;
  std::vector<int32_t> block_tables;  // page numbers
  std::vector<LoraSegment> segments;
  std::vector<int32_t> segment_rows;   // ascending within a segment
  std::vector<float> segment_weights;  // 1 unless adapters are mixed
  std::vector<int32_t> logits_rows;    // rows whose next token is sampled, ascending
  std::vector<SampleRow> samples;      // [logits_rows.size()]
  std::vector<PooledSpan> pooled;      // ascending, each slot at most once; no row is sampled too

  int32_t num_rows() const { return static_cast<int32_t>(token_ids.size()); }
};

}  // namespace lorax
