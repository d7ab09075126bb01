// One warp per row.
#include "cuda/export_samples.h"
#include "cuda/launch.h"

namespace lorax::cuda {
namespace {

__global__ void export_samples_kernel(SampleOutputs outputs, SampleArrays samples,
                                      const StepCounts* counts, int32_t max_rows,
                                      ExportedSample* slots) {
  let_next_start();
  wait_for_previous();
  const int32_t row = blockIdx.x;
  if (row >= samples.header->num_rows) return;
  ExportedSample& to = slots[int64_t{counts->result_slot} * max_rows + row];
  const int32_t lane = threadIdx.x;
  const int32_t num_logprobs = samples.rows[row].num_logprobs;
  if (lane == 0) {
    to.token = outputs.tokens[row];
    if (num_logprobs >= 0) to.logprob = outputs.logprobs[row];
  }
  if (lane < num_logprobs) {
    to.top_tokens[lane] = outputs.top_tokens[row * kMaxLogprobs + lane];
    to.top_logprobs[lane] = outputs.top_logprobs[row * kMaxLogprobs + lane];
  }
}

}  // namespace

void export_samples(const SampleOutputs& outputs, const SampleArrays& samples,
                    const StepCounts* counts, int32_t rows, int32_t max_rows, ExportedSample* slots,
                    cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(rows));
  shape.block = dim3(32);
  launch_overlapping("export_samples", export_samples_kernel, shape, stream, outputs, samples,
                     counts, max_rows, slots);
}

}  // namespace lorax::cuda
