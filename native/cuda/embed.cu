// One block per row, 16 bytes of bf16 a thread and turn.
#include <algorithm>

#include "cuda/bf16_vector.cuh"
#include "cuda/embed.h"
#include "cuda/launch.h"

namespace lorax::cuda {
namespace {

constexpr int kMaxThreads = 512;

template <int kWidth>
__global__ void embed_kernel(const EmbedArguments a) {
  let_next_start();
  wait_for_previous();
  const int32_t row = blockIdx.x;
  int32_t token = a.token_ids[row];
  if (token < 0) token = a.previous_tokens[-1 - token];
  if (token < 0 || token >= a.vocab) token = 0;
  if (threadIdx.x == 0) a.input_tokens[row] = token;

  const __nv_bfloat16* from = a.table + int64_t{token} * a.hidden;  // [hidden]
  float* to = a.residual + int64_t{row} * a.hidden;                 // [hidden]
  for (int32_t i = threadIdx.x * kWidth; i < a.hidden; i += blockDim.x * kWidth) {
    Floats<kWidth> x;
    x.load(from + i);
    x.store(to + i);
  }
}

}  // namespace

void embed(const EmbedArguments& a, cudaStream_t stream) {
  if (a.rows == 0) return;
  const int width = a.hidden % 8 == 0 ? 8 : 1;
  const unsigned threads = std::min((a.hidden / width + 31) / 32 * 32, kMaxThreads);
  // Nothing overlaps the start of a step: what follows may read its lists without waiting.
  const LaunchShape shape{.grid = dim3(a.rows), .block = dim3(threads), .overlaps = false};
  if (width == 8) {
    launch_overlapping("embed", embed_kernel<8>, shape, stream, a);
  } else {
    launch_overlapping("embed", embed_kernel<1>, shape, stream, a);
  }
}

}  // namespace lorax::cuda
