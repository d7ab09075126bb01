// See adapter_formats.h. Nothing overlaps these kernels: they are few, and off the usual path.
#include "cuda/adapter_formats.h"
#include "cuda/adapter_image.h"
#include "cuda/launch.h"

namespace lorax::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int32_t kMaxRank = kMaxRankGroups * kRankGroup;

// The segment's place of `row`, or -1.
__device__ int32_t find_row(const StepArrays& step, const DeviceSegment& segment, int32_t row) {
  int32_t begin = segment.rows_begin;
  int32_t end = segment.rows_end;
  while (begin < end) {
    const int32_t middle = (begin + end) / 2;
    if (step.segment_rows[middle] < row) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin < segment.rows_end && step.segment_rows[begin] == row ? begin : -1;
}

__device__ const AdapterExtra* find_extra(const AdapterTable* table, int32_t layer,
                                          int32_t module) {
  if (table->extras == nullptr || layer >= table->num_layers || module >= table->num_modules) {
    return nullptr;
  }
  return table->extras + layer * table->num_modules + module;
}

// op(adapter's table, weight of the row) for the segments that hold the row, in their order.
template <typename Op>
__device__ void for_segments_of(const StepArrays& step, int32_t row, const Op& op) {
  for (int32_t s = 0; s < step.counts->num_segments; ++s) {
    const DeviceSegment segment = step.segments[s];
    if (segment.adapter == nullptr || segment.adapter->extras == nullptr) continue;
    const int32_t at = find_row(step, segment, row);
    if (at >= 0) op(segment.adapter, step.segment_weights[at]);
  }
}

struct Affine {
  float gain = 1.0f;
  float shift = 0.0f;
};

__device__ Affine affine_at(const AdapterExtra* extra, int32_t i, float weight) {
  Affine out;
  if (extra == nullptr) return out;
  if (extra->gain.chunks != nullptr) out.gain = *extra->gain.row<float>(i);
  if (extra->shift.chunks != nullptr) out.shift = weight * *extra->shift.row<float>(i);
  return out;
}

__global__ void affine_kernel(const StepArrays step, const LoraRowSite site, __nv_bfloat16* y,
                              int32_t n, int32_t parts, int64_t part_stride) {
  const int32_t row = blockIdx.y;
  const int32_t column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= n) return;
  int32_t p = 0;
  while (p + 1 < site.num_parts && column >= site.column[p + 1]) ++p;
  for_segments_of(step, row, [&](const AdapterTable* table, float weight) {
    const AdapterExtra* extra = find_extra(table, site.layer, site.modules[p]);
    const Affine affine = affine_at(extra, column - site.column[p], weight);
    if (affine.gain == 1.0f && affine.shift == 0.0f) return;
    for (int32_t part = 0; part < parts; ++part) {
      __nv_bfloat16& sum = y[part * part_stride + int64_t{row} * n + column];
      const float shift = part == 0 ? affine.shift : 0.0f;
      sum = __float2bfloat16(affine.gain * __bfloat162float(sum) + shift);
    }
  });
}

__global__ void affine_silu_kernel(const StepArrays step, const LoraRowSite site,
                                   const __nv_bfloat16* x, __nv_bfloat16* out, int32_t inner) {
  const int32_t row = blockIdx.y;
  const int32_t column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= inner) return;
  const __nv_bfloat16* from = x + int64_t{row} * 2 * inner;
  float gate = __bfloat162float(from[column]);
  float up = __bfloat162float(from[inner + column]);
  for_segments_of(step, row, [&](const AdapterTable* table, float weight) {
    const auto apply = [&](int32_t module, float& value) {
      const Affine affine = affine_at(find_extra(table, site.layer, module), column, weight);
      value = affine.gain * value + affine.shift;
    };
    apply(site.modules[0], gate);
    apply(site.modules[1], up);
  });
  // As stream_gemm_kernel.cuh has it.
  const float silu = __fdividef(gate, 1.0f + __expf(-gate));
  out[int64_t{row} * inner + column] = __float2bfloat16(silu * up);
}

// Of a warp: x . w, the sum in all lanes.
__device__ float warp_dot(const __nv_bfloat16* x, const __nv_bfloat16* w, int32_t size, int lane) {
  float sum = 0.0f;
  if (size % 8 == 0) {
    for (int32_t k = lane * 8; k < size; k += 32 * 8) {
      const uint4 left = *reinterpret_cast<const uint4*>(x + k);
      const uint4 right = *reinterpret_cast<const uint4*>(w + k);
      const auto* l = reinterpret_cast<const __nv_bfloat16*>(&left);
      const auto* r = reinterpret_cast<const __nv_bfloat16*>(&right);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        sum = fmaf(__bfloat162float(l[i]), __bfloat162float(r[i]), sum);
      }
    }
  } else {
    for (int32_t k = lane; k < size; k += 32) {
      sum = fmaf(__bfloat162float(x[k]), __bfloat162float(w[k]), sum);
    }
  }
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  return sum;
}

