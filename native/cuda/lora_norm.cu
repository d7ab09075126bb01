// lora_add_rms_norm: a block has 8 whole rows, its warps strips of 32 columns of them. The
// new residual is stored and, once the rows' sums are known, read back from the cache.
#include "cuda/launch.h"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 16;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = 8;       // 16 read B half as often, and were slower
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

// The deltas of the meetings looked up, on one strip of this lane's row.
__device__ __forceinline__ void add_deltas(const LoraRowLists& lists, const Meeting* meetings,
                                           int32_t count, int first_row, int32_t first_column,
                                           int32_t hidden, float (&sum)[8]) {
  const int row = first_row + static_cast<int>(threadIdx.x % 32 / 4);
  float delta[4][4] = {};
  for (int32_t m = 0; m < count; ++m) {
    const int4 raw = meetings[m].pair;
    const LoraRowPair pair = {raw.x, static_cast<uint32_t>(raw.y), raw.z, raw.w};
    if ((pair.mask >> first_row & 0xffu) == 0) continue;
    const int32_t groups = meetings[m].num_groups;
    for (int32_t group = 0; group < groups; ++group) {
      const uint8_t* slice = group == 0 ? meetings[m].first_b : meetings[m].groups[group].b;
      uint2 b[4];
      load_b(slice, first_column, hidden, b);
      add_delta(load_v(lists.v, pair, group, row), make_uint2(0, 0), b, delta);
    }
  }
#pragma unroll
  for (int c = 0; c < 8; ++c) sum[c] += delta[c / 2][c % 2];
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
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
  const int32_t tile = blockIdx.x * kRows / kTileRows;
  const int first_row = blockIdx.x * kRows % kTileRows;  // in the tile
  const int32_t strips = (args.hidden + kStripColumns - 1) / kStripColumns;
  const int32_t begin = lists.pair_begin[tile];
  const int32_t end = lists.pair_begin[tile + 1];
  const auto place = [&](int32_t strip) {
    const int32_t row = blockIdx.x * kRows + g;
    const int32_t column = strip * kStripColumns + t * 8;
    return Place{int64_t{row} * args.hidden + column, column,
                 row < args.rows ? args.hidden - column : 0};
  };

  // The new residual. One round of segments is the rule; further rounds, for rows in many
  // segments, go on from what was stored.
  float sum = 0.0f;
  for (int32_t first = begin; first == begin || first < end; first += kMeetings) {
    if (first > begin) __syncthreads();
    if (first + static_cast<int32_t>(threadIdx.x) < end && threadIdx.x < kMeetings) {
      Meeting& to = meetings[threadIdx.x];
      to.pair = *reinterpret_cast<const int4*>(lists.pairs + first + threadIdx.x);
      const AdapterEntry entry =
          find_entry(step.segments[to.pair.x].adapter, site.layer, site.modules[0]);
      to.groups = entry.groups;
      to.num_groups = entry.num_groups;
      if (entry.num_groups > 0) to.first_b = entry.groups[0].b;
    }
    __syncthreads();
    sum = 0.0f;
    for (int32_t strip = warp; strip < strips; strip += kWarps) {
      const Place p = place(strip);
      float x[8] = {};
      uint4 o = make_uint4(0, 0, 0, 0);
      if (p.valid > 0) {
        load_floats<kAligned>(args.residual + p.at, p.valid, x);
        if (first == begin) o = load_eight<kAligned>(args.delta + p.at, p.valid);
      }
#pragma unroll
      for (int c = 0; c < 8; ++c) x[c] += eight_at(o, c);
      add_deltas(lists, meetings, min(end - first, kMeetings), first_row, strip * kStripColumns,
                 args.hidden, x);
      if (p.valid > 0) store_floats<kAligned>(x, p.valid, args.residual + p.at);
#pragma unroll
      for (int c = 0; c < 8; ++c) sum += x[c] * x[c];
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
  // Each thread reads back what it wrote itself.
  for (int32_t strip = warp; strip < strips; strip += kWarps) {
    const Place p = place(strip);
    if (p.valid <= 0) continue;
    float x[8], gain[8];
    load_floats<kAligned>(args.residual + p.at, p.valid, x);
    load_floats<kAligned>(args.gain + p.column, p.valid, gain);
#pragma unroll
    for (int c = 0; c < 8; ++c) x[c] = x[c] * factor * gain[c];
    store_eight<kAligned>(x, p.valid, args.y + p.at);
  }
}

}  // namespace

void lora_add_rms_norm(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                       const LoraNormArguments& args, cudaStream_t stream) {
  if (args.rows == 0) return;
  const LaunchShape shape{.grid = dim3((args.rows + kRows - 1) / kRows), .block = dim3(kThreads)};
  const auto kernel = args.hidden % 8 == 0 ? lora_norm_kernel<true> : lora_norm_kernel<false>;
  launch_overlapping("lora_add_rms_norm", kernel, shape, stream, lists, site, step, args);
}

}  // namespace lorax::cuda
