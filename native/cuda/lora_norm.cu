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
constexpr int kMaxKept = 8;    // strips of a warp
constexpr int kMeetings = 16;  // at once

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

// A segment that has some of the block's rows, looked up once for all strips.
struct Meeting {
  int4 pair;  // a LoraRowPair
  const RankGroup* groups;
  const uint8_t* first_b;  // of group 0
  int32_t num_groups;
};

// The deltas of the meetings looked up, on strips first_strip, first_strip + kWarps, ...
template <int kStrips>
__device__ __forceinline__ void add_deltas(const LoraRowLists& lists, const Meeting* meetings,
                                           int32_t count, int half, int32_t first_strip,
                                           int32_t hidden, float (&sums)[kStrips][8]) {
  for (int32_t m = 0; m < count; ++m) {
    const int4 raw = meetings[m].pair;
    const LoraRowPair pair = {raw.x, static_cast<uint32_t>(raw.y), raw.z, raw.w};
    if ((pair.mask >> half & 0xffu) == 0) continue;
    const int32_t groups = meetings[m].num_groups;
    for (int32_t group = 0; group < groups; ++group) {
      const uint8_t* slice = group == 0 ? meetings[m].first_b : meetings[m].groups[group].b;
      const uint2 v = load_v(lists.v, pair, group, half + threadIdx.x % 32 / 4);
#pragma unroll
      for (int i = 0; i < kStrips; ++i) {
        uint2 b[4];
        load_b(slice, (first_strip + i * kWarps) * kStripColumns, hidden, b);
        float delta[4][4] = {};
        add_delta(v, make_uint2(0, 0), b, delta);
#pragma unroll
        for (int c = 0; c < 8; ++c) sums[i][c] += delta[c / 2][c % 2];
      }
    }
  }
}

// kStrips 0: rows are read twice.
template <int kStrips, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    lora_norm_kernel(const __grid_constant__ LoraRowLists lists,
                     const __grid_constant__ LoraRowSite site,
                     const __grid_constant__ StepArrays step,
                     const __grid_constant__ LoraNormArguments args) {
  __shared__ float of_warp[kWarps][kRows];
  __shared__ Meeting meetings[kMeetings];
  let_next_start();
  wait_for_previous();
  const int warp = threadIdx.x / 32;
  const int g = threadIdx.x % 32 / 4;
  const int t = threadIdx.x % 4;
  const int32_t row = blockIdx.x * kRows + g;
  const int32_t tile = blockIdx.x * kRows / kTileRows;
  const int half = blockIdx.x * kRows % kTileRows;
  const int32_t strips = (args.hidden + kStripColumns - 1) / kStripColumns;

  const auto place = [&](int32_t strip) {
    const int32_t column = strip * kStripColumns + t * 8;
    return Place{int64_t{row} * args.hidden + column, column,
                 row < args.rows && strip < strips ? args.hidden - column : 0};
  };
  const auto load = [&](int32_t strip, float(&sum)[8]) {
    const Place p = place(strip);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] = 0.0f;
    if (p.valid > 0) load_floats<kAligned>(args.residual + p.at, p.valid, sum);
  };
  const auto load_o = [&](int32_t strip) {
    const Place p = place(strip);
    return load_eight<kAligned>(p.valid > 0 ? args.delta + p.at : nullptr, p.valid);
  };
  const auto add_o = [&](const uint4& o, float(&sum)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum[i] += eight_at(o, i);
  };
  const auto squares = [](const float(&x)[8]) {
    float out = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) out += x[i] * x[i];
    return out;
  };

  // All that comes from memory is asked for before the adapters are looked up.
  constexpr int kKept = kStrips > 0 ? kStrips : 1;
  float kept[kKept][8];
  if constexpr (kStrips > 0) {
#pragma unroll
    for (int i = 0; i < kKept; ++i) load(warp + i * kWarps, kept[i]);
    constexpr int kAtOnce = kKept < 4 ? kKept : 4;
#pragma unroll
    for (int first = 0; first < kKept; first += kAtOnce) {
      uint4 o[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) o[i] = load_o(warp + (first + i) * kWarps);
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) add_o(o[i], kept[first + i]);
    }
  }

  const int32_t begin = lists.pair_begin[tile];
  const int32_t end = lists.pair_begin[tile + 1];
  const auto look_up = [&](int32_t first) {
    if (first + static_cast<int32_t>(threadIdx.x) < end && threadIdx.x < kMeetings) {
      Meeting& to = meetings[threadIdx.x];
      to.pair = *reinterpret_cast<const int4*>(lists.pairs + first + threadIdx.x);
      const AdapterEntry entry =
          find_entry(step.segments[to.pair.x].adapter, site.layer, site.modules[0]);
      to.groups = entry.groups;
      to.num_groups = entry.num_groups;
      if (entry.num_groups > 0) to.first_b = entry.groups[0].b;
    }
  };
  const auto store_sum = [&](int32_t strip, float(&sum)[8]) {
    const Place p = place(strip);
    if (p.valid > 0) store_floats<kAligned>(sum, p.valid, args.residual + p.at);
  };

  float sum = 0.0f;
  if constexpr (kStrips > 0) {
    for (int32_t first = begin; first < end; first += kMeetings) {
      if (first > begin) __syncthreads();
      look_up(first);
      __syncthreads();
      add_deltas(lists, meetings, min(end - first, kMeetings), half, warp, args.hidden, kept);
    }
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      store_sum(warp + i * kWarps, kept[i]);
      sum += squares(kept[i]);
    }
  } else {
    // The first meetings with all else; further ones, which only rows in many segments have, on
    // what was stored.
    for (int32_t first = begin; first == begin || first < end; first += kMeetings) {
      if (first > begin) __syncthreads();
      look_up(first);
      __syncthreads();
      sum = 0.0f;
      for (int32_t strip = warp; strip < strips; strip += kWarps) {
        load(strip, kept[0]);
        if (first == begin) add_o(load_o(strip), kept[0]);
        add_deltas(lists, meetings, min(end - first, kMeetings), half, strip, args.hidden, kept);
        store_sum(strip, kept[0]);
        sum += squares(kept[0]);
      }
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
