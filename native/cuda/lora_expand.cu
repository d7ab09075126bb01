// y += B v: a warp has a strip of 32 columns and walks down 256 rows of it, y of the next 16 rows
// on its way while it adds to these.
#include "cuda/launch.h"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 8;  // side by side: 512 bytes of a row
constexpr int kThreads = kWarps * 32;
constexpr int kTiles = 16;  // of 16 rows, a warp

// 32 columns of one part of a site.
struct Strip {
  int part = 0;
  int32_t first = 0;    // in the part
  int32_t columns = 0;  // of the part
};

// Strips are numbered part by part.
__host__ __device__ int32_t num_strips(const LoraRowSite& site) {
  int32_t out = 0;
  for (int p = 0; p < site.num_parts; ++p) {
    out += (site.columns[p] + kStripColumns - 1) / kStripColumns;
  }
  return out;
}

__device__ __forceinline__ Strip find_strip(const LoraRowSite& site, int32_t strip) {
  Strip out;
#pragma unroll
  for (int p = 0; p < LoraSiteItems::kMaxParts; ++p) {
    if (p >= site.num_parts) continue;
    const int32_t strips = (site.columns[p] + kStripColumns - 1) / kStripColumns;
    if (strip >= 0 && strip < strips) out = {p, strip * kStripColumns, site.columns[p]};
    strip -= strips;
  }
  return out;
}

bool all_multiples_of_8(const LoraRowSite& site, int32_t n) {
  bool out = n % 8 == 0;
  for (int p = 0; p < site.num_parts; ++p) {
    out = out && site.column[p] % 8 == 0 && site.columns[p] % 8 == 0;
  }
  return out;
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
    lora_expand_kernel(const __grid_constant__ LoraRowLists lists,
                       const __grid_constant__ LoraRowSite site, __nv_bfloat16* y, int32_t rows,
                       int32_t n) {
  let_next_start();
  wait_for_previous();
  const int32_t strip_index = blockIdx.x * kWarps + threadIdx.x / 32;
  if (strip_index >= num_strips(site)) return;
  const Strip strip = find_strip(site, strip_index);
  const Lane lane(strip.first, strip.columns, kAligned);
  __nv_bfloat16* const part = y + site.column[strip.part];
  const int32_t first_tile = blockIdx.y * kTiles;
  const int32_t last_tile = min(first_tile + kTiles, (rows + kTileRows - 1) / kTileRows);
  StripWalk<1> walk(lists, strip.part, strip.first, strip.columns, first_tile, last_tile);

  uint4 next[2];
  const auto load = [&](int32_t tile) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int64_t row = min(row_of(tile, h), rows - 1);
      next[h] = load_eight<kAligned>(part + row * n + lane.load_column, lane.valid);
    }
  };
  load(first_tile);
  for (int32_t tile = first_tile; tile < last_tile; ++tile) {
    const uint4 old[2] = {next[0], next[1]};
    load(tile + 1);
    const bool changes = walk.has_delta();  // else base rows: their bits stay
    float delta[1][4][4] = {};
    walk.add_and_advance(delta);
    if (!changes) continue;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum[8];
#pragma unroll
      for (int c = 0; c < 8; ++c) sum[c] = eight_at(old[h], c) + delta[0][c / 2][2 * h + c % 2];
      const int64_t row = row_of(tile, h);
      if (row < rows && lane.valid > 0) {
        store_eight<kAligned>(sum, lane.valid, part + row * n + lane.column);
      }
    }
  }
}

dim3 grid_of(int32_t strips, int32_t rows) {
  constexpr int32_t kRows = kTiles * kTileRows;
  return dim3((strips + kWarps - 1) / kWarps, (rows + kRows - 1) / kRows);
}

}  // namespace

void lora_expand(const LoraRowLists& lists, const LoraRowSite& site, __nv_bfloat16* y, int32_t rows,
                 int32_t n, cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{.grid = grid_of(num_strips(site), rows), .block = dim3(kThreads)};
  const auto kernel =
      all_multiples_of_8(site, n) ? lora_expand_kernel<true> : lora_expand_kernel<false>;
  launch_overlapping("lora_expand", kernel, shape, stream, lists, site, y, rows, n);
}

}  // namespace lorax::cuda
