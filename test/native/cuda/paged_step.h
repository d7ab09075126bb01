// Steps over KV pages for the tests of kernels that read StepArrays: random page order, every slot
// that no position owns poisoned with NaN, and arrays on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "cuda/device_array.h"
#include "cuda/kv_pages.h"
#include "cuda/on_all_cores.h"
#include "cuda/step_arrays.h"

namespace lorax::cuda {

inline float to_float(uint16_t bf16) {
  const uint32_t bits = uint32_t{bf16} << 16;
  float value = 0.0f;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline constexpr uint16_t kPoison = 0xffff;  // a NaN

// One sequence's part of a step.
struct Chunk {
  int first_position = 0;
  int num_rows = 1;
};

// The StepArrays of some chunks, uploaded. Sequence s has the pages block_tables[s], enough for all
// its positions.
struct UploadedStep {
  UploadedStep(const std::vector<Chunk>& chunks,
               const std::vector<std::vector<int32_t>>& block_tables, int bucket_rows = 0) {
    std::vector<DeviceSpan> spans;
    std::vector<int32_t> tables;
    int row = 0;
    for (size_t s = 0; s < chunks.size(); ++s) {
      DeviceSpan span;
      span.first_row = row;
      span.num_rows = chunks[s].num_rows;
      span.first_position = chunks[s].first_position;
      span.block_table_begin = static_cast<int32_t>(tables.size());
      span.num_stored = span.first_position;
      tables.insert(tables.end(), block_tables[s].begin(),
                    block_tables[s].begin() + (span.first_position + span.num_rows + 15) / 16);
      for (int i = 0; i < span.num_rows; ++i) {
        positions.push_back(span.first_position + i);
        row_span.push_back(static_cast<int32_t>(s));
      }
      row += span.num_rows;
      spans.push_back(span);
    }
    counts = {row, static_cast<int32_t>(spans.size()), 0, 0};
    rows = std::max(row, bucket_rows);
    positions.resize(static_cast<size_t>(rows), 1 << 30);  // padding: nobody may look
    row_span.resize(static_cast<size_t>(rows), 1 << 30);
    spans.resize(static_cast<size_t>(rows), DeviceSpan{1 << 30, 1, 1 << 30, 1 << 30, 1 << 30});
    d_counts = DeviceArray<StepCounts>(std::vector<StepCounts>{counts});
    d_positions = DeviceArray<int32_t>(positions);
    d_row_span = DeviceArray<int32_t>(row_span);
    d_spans = DeviceArray<DeviceSpan>(spans);
    d_tables = DeviceArray<int32_t>(tables);
    arrays.counts = d_counts.data();
    arrays.positions = d_positions.data();
    arrays.row_span = d_row_span.data();
    arrays.spans = d_spans.data();
    arrays.block_tables = d_tables.data();
  }

  StepCounts counts;
  int rows = 0;
  std::vector<int32_t> positions;
  std::vector<int32_t> row_span;
  StepArrays arrays;
  DeviceArray<StepCounts> d_counts;
  DeviceArray<int32_t> d_positions;
  DeviceArray<int32_t> d_row_span;
  DeviceArray<DeviceSpan> d_spans;
  DeviceArray<int32_t> d_tables;
};

// Disjoint pages in random order for sequences of these many positions.
inline std::vector<std::vector<int32_t>> random_block_tables(std::span<const int> lengths,
                                                             std::mt19937& random, int* num_pages) {
  int pages = 0;
  for (const int length : lengths) pages += (length + 15) / 16;
  std::vector<int32_t> order(static_cast<size_t>(pages));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<std::vector<int32_t>> tables;
  auto next = order.begin();
  for (const int length : lengths) {
    tables.emplace_back(next, next + (length + 15) / 16);
    next += (length + 15) / 16;
  }
  *num_pages = pages;
  return tables;
}

inline std::vector<uint16_t> random_bf16(size_t size, std::mt19937& random, float deviation = 1) {
  return normal_bf16_bits(random, size, deviation);
}

}  // namespace lorax::cuda
