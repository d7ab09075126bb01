// lora_add_rms_norm: a block has 8 rows, so that a thread can keep its part of the new residual in
// registers until the rows' sums are known (hidden <= 4096); wider rows are read twice, the second
// time from the cache.
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 8;
constexpr int kMaxKept = 8;  // strips of a warp

struct Place {  // of a lane in its row
  int64_t at = 0;
  int32_t column = 0;
  int32_t valid = 0;  // columns from there on that exist; <= 0: none, or no such row
};

template <bool kAligned>
__device__ __forceinline__ void load_floats(const float* from, int32_t valid, float (&out)[8]) {
  if constexpr (kAligned) {
    const float4 low = reinterpret_cast<const float4*>(from)[0];
    const float4 high = reinterpret_cast<const float4*>(from)[1];
    out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
    out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = i < valid ? from[i] : 0.0f;
  }
}

template <bool kAligned>
__device__ __forceinline__ void store_floats(const float (&x)[8], int32_t valid, float* to) {
  if constexpr (kAligned) {
    reinterpret_cast<float4*>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
  } else {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < valid) to[i] = x[i];
    }
  }
}

// kStrips 0: rows are read twice.
template <int kStrips, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    lora_norm_kernel(const LoraRowLists lists, const LoraRowSite site, const StepArrays step,
                     const LoraNormArguments args) {
  __shared__ float of_warp[kWarps][kRows];
  let_next_start();
  wait_for_previous();
  const int warp = threadIdx.x / 32;
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  const int32_t row = blockIdx.x * kRows + g;
  const int32_t tile = blockIdx.x * kRows / kTileRows;
  const int half = blockIdx.x * kRows % kTileRows;
  const bool adapted = lists.pair_begin[tile] < lists.pair_begin[tile + 1];
  const int32_t strips = (args.hidden + kStripColumns - 1) / kStripColumns;

  const auto place = [&](int32_t strip) {
    const int32_t column = strip * kStripColumns + t * 8;
    return Place{int64_t{row} * args.hidden + column, column,
                 row < args.rows ? args.hidden - column : 0};
  };
  // The new residual of one strip, also stored.
  const auto add = [&](int32_t strip, float(&sum)[8]) {
    const Place p = place(strip);
    float o[8] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = 0.0f;
    if (p.valid > 0) {
      load_floats<kAligned>(args.residual + p.at, p.valid, sum);
      load_eight<kAligned>(args.delta + p.at, p.valid, o);
    }
    float delta[4][4] = {};
    if (adapted) {
      StripDelta deltas(lists, site, step, 0, strip * kStripColumns, args.hidden);
      deltas.add<kRows>(tile, half, delta);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += o[i] + delta[i / 2][i % 2];
    if (p.valid > 0) store_floats<kAligned>(sum, p.valid, args.residual + p.at);
  };
  const auto squares = [](const float(&x)[8]) {
    float out = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) out += x[i] * x[i];
    return out;
  };

  float kept[kStrips > 0 ? kStrips : 1][8];
  float sum = 0.0f;
  if constexpr (kStrips > 0) {
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      const int32_t strip = warp + i * kWarps;
      if (strip >= strips) continue;
      add(strip, kept[i]);
      sum += squares(kept[i]);
    }
  } else {
    for (int32_t strip = warp; strip < strips; strip += kWarps) {
      add(strip, kept[0]);
      sum += squares(kept[0]);
    }
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  sum += __shfl_xor_sync(~0u, sum, 2);
  if (t == 0) of_warp[warp][g] = sum;
  __syncthreads();
  float total = 0.0f;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) total += of_warp[w][g];
  const float factor = 1.0f / sqrtf(total / static_cast<float>(args.hidden) + args.eps);

  const auto store = [&](int32_t strip, float(&x)[8]) {
    const Place p = place(strip);
    if (p.valid <= 0) return;
    float gain[8];
    load_floats<kAligned>(args.gain + p.column, p.valid, gain);
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = x[i] * factor * gain[i];
    store_eight<kAligned>(x, p.valid, args.y + p.at);
  };
  if constexpr (kStrips > 0) {
#pragma unroll
    for (int i = 0; i < kStrips; ++i) {
      const int32_t strip = warp + i * kWarps;
      if (strip < strips) store(strip, kept[i]);
    }
  } else {
    for (int32_t strip = warp; strip < strips; strip += kWarps) {
      const Place p = place(strip);
      // Each thread reads back what it wrote itself.
      if (p.valid > 0) load_floats<kAligned>(args.residual + p.at, p.valid, kept[0]);
      store(strip, kept[0]);
    }
  }
}

}  // namespace

void lora_add_rms_norm(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                       const LoraNormArguments& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const LaunchShape shape{.grid = dim3((args.rows + kRows - 1) / kRows), .block = dim3(kThreads)};
  const int32_t strips = (args.hidden + kStripColumns - 1) / kStripColumns;
  const int32_t kept = (strips + kWarps - 1) / kWarps;
  auto kernel = lora_norm_kernel<0, false>;
  if (args.hidden % 8 == 0) {
    kernel = kept <= 1          ? lora_norm_kernel<1, true>
             : kept <= 2        ? lora_norm_kernel<2, true>
             : kept <= 4        ? lora_norm_kernel<4, true>
             : kept <= kMaxKept ? lora_norm_kernel<kMaxKept, true>
                                : lora_norm_kernel<0, true>;
  }
  launch_overlapping("lora_add_rms_norm", kernel, shape, stream, lists, site, step, args);
}

}  // namespace lorax::cuda
