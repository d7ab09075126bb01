// Sampling on the device: what backend/sampling.h defines, for every sampled row of a step.
//
// The host lays a step's SampleRows out in a pinned buffer (lay_out_samples) and uploads it, by a
// copy on the stream before the step's first kernel (a kernel of its own, started early, reads it
// before it waits for the others). Masks follow later, while those kernels run. Results equal
// cpu/sample.cc for the same logits. A row's result is a function of the row alone: sums are of
// integers, so neither batch nor schedule changes it.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "backend/sampling.h"

namespace lorax::cuda {

inline constexpr int32_t kMaxLogprobs = 20;  // alternatives reported at most

// ---- what a step uploads: SampleHeader | SampleParameters [max_rows] | SampleEntry [...] ----

struct alignas(16) SampleHeader {
  int32_t num_rows = 0;  // rows sampled; further rows of a recorded step are padding
};

// SampleRow, its arrays replaced by where they lie among the entries.
struct SampleParameters {
  float temperature;
  int32_t top_k;
  float top_p;
  float min_p;
  float repetition_penalty;
  float frequency_penalty;
  float presence_penalty;
  int32_t num_logprobs;
  uint64_t seed;
  int64_t position;
  int32_t history_begin;  // into the entries
  int32_t history_size;
  int32_t bias_begin;
  int32_t bias_size;
  int32_t counts_input;  // 1: the token this row was fed is one more output of its history
  int32_t mask;          // row of SampleArguments::masks; -1: all tokens may be chosen
};

// One TokenCount (history) or one biased token.
struct SampleEntry {
  int32_t token;
  union {
    int32_t output_count;
    float bias;
  };
};

struct SampleArrays {
  const SampleHeader* header = nullptr;
  const SampleParameters* rows = nullptr;  // [max_rows]
  const SampleEntry* entries = nullptr;
};

// Bytes before the entries; and the bytes a step with these rows takes.
int64_t sample_entries_offset(int32_t max_rows);
int64_t sample_upload_bytes(std::span<const SampleRow> samples, int32_t max_rows);

// Where the parts lie in a buffer on the device, 16-byte aligned.
SampleArrays sample_arrays(const uint8_t* device, int32_t max_rows);

// Writes the buffer's content to `staging`; returns the bytes to copy. Both max_rows and the
// device's buffer stay the same for all steps. Throws std::logic_error for more than max_rows rows
// or more bytes than `capacity_bytes` (sample_upload_bytes says how many it would take).
int64_t lay_out_samples(std::span<const SampleRow> samples, int32_t max_rows, uint8_t* staging,
                        int64_t capacity_bytes);

// Masks of these rows, and the words of one.
int32_t num_masks(std::span<const SampleRow> samples);
inline int32_t mask_words(int32_t vocab) { return (vocab + 31) / 32; }

// ---- what comes out ----

struct SampleOutputs {
  int32_t* tokens = nullptr;      // [max_rows]; the next step's previous_tokens (embed.h)
  float* logprobs = nullptr;      // [max_rows]; of rows with num_logprobs >= 0
  int32_t* top_tokens = nullptr;  // [max_rows, kMaxLogprobs]; the first num_logprobs of a row
  float* top_logprobs = nullptr;  // [max_rows, kMaxLogprobs]
};

// ---- the launch ----

// How many blocks share a row: on sm_90 a cluster of eight keeps it in shared memory; elsewhere one
// block does it all, slower. kAuto chooses; kBlock is for tests.
enum class SampleSplit : uint8_t { kAuto, kBlock };

struct SampleArguments {
  const float* logits = nullptr;  // [rows, vocab]
  SampleArrays arrays;
  SampleOutputs outputs;
  // With counts_input, row i of the logits was fed input_tokens[logits_rows[i]] (embed.h): it is
  // the sample of the step before, which the history lacks.
  const int32_t* input_tokens = nullptr;  // [step rows]
  const int32_t* logits_rows = nullptr;   // [rows]
  const uint32_t* masks = nullptr;        // [num_masks, mask_words(vocab)], in the order of rows
  float* workspace = nullptr;             // sample_workspace_bytes
  int32_t rows = 0;                       // of the step, padding too
  int32_t vocab = 0;
  SampleSplit split = SampleSplit::kAuto;
};

// Device memory the launch needs on the current device; 0 where a row fits into shared memory.
int64_t sample_workspace_bytes(int32_t rows, int32_t vocab, SampleSplit split = SampleSplit::kAuto);

void sample(const SampleArguments& arguments, cudaStream_t stream);

}  // namespace lorax::cuda
