// Lays the arrays out, then copies the used front of the buffer.
#include "cuda/step_upload.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "cuda/check.h"

namespace lorax::cuda {
namespace {

int64_t align(int64_t bytes) { return (bytes + 15) / 16 * 16; }

template <typename T>
T* at(uint8_t* base, int64_t offset) {
  return reinterpret_cast<T*>(base + offset);
}

}  // namespace

StepUpload::Layout StepUpload::make_layout(int32_t rows, uint8_t* device) {
  Layout out;
  out.rows = rows;
  out.segment_rows_capacity = rows * kSegmentRowsPerRow;
  int64_t next = align(sizeof(StepCounts));
  const auto take = [&next](int64_t count, int64_t element) {
    const int64_t begin = next;
    next += align(count * element);
    return begin;
  };
  out.token_ids = take(rows, 4);
  out.positions = take(rows, 4);
  out.row_span = take(rows, 4);
  out.spans = take(rows + 1, sizeof(DeviceSpan));
  out.logits_rows = take(rows, 4);
  out.segments = take(out.segment_rows_capacity, sizeof(DeviceSegment));
  out.segment_rows = take(out.segment_rows_capacity, 4);
  out.segment_weights = take(out.segment_rows_capacity, 4);
  out.block_tables = next;

  out.device.counts = at<StepCounts>(device, 0);
  out.device.token_ids = at<int32_t>(device, out.token_ids);
  out.device.positions = at<int32_t>(device, out.positions);
  out.device.row_span = at<int32_t>(device, out.row_span);
  out.device.spans = at<DeviceSpan>(device, out.spans);
  out.device.logits_rows = at<int32_t>(device, out.logits_rows);
  out.device.segments = at<DeviceSegment>(device, out.segments);
  out.device.segment_rows = at<int32_t>(device, out.segment_rows);
  out.device.segment_weights = at<float>(device, out.segment_weights);
  out.device.block_tables = at<int32_t>(device, out.block_tables);
  return out;
}

StepUpload::StepUpload(int32_t max_rows, int32_t recorded_rows, int64_t max_blocks)
    : max_blocks_(max_blocks) {
  const int32_t rows = std::max(max_rows, recorded_rows);
  const int64_t bytes = make_layout(rows, nullptr).block_tables + align(max_blocks * 4) +
                        rows * static_cast<int64_t>(sizeof(DevicePooledSpan));
  device_ = DeviceBuffer(bytes, "the step's index arrays");
  recorded_ = make_layout(recorded_rows, device_.as<uint8_t>());
  any_ = make_layout(rows, device_.as<uint8_t>());
  for (PinnedBuffer& slot : staging_) slot = PinnedBuffer(bytes, "the step's index arrays");
}

bool StepUpload::fits_recorded(const StepPlan& plan) const {
  const auto most = static_cast<size_t>(recorded_.segment_rows_capacity);
  return plan.num_rows() <= recorded_.rows && !plan.logits_rows.empty() && plan.pooled.empty() &&
         plan.segments.size() <= most && plan.segment_rows.size() <= most &&
         std::ranges::all_of(plan.spans, [](const SequenceSpan& span) {
           return span.num_rows <= kMaxRecordedChunk;
         });
}

// Returns how many spans the device sees: a recorded step's attention takes rows one by one.
int32_t StepUpload::lay_out_spans(const StepPlan& plan, bool by_row, int32_t* row_span,
                                  DeviceSpan* spans) {
  int32_t count = 0;
  for (const SequenceSpan& span : plan.spans) {
    const int32_t rows = by_row ? 1 : span.num_rows;
    for (int32_t i = 0; i < span.num_rows; i += rows, ++count) {
      spans[count] = {span.first_row + i, rows, span.first_position + i, span.block_table_begin,
                      span.first_position};
      std::fill_n(row_span + span.first_row + i, rows, count);
    }
  }
  return count;
}

// Returns where they end.
int64_t StepUpload::append_pooled(const StepPlan& plan, int64_t begin, uint8_t* to) {
  pooled_ = at<DevicePooledSpan>(device_.as<uint8_t>(), begin);
  DevicePooledSpan* next = at<DevicePooledSpan>(to, begin);
  int32_t num_results = 0;
  for (const PooledSpan& span : plan.pooled) {
    *next++ = {span.slot, span.first_row, span.num_rows, span.starts,
               span.ends ? num_results++ : -1};
  }
  return begin + static_cast<int64_t>(plan.pooled.size() * sizeof(DevicePooledSpan));
}

const StepArrays& StepUpload::upload(
    const StepPlan& plan, int32_t bucket_rows, int32_t result_slot, bool keeps_lists,
    const std::function<const AdapterTable*(const ResidentAdapter*)>& table_of,
    cudaStream_t stream) {
  const Layout& layout = bucket_rows > 0 ? recorded_ : any_;
  const int32_t rows = std::max(plan.num_rows(), bucket_rows);
  if (rows > layout.rows || static_cast<int64_t>(plan.block_tables.size()) > max_blocks_ ||
      static_cast<int64_t>(plan.segment_rows.size()) > layout.segment_rows_capacity) {
    throw std::logic_error("cuda: the step is larger than what was reserved");
  }
  uint8_t* to = staging_[next_slot_].as<uint8_t>();
  next_slot_ = (next_slot_ + 1) % kSlots;

  int32_t* row_span = at<int32_t>(to, layout.row_span);
  DeviceSpan* spans = at<DeviceSpan>(to, layout.spans);
  const int32_t num_spans = lay_out_spans(plan, bucket_rows > 0, row_span, spans);
  mark_ = mark_ % StepCounts::kMaxMark + 1;
  *at<StepCounts>(to, 0) = {plan.num_rows(),
                            num_spans,
                            static_cast<int32_t>(plan.logits_rows.size()),
                            static_cast<int32_t>(plan.segments.size()),
                            result_slot,
                            mark_,
                            keeps_lists ? 1 : 0};
  const auto copy = [to](int64_t offset, const auto& values) {
    if (!values.empty()) std::memcpy(to + offset, values.data(), values.size() * 4);
  };
  copy(layout.token_ids, plan.token_ids);
  copy(layout.positions, plan.positions);
  copy(layout.logits_rows, plan.logits_rows);
  copy(layout.segment_rows, plan.segment_rows);
  copy(layout.segment_weights, plan.segment_weights);
  copy(layout.block_tables, plan.block_tables);
  DeviceSegment* segments = at<DeviceSegment>(to, layout.segments);
  for (size_t i = 0; i < plan.segments.size(); ++i) {
    const LoraSegment& segment = plan.segments[i];
    segments[i] = {table_of(segment.adapter), segment.rows_begin, segment.rows_end};
  }
  // Padding: token 0 at position 0 of an empty sequence.
  for (int32_t row = plan.num_rows(); row < bucket_rows; ++row) {
    at<int32_t>(to, layout.token_ids)[row] = 0;
    at<int32_t>(to, layout.positions)[row] = 0;
    at<int32_t>(to, layout.logits_rows)[row] = row;
    row_span[row] = num_spans;
    spans[row] = {row, 0, 0, 0, 0};
  }
  spans[std::max(num_spans, bucket_rows)] = {};

  int64_t bytes = layout.block_tables + static_cast<int64_t>(plan.block_tables.size()) * 4;
  if (!plan.pooled.empty()) bytes = append_pooled(plan, align(bytes), to);
  LORAX_CUDA(cudaMemcpyAsync(device_.as<uint8_t>(), to, static_cast<size_t>(bytes),
                             cudaMemcpyHostToDevice, stream));
  return layout.device;
}

}  // namespace lorax::cuda
