// What is taken before the first step: buffers, and the recorded steps.
#include <algorithm>

#include "cuda/attention_decode.h"
#include "cuda/check.h"
#include "cuda/cuda_backend_impl.h"
#include "cuda/export_samples.h"

namespace lorax::cuda {

void CudaBackend::reserve(const KvLayout& layout, const RopeConfig& rope, int32_t max_rows,
                          int32_t max_logits_rows) {
  LORAX_CUDA(cudaSetDevice(options_.device));
  check_attention_head_dim(layout.head_dim);
  loader_.reset();
  layout_ = layout;
  max_rows_ = std::max(max_rows, max_logits_rows);
  max_logits_rows_ = max_logits_rows;
  const int32_t recorded_rows = std::min({max_rows, max_logits_rows, kMaxRecordedRows});
  arena_.emplace(options_.device);
  graphs_.emplace(stream_);
  const int64_t max_blocks = 2 * arena_->reserved_bytes() / page_bytes(layout_);
  upload_.emplace(max_rows_, recorded_rows, max_blocks);

  rope_magnitude_ = rope.magnitude;
  inv_freq_ = DeviceBuffer(static_cast<int64_t>(rope.inv_freq.size()) * 4, "rope");
  LORAX_CUDA(cudaMemcpy(inv_freq_.as<void>(), rope.inv_freq.data(), rope.inv_freq.size() * 4,
                        cudaMemcpyHostToDevice));

  const char* samples = "sampling";
  const int64_t sample_bytes = sample_entries_offset(max_logits_rows_) + kSampleEntries * 8;
  sample_upload_ = DeviceBuffer(sample_bytes, samples);
  sample_tokens_ = DeviceBuffer(int64_t{max_logits_rows_} * 4, samples);
  sample_logprobs_ = DeviceBuffer(int64_t{max_logits_rows_} * 4, samples);
  sample_top_tokens_ = DeviceBuffer(int64_t{max_logits_rows_} * kMaxLogprobs * 4, samples);
  sample_top_logprobs_ = DeviceBuffer(int64_t{max_logits_rows_} * kMaxLogprobs * 4, samples);
  input_tokens_ = DeviceBuffer(int64_t{max_rows_} * 4, samples);
  LORAX_CUDA(cudaMemset(sample_tokens_.as<void>(), 0, sample_tokens_.bytes()));
  exported_ = PinnedBuffer(
      int64_t{kSlots} * max_logits_rows_ * static_cast<int64_t>(sizeof(ExportedSample)), samples);
  for (PinnedBuffer& staging : sample_staging_) staging = PinnedBuffer(sample_bytes, samples);

  const char* embeddings = "embeddings";
  const int64_t sums_bytes = int64_t{max_logits_rows_} * layout.hidden_size * 4;
  sums_ = DeviceBuffer(sums_bytes, embeddings);
  pool_factors_ = DeviceBuffer(int64_t{max_rows_} * 4, embeddings);
  exported_sums_ = PinnedBuffer(kSlots * sums_bytes, embeddings);
  LORAX_CUDA(cudaDeviceSynchronize());
}

// A step of padding alone comes first: it takes every buffer and loads every kernel, neither of
// which may happen during a capture, and touches no page. Sampling is not recorded: what it needs
// of the step before, masks, may come while the step runs.
void CudaBackend::record(const std::function<Activation()>& issue) {
  const std::vector<int32_t> buckets =
      StepGraphs::buckets(std::min({max_rows_, max_logits_rows_, kMaxRecordedRows}));
  StepPlan nothing;
  constexpr AdapterKernels kKernels[] = {AdapterKernels::kNone, AdapterKernels::kFused,
                                         AdapterKernels::kApart};
  const auto for_all = [&](const auto& take) {
    for (const AdapterKernels adapters : kKernels) {
      for (const int32_t rows : buckets) {
        // What choose_kernels() may choose.
        const bool may_fuse = may_fuse_adapters(rows, kPlain);
        if (adapters == AdapterKernels::kFused && !may_fuse) continue;
        if (adapters == AdapterKernels::kApart && may_fuse && options_.deterministic) continue;
        issue_.adapters = adapters;
        issue_.rows = issue_.logits_rows = issue_.bucket = rows;
        take(rows, adapters);
      }
    }
  };
  issue_ = {};
  issue_.arrays = upload_->upload(nothing, buckets.back(), slot_, false, nullptr, stream_);
  upload_samples(nothing);
  issue_.decodes = true;
  // Of few rows all are short. Deterministic ones are as in any other step.
  issue_.has_long = options_.deterministic;
  issue_.has_short = !options_.deterministic;
  issue_.long_from = options_.deterministic ? 1 : kMaxRecordedRows + 1;
  for_all([&](int32_t, AdapterKernels) {
    recorded_logits_ = issue();
    reserve_masks(recorded_logits_.cols);
    sample(recorded_logits_);
  });
  tune_linears();
  LORAX_CUDA(cudaStreamSynchronize(stream_));
  for_all([&](int32_t rows, AdapterKernels adapters) { graphs_->record(rows, adapters, issue); });
  recorded_ = true;
  LORAX_CUDA(cudaStreamSynchronize(stream_));
}

}  // namespace lorax::cuda
