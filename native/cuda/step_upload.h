// Turns a StepPlan into StepArrays on the device: one layout in pinned memory, one copy.
//
// A step that may be replayed uses the recorded layout, whose addresses never change; any other
// step one sized for the most rows. Both lie in one device buffer: the stream orders its steps.
// A staging slot is written again only kSlots steps later, when its copy is long done.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <functional>

#include "backend/step_plan.h"
#include "cuda/device_memory.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

class StepUpload {
 public:
  // Steps of at most `max_rows` rows, recorded ones of at most `recorded_rows`, block tables of at
  // most `max_blocks` entries in all.
  StepUpload(int32_t max_rows, int32_t recorded_rows, int64_t max_blocks);

  // A row may be in several segments, when adapters are mixed.
  static constexpr int32_t kSegmentRowsPerRow = kMaxSegmentsPerRow;

  // Rows of one sequence in a recorded step: each reads the context for itself.
  static constexpr int32_t kMaxRecordedChunk = 16;

  // Whether a recorded step could carry this plan: it samples, and its chunks are short.
  bool fits_recorded(const StepPlan& plan) const;

  // Enqueues the copy. `bucket_rows` > 0: the recorded layout, padded to that many rows.
  // `keeps_lists`: StepCounts::keeps_lists. `table_of`: an adapter's table on the device.
  const StepArrays& upload(
      const StepPlan& plan, int32_t bucket_rows, int32_t result_slot, bool keeps_lists,
      const std::function<const AdapterTable*(const ResidentAdapter*)>& table_of,
      cudaStream_t stream);

  // Of the step uploaded last: StepCounts::mark, and its pooled spans in their order.
  int32_t mark() const { return mark_; }
  const DevicePooledSpan* pooled() const { return pooled_; }

 private:
  static constexpr int kSlots = 3;

  // Where each array starts, in bytes from the buffer's start. Pooled spans, which no recorded step
  // has, follow the block tables.
  struct Layout {
    int32_t rows = 0;
    int32_t segment_rows_capacity = 0;
    int64_t token_ids = 0, positions = 0, row_span = 0, spans = 0, logits_rows = 0, segments = 0,
            segment_rows = 0, segment_weights = 0, block_tables = 0;
    StepArrays device;
  };

  static Layout make_layout(int32_t rows, uint8_t* device);
  static int32_t lay_out_spans(const StepPlan& plan, bool by_row, int32_t* row_span,
                               DeviceSpan* spans);
  int64_t append_pooled(const StepPlan& plan, int64_t begin, uint8_t* to);

  int64_t max_blocks_ = 0;
  DeviceBuffer device_;
  std::array<PinnedBuffer, kSlots> staging_;
  int next_slot_ = 0;
  int32_t mark_ = 0;
  const DevicePooledSpan* pooled_ = nullptr;
  Layout recorded_;
  Layout any_;
};

}  // namespace lorax::cuda
