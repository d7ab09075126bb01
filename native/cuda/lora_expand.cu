// y += B v: a block has 16 rows and some hundred columns of one part. It looks up once which slices
// of B meet its rows, however many segments these are of; then each warp walks down that list with
// a strip of 64 columns, the next slices on their way while it multiplies these. Sums are over
// ascending segments, and go through shared memory to where y lies in whole words.
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTiles = 4;  // of 16 columns, a warp
constexpr int kColumns = kTiles * 16;
constexpr int kBlockColumns = kWarps * kColumns;
constexpr int kSlices = 64;  // looked up at a time
constexpr int kPad = 4;      // floats, between rows of sums

// Of 16 ranks, and where v of the rows is: bit i of `mask` is row i, whose v are consecutive.
struct alignas(16) Slice {
  const uint8_t* b = nullptr;
  uint32_t mask = 0;
  int32_t v_row = 0;  // in the part
};

// The slices that meet 16 rows, numbered over pairs and their groups: [first, first + kSlices) of
// them into shared memory, by one warp. Returns how many there are in all.
__device__ __forceinline__ int32_t look_up_slices(const LoraRowLists& lists, int2 pairs, int part,
                                                  int32_t first, Slice (&out)[kSlices]) {
  const int lane = threadIdx.x % 32;
  int32_t done = 0;
  for (int32_t base = pairs.x; base < pairs.y; base += 32) {
    LoraRowPair pair;
    LoraRowSlices slices;
    if (base + lane < pairs.y) {
      pair = load_pair_at(lists, base + lane);
      slices = load_slices(lists, pair.segment, part);
    }
    int32_t before = slices.num_groups;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t below = __shfl_up_sync(~0u, before, offset);
      if (lane >= offset) before += below;
    }
    const int32_t total = __shfl_sync(~0u, before, 31);
    before += done - slices.num_groups - first;
    for (int32_t group = 0; group < slices.num_groups; ++group) {
      const int32_t at = before + group;
      if (at < 0 || at >= kSlices) continue;
      out[at] = {group == 0 ? slices.first_b : slices.groups[group].b, pair.mask,
                 pair.v_row + group * pair.num_rows};
    }
    done += total;
  }
  return done;
}

// B of a slice for this warp's columns, and v of this lane's rows g and g + 8.
struct Operands {
  uint4 b[kTiles];
  uint2 v[2];
};

template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 4)
    lora_expand_kernel(const __grid_constant__ LoraRowLists lists,
                       const __grid_constant__ LoraRowSite site, __nv_bfloat16* y, int32_t rows,
                       int32_t n) {
  __shared__ Slice slices[kSlices];
  __shared__ int32_t num_slices;
  __shared__ __align__(16) float sums[kWarps][kTileRows][kColumns + kPad];
  let_next_start();
  const int part = blockIdx.z;
  const int32_t columns = site.columns[part];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int32_t first_column = blockIdx.x * kBlockColumns + warp * kColumns;
  const int32_t tile = blockIdx.y;
  const int2 pairs = make_int2(lists.pair_begin[tile], lists.pair_begin[tile + 1]);
  wait_for_previous();
  if (blockIdx.x * kBlockColumns >= columns) return;
  if (pairs.x == pairs.y) return;  // base rows: their bits stay
  const __nv_bfloat16* const part_v = v_of_part(lists, part);
  const int32_t tiles = min(kTiles, (columns - first_column + 15) / 16);  // of this warp's

  float c[kTiles][2][4] = {};  // columns g and g + 8 of a tile, rows 2 t and 2 t + 1 of 8
  const auto load = [&](int32_t i, int32_t count, Operands& to) {
    if (i >= count) return;
    const Slice slice = slices[i];
    const uint8_t* from = slice.b + int64_t{first_column / 16} * 512 + lane * 16;
#pragma unroll
    for (int s = 0; s < kTiles; ++s) {
      if (s < tiles) to.b[s] = load_streaming(from + s * 512);
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = g + 8 * h;
      to.v[h] = make_uint2(0, 0);
      if ((slice.mask >> row & 1u) == 0) continue;
      const int32_t at = slice.v_row + __popc(slice.mask & ((1u << row) - 1));
      to.v[h] = *reinterpret_cast<const uint2*>(part_v + int64_t{at} * 16 + t * 4);
    }
  };
  const auto add = [&](int32_t i, int32_t count, const Operands& from) {
    if (i >= count) return;
    const uint32_t mask = slices[i].mask;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      if ((mask >> 8 * h & 0xffu) == 0) continue;
#pragma unroll
      for (int s = 0; s < kTiles; ++s) {
        lora_mma(c[s][h], from.b[s].x, from.b[s].y, from.b[s].z, from.b[s].w, from.v[h].x,
                 from.v[h].y);
      }
    }
  };

  int32_t total = 0;
  for (int32_t first = 0;; first += kSlices) {
    if (warp == 0) {
      const int32_t all = look_up_slices(lists, pairs, part, first, slices);
      if (lane == 0) num_slices = all;
    }
    __syncthreads();
    total = num_slices;
    const int32_t count = min(total - first, kSlices);
    if (tiles > 0) {
      Operands even = {}, odd = {};
      load(0, count, even);
      for (int32_t i = 0; i < count; i += 2) {
        load(i + 1, count, odd);
        add(i, count, even);
        load(i + 2, count, even);
        add(i + 1, count, odd);
      }
    }
    if (first + kSlices >= total) break;
    __syncthreads();  // all have read the list
  }
  if (total == 0 || tiles <= 0) return;

  float(&mine)[kTileRows][kColumns + kPad] = sums[warp];
