// out = silu(gate) * up with the deltas of both: a warp has a strip of 32 columns and walks down
// the rows of its block. x of the tiles ahead is on its way into shared memory; each thread copies
// what it will read itself, so that no barrier is needed.
#include <algorithm>

#include "cuda/device_ops.cuh"
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_async.cuh"
#include "cuda/lora_row_delta.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 8;  // side by side: 512 bytes of a row
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 4;  // row tiles of x in shared memory
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kSharedBytes = kStages * 4 * kThreads * 16;

template <bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    lora_silu_mul_kernel(const __grid_constant__ LoraRowLists lists, const __nv_bfloat16* x,
                         __nv_bfloat16* out, int32_t rows, int32_t inner, int32_t block_tiles) {
  extern __shared__ uint4 ring[];  // [kStages][gate, up][rows g, g + 8][kThreads]
  let_next_start();
  wait_for_previous();
  const int32_t first = (blockIdx.x * kWarps + threadIdx.x / 32) * kStripColumns;
  if (first >= inner) return;
  const Lane lane(first, inner, kAligned);
  const int32_t first_tile = blockIdx.y * block_tiles;
  const int32_t last_tile = min(first_tile + block_tiles, (rows + kTileRows - 1) / kTileRows);
  uint4* const mine = ring + threadIdx.x;
  const auto load = [&](int32_t tile) {
    if (tile < last_tile) {
      uint4* const to = mine + tile % kStages * (4 * kThreads);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int64_t row = min(row_of(tile, h), rows - 1);
        const __nv_bfloat16* from = x + row * 2 * inner + lane.load_column;
#pragma unroll
        for (int p = 0; p < 2; ++p) {
          if constexpr (kAligned) {
            copy_async(to + (2 * p + h) * kThreads, from + p * inner);
          } else {
            to[(2 * p + h) * kThreads] = load_eight<false>(from + p * inner, lane.valid);
          }
        }
      }
    }
    commit_copies();
  };
  for (int i = 0; i < kStages - 1; ++i) load(first_tile + i);
  StripWalk<2> walk(lists, 0, first, inner, first_tile, last_tile);

  for (int32_t tile = first_tile; tile < last_tile; ++tile) {
    wait_for_copies<kStages - 2>();
    const uint4* const from = mine + tile % kStages * (4 * kThreads);
    float y[2][4][4];  // gate and up, as StripWalk has deltas
#pragma unroll
    for (int p = 0; p < 2; ++p) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const uint4 raw = from[(2 * p + h) * kThreads];
#pragma unroll
        for (int c = 0; c < 8; ++c) y[p][c / 2][2 * h + c % 2] = eight_at(raw, c);
      }
    }
    load(tile + kStages - 1);
    walk.add_and_advance(y);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float product[8];
#pragma unroll
      for (int c = 0; c < 8; ++c) {
        constexpr float kLog2E = 1.4426950408889634f;
        const float z = y[0][c / 2][2 * h + c % 2];
        // 2^x overflows to infinity for gates below -88, and z / inf is 0 as it should be.
        product[c] =
            z * reciprocal_fast(1.0f + exp2_fast(-kLog2E * z)) * y[1][c / 2][2 * h + c % 2];
      }
      const int64_t row = row_of(tile, h);
      if (row < rows && lane.valid > 0) {
        store_eight<kAligned>(product, lane.valid, out + row * inner + lane.column);
      }
    }
  }
}

// Row tiles a block walks: as many as make the last wave of blocks a full one. A block's start
// costs about as much as three tiles.
int32_t block_tiles(int32_t tiles, int32_t columns, int32_t resident) {
  int32_t best = tiles;
  int32_t best_cost = 0;
  for (int32_t waves = 1; waves <= 8; ++waves) {
    const int32_t bands = std::clamp(resident * waves / columns, 1, tiles);
    const int32_t each = (tiles + bands - 1) / bands;
    const int32_t blocks = (tiles + each - 1) / each * columns;
    const int32_t cost = (blocks + resident - 1) / resident * (each + 3);
    if (waves == 1 || cost < best_cost) best = each, best_cost = cost;
  }
  return best;
}

template <bool kAligned>
void launch(const LoraRowLists& lists, const __nv_bfloat16* x, __nv_bfloat16* out, int32_t rows,
            int32_t inner, cudaStream_t stream) {
  const auto kernel = lora_silu_mul_kernel<kAligned>;
  LORAX_CUDA(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes));
  const int32_t tiles = (rows + kTileRows - 1) / kTileRows;
  const int32_t columns = (inner + kWarps * kStripColumns - 1) / (kWarps * kStripColumns);
  const int32_t each =
      block_tiles(tiles, columns, device_shape().multiprocessors * kBlocksPerMultiprocessor);
  const LaunchShape shape{.grid = dim3(columns, (tiles + each - 1) / each),
                          .block = dim3(kThreads),
                          .shared_bytes = kSharedBytes};
  launch_overlapping("lora_silu_mul", kernel, shape, stream, lists, x, out, rows, inner, each);
}

}  // namespace

void lora_silu_mul(const LoraRowLists& lists, const __nv_bfloat16* x, __nv_bfloat16* out,
                   int32_t rows, int32_t inner, cudaStream_t stream) {
  if (rows == 0) return;
  (inner % 8 == 0 ? launch<true> : launch<false>)(lists, x, out, rows, inner, stream);
}

}  // namespace lorax::cuda
