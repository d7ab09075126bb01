// y += B v: a block has 16 rows and some hundred columns of one part. It looks up once which slices
// of B meet its rows, however many segments these are of; then each warp walks down that list with
// a strip of 64 columns, B and v of the next slices on their way into its part of shared memory
// while it multiplies these. Sums are over ascending segments, and go through shared memory to
// where y lies in whole words.
#include <algorithm>

#include "cuda/launch.h"
#include "cuda/lora_async.cuh"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"
#include "cuda/lora_slices.cuh"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTiles = 4;  // of 16 columns, a warp
constexpr int kColumns = kTiles * 16;
constexpr int kBlockColumns = kWarps * kColumns;
constexpr int kSlices = 64;  // looked up at a time
constexpr int kPad = 4;      // floats, between rows of sums
constexpr int kStages = 6;   // slices in a warp's ring
constexpr int kStageB = kTiles * 512;
constexpr int kStageBytes = kStageB + kTileRows * 32;  // B, and v of the rows
constexpr int kRingBytes = kStages * kStageBytes;
constexpr int kSharedBytes = kWarps * kRingBytes;
static_assert(kTileRows * (kColumns + kPad) * 4 <= kRingBytes);  // the sums take its place

// Of 16 ranks, and where v of the rows is: bit i of `mask` is row i, whose v are consecutive.
struct alignas(16) Slice {
  SliceAddress b;
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

template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 3)
    lora_expand_kernel(const __grid_constant__ LoraRowLists lists,
                       const __grid_constant__ LoraRowSite site, __nv_bfloat16* y, int32_t rows,
                       int32_t n) {
  extern __shared__ __align__(128) uint8_t rings[];
  __shared__ Slice slices[kSlices];
  __shared__ int32_t num_slices;
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

  // What is added to, on its way meanwhile: 8 lanes have the 64 columns of a row.
  constexpr int kRowLanes = kColumns / 8;
  constexpr int kRounds = kTileRows * kRowLanes / 32;
  const int32_t column = first_column + lane % kRowLanes * 8;
  const int32_t valid = columns - column;
  const auto row_in_round = [&](int i) { return i * (32 / kRowLanes) + lane / kRowLanes; };
  const auto y_at = [&](int i) {
    const int64_t row = int64_t{tile} * kTileRows + row_in_round(i);
    return row < rows && valid > 0 ? y + row * n + site.column[part] + column : nullptr;
  };
  uint4 old[kRounds];
#pragma unroll
  for (int i = 0; i < kRounds; ++i) old[i] = load_row_part<kAligned>(y_at(i), 0, valid);

  float c[kTiles][2][4] = {};  // columns g and g + 8 of a tile, rows 2 t and 2 t + 1 of 8
  uint8_t* const ring = rings + warp * kRingBytes;
  const auto fetch = [&](int32_t i, int32_t count) {
    if (i < count) {
      const Slice slice = slices[i];
      uint8_t* const to = ring + i % kStages * kStageBytes;
      copy_b_tiles<kTiles>(to, slice.b, first_column / 16, tiles, lane);
      // Two lanes a row; zeros where the segment has it not.
      const int row = lane / 2;
      const int32_t at = slice.v_row + __popc(slice.mask & ((1u << row) - 1));
      const bool has = (slice.mask >> row & 1u) != 0;
      copy_async_or_zero(to + kStageB + lane * 16,
                         part_v + int64_t{has ? at : slice.v_row} * 16 + lane % 2 * 8, has);
    }
    commit_copies();
  };
  const auto add = [&](int32_t i) {
    const uint8_t* from = ring + i % kStages * kStageBytes;
    const uint32_t mask = slices[i].mask;
    uint2 v[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      v[h] = *reinterpret_cast<const uint2*>(from + kStageB + (g + 8 * h) * 32 + t * 8);
    }
#pragma unroll
    for (int s = 0; s < kTiles; ++s) {
      const uint4 b = *reinterpret_cast<const uint4*>(from + s * 512 + lane * 16);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if ((mask >> 8 * h & 0xffu) != 0) lora_mma(c[s][h], b.x, b.y, b.z, b.w, v[h].x, v[h].y);
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
      for (int32_t i = 0; i < kStages - 1; ++i) fetch(i, count);
      for (int32_t i = 0; i < count; ++i) {
        wait_for_copies<kStages - 2>();
        __syncwarp();  // other lanes' copies, and all have read the stage that is filled next
        fetch(i + kStages - 1, count);
        add(i);
      }
      wait_for_copies<0>();
    }
    if (first + kSlices >= total) break;
    __syncthreads();  // all have read the list
  }
  if (total == 0 || tiles <= 0) return;

  __syncwarp();  // the ring is read
  auto& mine = *reinterpret_cast<float(*)[kTileRows][kColumns + kPad]>(ring);
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
#pragma unroll
  for (int i = 0; i < kRounds; ++i) {
    if ((adapted >> row_in_round(i) & 1u) == 0 || y_at(i) == nullptr) continue;
    const auto* delta =
        reinterpret_cast<const float4*>(&mine[row_in_round(i)][lane % kRowLanes * 8]);
    const float4 low = delta[0], high = delta[1];
    const float add[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    float sum[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) sum[e] = eight_at(old[i], e) + add[e];
    store_eight<kAligned>(sum, valid, y_at(i));
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
                          .block = dim3(kThreads),
                          .shared_bytes = kSharedBytes};
  const auto kernel =
      all_multiples_of_8(site, n) ? lora_expand_kernel<true> : lora_expand_kernel<false>;
  LORAX_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  launch_overlapping("lora_expand", kernel, shape, stream, lists, site, y, rows, n);
}

}  // namespace lorax::cuda