#pragma unroll
  for (int s = 0; s < kTiles; ++s) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        mine[8 * h + 2 * t + i % 2][s * 16 + g + i / 2 * 8] = c[s][h][i];
      }
    }
  }
  __syncwarp();
  uint32_t adapted = 0;  // rows of the tile
  for (int32_t i = pairs.x + lane; i < pairs.y; i += 32) adapted |= load_pair_at(lists, i).mask;
  adapted = __reduce_or_sync(~0u, adapted);
  // 8 lanes have the 64 columns of a row.
#pragma unroll
  for (int i = 0; i < kTileRows / 4; ++i) {
    const int row = i * 4 + lane / 8;
    const int32_t column = first_column + lane % 8 * 8;
    const int32_t valid = columns - column;
    const int64_t at_row = int64_t{tile} * kTileRows + row;
    if ((adapted >> row & 1u) == 0 || at_row >= rows || valid <= 0) continue;
    __nv_bfloat16* const to = y + at_row * n + site.column[part] + column;
    const uint4 old = load_row_part<kAligned>(to, 0, valid);
    const auto* delta = reinterpret_cast<const float4*>(&mine[row][lane % 8 * 8]);
    const float4 low = delta[0], high = delta[1];
    const float add[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float sum[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[e] = eight_at(old, e) + add[e];
    store_eight<kAligned>(sum, valid, to);
  }
}

bool all_multiples_of_8(const LoraRowSite& site, int32_t n) {
  bool out = n % 8 == 0;
  for (int p = 0; p < site.num_parts; ++p) {
    out = out && site.column[p] % 8 == 0 && site.columns[p] % 8 == 0;
  }
  return out;
}

}  // namespace

void lora_expand(const LoraRowLists& lists, const LoraRowSite& site, __nv_bfloat16* y, int32_t rows,
                 int32_t n, cudaStream_t stream) {
  if (rows == 0) return;
  const int32_t columns = *std::max_element(site.columns, site.columns + site.num_parts);
  const LaunchShape shape{.grid = dim3((columns + kBlockColumns - 1) / kBlockColumns,
                                       (rows + kTileRows - 1) / kTileRows, site.num_parts),
                          .block = dim3(kThreads)};
  const auto kernel =
      all_multiples_of_8(site, n) ? lora_expand_kernel<true> : lora_expand_kernel<false>;
  launch_overlapping("lora_expand", kernel, shape, stream, lists, site, y, rows, n);
}

}  // namespace lorax::cuda
