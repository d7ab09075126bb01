// SampleRows to the bytes one step uploads.
#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "cuda/sample.h"

namespace lorax::cuda {
namespace {

bool has_penalty(const SampleRow& row) {
  return row.repetition_penalty != 1.0f || row.frequency_penalty != 0.0f ||
         row.presence_penalty != 0.0f;
}

// A history without a penalty changes nothing: it stays here.
int32_t history_size(const SampleRow& row) { return has_penalty(row) ? row.history_size : 0; }

}  // namespace

int64_t sample_entries_offset(int32_t max_rows) {
  return static_cast<int64_t>(sizeof(SampleHeader)) +
         static_cast<int64_t>(sizeof(SampleParameters)) * max_rows;
}

int64_t sample_upload_bytes(std::span<const SampleRow> samples, int32_t max_rows) {
  int64_t entries = 0;
  for (const SampleRow& row : samples) entries += history_size(row) + row.bias_size;
  return sample_entries_offset(max_rows) + entries * static_cast<int64_t>(sizeof(SampleEntry));
}

int32_t num_masks(std::span<const SampleRow> samples) {
  return static_cast<int32_t>(std::count_if(
      samples.begin(), samples.end(), [](const SampleRow& row) { return row.mask != nullptr; }));
}

SampleArrays sample_arrays(const uint8_t* device, int32_t max_rows) {
  return {
      .header = reinterpret_cast<const SampleHeader*>(device),
      .rows = reinterpret_cast<const SampleParameters*>(device + sizeof(SampleHeader)),
      .entries = reinterpret_cast<const SampleEntry*>(device + sample_entries_offset(max_rows))};
}

int64_t lay_out_samples(std::span<const SampleRow> samples, int32_t max_rows, uint8_t* staging,
                        int64_t capacity_bytes) {
  const int64_t bytes = sample_upload_bytes(samples, max_rows);
  if (samples.size() > static_cast<size_t>(max_rows) || bytes > capacity_bytes) {
    throw std::logic_error("cuda: " + std::to_string(samples.size()) + " samples take " +
                           std::to_string(bytes) + " bytes, more than what was reserved");
  }
  const SampleHeader header{.num_rows = static_cast<int32_t>(samples.size())};
  std::memcpy(staging, &header, sizeof(header));
  auto* parameters = reinterpret_cast<SampleParameters*>(staging + sizeof(SampleHeader));
  auto* entries = reinterpret_cast<SampleEntry*>(staging + sample_entries_offset(max_rows));
  int32_t next = 0, next_mask = 0;
  for (const SampleRow& row : samples) {
    SampleParameters out = {};
    out.temperature = row.temperature;
    out.top_k = row.top_k;
    out.top_p = row.top_p;
    out.min_p = row.min_p;
    out.repetition_penalty = row.repetition_penalty;
    out.frequency_penalty = row.frequency_penalty;
    out.presence_penalty = row.presence_penalty;
    out.num_logprobs = std::min(row.num_logprobs, kMaxLogprobs);
    out.seed = row.seed;
    out.position = row.position;
    out.history_begin = next;
    out.history_size = history_size(row);
    out.mask = row.mask != nullptr ? next_mask++ : -1;
    out.counts_input = row.unknown_token >= 0 && has_penalty(row) ? 1 : 0;
    for (int32_t i = 0; i < out.history_size; ++i) {
      entries[next].token = row.history[i].token;
      entries[next++].output_count = row.history[i].output_count;
    }
    out.bias_begin = next;
    out.bias_size = row.bias_size;
    for (int32_t i = 0; i < row.bias_size; ++i) {
      entries[next].token = row.bias_ids[i];
      entries[next++].bias = row.bias_values[i];
    }
    *parameters++ = out;
  }
  return bytes;
}

}  // namespace lorax::cuda
