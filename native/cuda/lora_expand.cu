// y += B v and out = silu(gate) * up with the deltas of both: a warp has a strip of 32 columns and
// walks 64 rows of it, so that B is read once for them.
#include "cuda/launch.h"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kTiles = 4;  // of 16 rows, a warp

bool all_multiples_of_8(const LoraRowSite& site, int32_t n) {
  bool out = n % 8 == 0;
  for (int p = 0; p < site.num_parts; ++p) {
    out = out && site.column[p] % 8 == 0 && site.columns[p] % 8 == 0;
  }
  return out;
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    lora_expand_kernel(const LoraRowLists lists, const LoraRowSite site, const StepArrays step,
                       __nv_bfloat16* y, int32_t rows, int32_t n) {
  let_next_start();
  wait_for_previous();
  const int32_t strip_index = blockIdx.x * kWarps + threadIdx.x / 32;
  if (strip_index >= num_strips(site)) return;
  const Strip strip = find_strip(site, strip_index);
  StripDelta deltas(lists, site, step, strip.part, strip.first, strip.columns);
  const int g = threadIdx.x % 32 / 4;
  const int32_t column = strip.first + threadIdx.x % 4 * 8;  // in the part
  const int32_t valid = strip.columns - column;
  __nv_bfloat16* const corner = y + site.column[strip.part] + column;
  const int32_t first_tile = blockIdx.y * kTiles;
  for (int i = 0; i < kTiles && (first_tile + i) * kTileRows < rows; ++i) {
    const int32_t tile = first_tile + i;
    if (lists.pair_begin[tile] == lists.pair_begin[tile + 1]) continue;  // base rows
    float old[2][8];
    __nv_bfloat16* at[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int32_t row = tile * kTileRows + g + 8 * h;
      at[h] = row < rows && valid > 0 ? corner + int64_t{row} * n : nullptr;
      if (at[h] != nullptr) load_eight<kAligned>(at[h], valid, old[h]);
    }
    float delta[4][4] = {};
    deltas.add<kTileRows>(tile, 0, delta);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
      for (int c = 0; c < 8; ++c) old[h][c] += delta[c / 2][2 * h + c % 2];
      if (at[h] != nullptr) store_eight<kAligned>(old[h], valid, at[h]);
    }
  }
}

template <bool kAligned>
__global__ void __launch_bounds__(kThreads)
    lora_silu_mul_kernel(const LoraRowLists lists, const LoraRowSite site, const StepArrays step,
                         const __nv_bfloat16* x, __nv_bfloat16* out, int32_t rows, int32_t inner) {
  let_next_start();
  wait_for_previous();
  const int32_t first = (blockIdx.x * kWarps + threadIdx.x / 32) * kStripColumns;
  if (first >= inner) return;
  StripDelta gate_deltas(lists, site, step, 0, first, inner);
  StripDelta up_deltas(lists, site, step, 1, first, inner);
  const int g = threadIdx.x % 32 / 4;
  const int32_t column = first + threadIdx.x % 4 * 8;
  const int32_t valid = inner - column;
  const int32_t first_tile = blockIdx.y * kTiles;
  for (int i = 0; i < kTiles && (first_tile + i) * kTileRows < rows; ++i) {
    const int32_t tile = first_tile + i;
    float gate[2][8], up[2][8];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int32_t row = tile * kTileRows + g + 8 * h;
      if (row >= rows || valid <= 0) continue;
      const __nv_bfloat16* from = x + int64_t{row} * 2 * inner + column;
      load_eight<kAligned>(from, valid, gate[h]);
      load_eight<kAligned>(from + inner, valid, up[h]);
    }
    float gate_delta[4][4] = {};
    float up_delta[4][4] = {};
    gate_deltas.add<kTileRows>(tile, 0, gate_delta);
    up_deltas.add<kTileRows>(tile, 0, up_delta);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int32_t row = tile * kTileRows + g + 8 * h;
      if (row >= rows || valid <= 0) continue;
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        const float z = gate[h][c] + gate_delta[c / 2][2 * h + c % 2];
        // exp overflows to infinity for gates below -88, and z / inf is 0 as it should be.
        gate[h][c] = __fdividef(z, 1.0f + __expf(-z)) * (up[h][c] + up_delta[c / 2][2 * h + c % 2]);
      }
      store_eight<kAligned>(gate[h], valid, out + int64_t{row} * inner + column);
    }
  }
}

dim3 grid_of(int32_t strips, int32_t rows) {
  constexpr int32_t kRows = kTiles * kTileRows;
  return dim3((strips + kWarps - 1) / kWarps, (rows + kRows - 1) / kRows);
}

}  // namespace

void lora_expand(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                 __nv_bfloat16* y, int32_t rows, int32_t n, cudaStream_t stream) {
  if (rows == 0) return;
  const LaunchShape shape{.grid = grid_of(num_strips(site), rows), .block = dim3(kThreads)};
  const auto kernel =
      all_multiples_of_8(site, n) ? lora_expand_kernel<true> : lora_expand_kernel<false>;
  launch_overlapping("lora_expand", kernel, shape, stream, lists, site, step, y, rows, n);
}

void lora_silu_mul(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                   const __nv_bfloat16* x, __nv_bfloat16* out, int32_t rows, int32_t inner,
                   cudaStream_t stream) {
  if (rows == 0) return;
  const int32_t strips = (inner + kStripColumns - 1) / kStripColumns;
  const LaunchShape shape{.grid = grid_of(strips, rows), .block = dim3(kThreads)};
  const auto kernel = inner % 8 == 0 ? lora_silu_mul_kernel<true> : lora_silu_mul_kernel<false>;
  launch_overlapping("lora_silu_mul", kernel, shape, stream, lists, site, step, x, out, rows,
                     inner);
}

}  // namespace lorax::cuda