// Of a block: kThreads neighbouring logits of one row.
__global__ void head_kernel(const StepArrays step, int32_t layer, int32_t module,
                            const __nv_bfloat16* x, float* logits, int32_t vocab, int32_t hidden) {
  __shared__ float v[kMaxRank];
  const int32_t i = blockIdx.y;
  if (i >= step.counts->num_logits_rows) return;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int32_t first = blockIdx.x * kThreads;
  const int32_t column = first + threadIdx.x;
  const __nv_bfloat16* own = x + int64_t{i} * hidden;
  float* y = logits + int64_t{i} * vocab;
  for_segments_of(step, step.logits_rows[i], [&](const AdapterTable* table, float weight) {
    const AdapterExtra* extra = find_extra(table, layer, module);
    if (extra == nullptr) return;
    if (extra->whole.chunks != nullptr) {
      for (int32_t c = first + warp; c < min(first + kThreads, vocab); c += kWarps) {
        const float sum = warp_dot(own, extra->whole.row<__nv_bfloat16>(c), hidden, lane);
        if (lane == 0) y[c] = sum;
      }
    }
    for (int32_t r = warp; r < extra->rank; r += kWarps) {
      const float sum = warp_dot(own, extra->a.row<__nv_bfloat16>(r), hidden, lane);
      if (lane == 0) v[r] = sum;
    }
    __syncthreads();
    if (column < vocab) {
      float value = y[column];
      if (extra->rank > 0) {
        const __nv_bfloat16* b = extra->b.row<__nv_bfloat16>(column);
        float sum = 0.0f;
        for (int32_t r = 0; r < extra->rank; ++r) sum = fmaf(v[r], __bfloat162float(b[r]), sum);
        value += weight * extra->scale * sum;
      }
      const Affine affine = affine_at(extra, column, weight);
      y[column] = affine.gain * value + affine.shift;
    }
    __syncthreads();  // before v is written again
  });
}

__global__ void embedding_kernel(const StepArrays step, int32_t layer, int32_t module,
                                 const int32_t* tokens, float* residual, int32_t hidden) {
  const int32_t row = blockIdx.y;
  const int32_t column = blockIdx.x * kThreads + threadIdx.x;
  if (column >= hidden) return;
  float& y = residual[int64_t{row} * hidden + column];
  const int32_t token = tokens[row];
  for_segments_of(step, row, [&](const AdapterTable* table, float weight) {
    const AdapterExtra* extra = find_extra(table, layer, module);
    if (extra == nullptr) return;
    float value = y;
    if (extra->whole.chunks != nullptr) {
      value = __bfloat162float(extra->whole.row<__nv_bfloat16>(token)[column]);
    }
    if (extra->rank > 0) {
      const __nv_bfloat16* a = extra->a.row<__nv_bfloat16>(token);
      const __nv_bfloat16* b = extra->b.row<__nv_bfloat16>(column);
      float sum = 0.0f;
      for (int32_t r = 0; r < extra->rank; ++r) {
        sum = fmaf(__bfloat162float(a[r]), __bfloat162float(b[r]), sum);
      }
      value += weight * extra->scale * sum;
    }
    const Affine affine = affine_at(extra, column, weight);
    y = affine.gain * value + affine.shift;
  });
}

// A block for every kThreads columns of every row.
LaunchShape shape_of(int32_t columns, int32_t rows) {
  return {.grid = dim3((columns + kThreads - 1) / kThreads, rows),
          .block = dim3(kThreads),
          .overlaps = false};
}

}  // namespace

void apply_affine(const StepArrays& step, const LoraRowSite& site, __nv_bfloat16* y, int32_t rows,
                  int32_t n, int32_t parts, int64_t part_stride, cudaStream_t stream) {
  if (rows == 0) return;
  launch_overlapping("apply_affine", affine_kernel, shape_of(n, rows), stream, step, site, y, n,
                     parts, part_stride);
}

void affine_silu_mul(const StepArrays& step, const LoraRowSite& site, const __nv_bfloat16* x,
                     __nv_bfloat16* out, int32_t rows, int32_t inner, cudaStream_t stream) {
  if (rows == 0) return;
  launch_overlapping("affine_silu_mul", affine_silu_kernel, shape_of(inner, rows), stream, step,
                     site, x, out, inner);
}

void adapt_head(const StepArrays& step, int32_t layer, int32_t module, const __nv_bfloat16* x,
                float* logits, int32_t rows, int32_t vocab, int32_t hidden, cudaStream_t stream) {
  if (rows == 0) return;
  launch_overlapping("adapt_head", head_kernel, shape_of(vocab, rows), stream, step, layer, module,
                     x, logits, vocab, hidden);
}

void adapt_embedding(const StepArrays& step, int32_t layer, int32_t module, const int32_t* tokens,
                     float* residual, int32_t rows, int32_t hidden, cudaStream_t stream) {
  if (rows == 0) return;
  launch_overlapping("adapt_embedding", embedding_kernel, shape_of(hidden, rows), stream, step,
                     layer, module, tokens, residual, hidden);
}

}  // namespace lorax::cuda
