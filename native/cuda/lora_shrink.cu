// A cluster of 8 blocks x 4 warps takes a unit: each warp a contiguous piece of k, so one bulk
// prefetch brings its piece of A into the second-level cache long before x is there. Partial sums
// stay in shared memory; after one cluster barrier block c sums rows c, c + 8, ... of all warps.
// Before sm_90 a block is its own cluster.
#include "cuda/cluster.cuh"
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_mma.cuh"
#include "cuda/lora_shrink.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxTiles = LoraUnit::kMaxRows / 8;
constexpr int kRowFloats = 20;  // 16 ranks, padded: a warp's writes meet no bank twice
constexpr int kPrefetchUnits = 3;

struct Shared {
  // Double buffers: unit u + 2 writes where unit u was read only after the barrier of u + 1.
  alignas(16) float partial[2][kWarps][LoraUnit::kMaxRows][kRowFloats];
  alignas(16) float of_warp[2][kWarps][kMaxTiles][16];
  int32_t rows[2][LoraUnit::kMaxRows];
  float weights[2][LoraUnit::kMaxRows];
};

__device__ __forceinline__ void prefetch_to_l2(const uint8_t* from, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  if (bytes > 0) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
  }
#endif
}

// Sums blocks [first, last) of 32 columns for kTiles x 8 rows into partial [rows][kRowFloats].
template <int kTiles, bool kAligned>
__device__ __forceinline__ void multiply(const LoraShrinkArguments& args, const uint8_t* a,
                                         const int32_t* segment_rows, int32_t num_rows,
                                         int32_t first, int32_t last,
                                         float (*partial)[kRowFloats]) {
  constexpr int kUnroll = kTiles == 4 ? 2 : 4;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const __nv_bfloat16* x[kTiles];
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    x[j] = 8 * j + g < num_rows ? args.x + int64_t{segment_rows[8 * j + g]} * args.k : nullptr;
  }
  float c[kTiles][4] = {};
  for (int32_t block = first; block < last; block += kUnroll) {
    uint4 low[kUnroll], high[kUnroll], xs[kUnroll][kTiles];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      low[u] = high[u] = make_uint4(0, 0, 0, 0);
      if (block + u < last) {
        const uint8_t* from = a + int64_t{block + u} * 1024 + lane * 16;
        low[u] = load_streaming(from);
        high[u] = load_streaming(from + 512);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        xs[u][j] = load_row_part<kAligned>(block + u < last ? x[j] : nullptr,
                                           (block + u) * 32 + 8 * t, args.k);
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int j = 0; j < kTiles; ++j) {
        lora_mma(c[j], low[u].x, high[u].x, low[u].y, high[u].y, xs[u][j].x, xs[u][j].y);
        lora_mma(c[j], low[u].z, high[u].z, low[u].w, high[u].w, xs[u][j].z, xs[u][j].w);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) partial[8 * j + 2 * t + i % 2][g + i / 2 * 8] = c[j][i];
  }
}

// Row n of the unit, n = rank, rank + kCluster, ...: the sum over the cluster's warps, times weight
// and scale, into v.
template <int kCluster>
__device__ __forceinline__ void reduce(const LoraShrinkArguments& args, const LoraUnit& unit,
                                       Shared& shared, int buffer, int rank) {
  // A row is 4 quads of ranks from kCluster * kWarps warps.
  constexpr int kSources = kCluster * kWarps;
  constexpr int kSourcesAtOnce = kThreads / 4;
  constexpr int kRows = LoraUnit::kMaxRows / kCluster;
  constexpr int kRowsAtOnce = kRows < kMaxTiles ? kRows : kMaxTiles;
  const int quad = threadIdx.x % 4;
  const int source = threadIdx.x / 4;
  for (int base = 0; base < kRows && rank + base * kCluster < unit.num_rows; base += kRowsAtOnce) {
    if (base > 0) __syncthreads();
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const int n = rank + (base + i) * kCluster;
      if (n >= unit.num_rows) continue;  // the same for the whole block
      float4 sum = {};
      if (kSources == kSourcesAtOnce || source < kSources) {
        sum = load_from_block<kCluster>(&shared.partial[buffer][source % kWarps][n][quad * 4],
                                        source / kWarps);
      }
#pragma unroll
      for (int offset = 4; offset < 32; offset *= 2) {
        sum.x += __shfl_xor_sync(~0u, sum.x, offset);
        sum.y += __shfl_xor_sync(~0u, sum.y, offset);
        sum.z += __shfl_xor_sync(~0u, sum.z, offset);
        sum.w += __shfl_xor_sync(~0u, sum.w, offset);
      }
      if (threadIdx.x % 32 < 4) {
        *reinterpret_cast<float4*>(&shared.of_warp[buffer][threadIdx.x / 32][i][quad * 4]) = sum;
      }
    }
    __syncthreads();
    for (int i = threadIdx.x / 8; i < kRowsAtOnce; i += kThreads / 8) {
      const int n = rank + (base + i) * kCluster;
      if (n >= unit.num_rows) continue;
      const int pair = threadIdx.x % 8;
      float low = 0.0f;
      float high = 0.0f;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        low += shared.of_warp[buffer][w][i][2 * pair];
        high += shared.of_warp[buffer][w][i][2 * pair + 1];
      }
      const float factor = shared.weights[buffer][n] * unit.scale;
      auto* to =
          reinterpret_cast<uint32_t*>(args.v + int64_t{unit.v_row + shared.rows[buffer][n]} * 16);
      to[pair] = bf16_pair(low * factor, high * factor);
    }
  }
}

// Zeros for the rows between and around the unit's own.
template <int kCluster>
__device__ __forceinline__ void clear_gaps(const LoraShrinkArguments& args, const LoraUnit& unit,
                                           const int32_t* rows, int rank) {
  if (unit.end_row - unit.first_row == unit.num_rows) return;
  const int32_t halves = (unit.end_row - unit.first_row) * 2;  // 16 bytes each
  for (int32_t i = rank * kThreads + threadIdx.x; i < halves; i += kCluster * kThreads) {
    const int32_t row = unit.first_row + i / 2;
    int32_t at = 0;  // the first of the unit's rows that is >= row
    for (int32_t step = LoraUnit::kMaxRows / 2; step > 0; step /= 2) {
      if (at + step <= unit.num_rows && rows[at + step - 1] < row) at += step;
    }
    if (at < unit.num_rows && rows[at] < row) ++at;
    if (at < unit.num_rows && rows[at] == row) continue;
    auto* to = reinterpret_cast<uint4*>(args.v + int64_t{unit.v_row + row} * 16);
    to[i % 2] = make_uint4(0, 0, 0, 0);
  }
}

template <int kCluster, bool kAligned>
__global__ void __launch_bounds__(kThreads)
    lora_shrink_kernel(const LoraShrinkArguments args, const StepArrays step) {
  __shared__ Shared shared;
  let_next_start();
  if (!args.lists_ready) wait_for_previous();

  const int rank = cluster_rank<kCluster>();
  const int warp = threadIdx.x / 32;
  const int32_t cluster = blockIdx.x / kCluster;
  const int32_t num_clusters = gridDim.x / kCluster;
  const int32_t num_units = *args.num_units;
  const int32_t blocks = (args.k + 31) / 32;
  const int32_t piece = rank * kWarps + warp;
  const int32_t first = blocks * piece / (kCluster * kWarps);
  const int32_t last = blocks * (piece + 1) / (kCluster * kWarps);
  const auto prefetch = [&](int32_t u) {
    if (u < num_units && threadIdx.x % 32 == 0) {
      prefetch_to_l2(args.units[u].a + int64_t{first} * 1024, (last - first) * 1024);
    }
  };
  for (int i = 0; i < kPrefetchUnits; ++i) prefetch(cluster + i * num_clusters);
  if (args.lists_ready) wait_for_previous();

  int buffer = 0;
  for (int32_t u = cluster; u < num_units; u += num_clusters, buffer ^= 1) {
    const LoraUnit unit = args.units[u];
    const int32_t* rows = step.segment_rows + unit.rows_begin;
    if (threadIdx.x < unit.num_rows) {
      shared.rows[buffer][threadIdx.x] = rows[threadIdx.x];
      shared.weights[buffer][threadIdx.x] = step.segment_weights[unit.rows_begin + threadIdx.x];
    }
    prefetch(u + kPrefetchUnits * num_clusters);
    auto* partial = shared.partial[buffer][warp];
    if (unit.num_rows <= 8) {
      multiply<1, kAligned>(args, unit.a, rows, unit.num_rows, first, last, partial);
    } else if (unit.num_rows <= 16) {
      multiply<2, kAligned>(args, unit.a, rows, unit.num_rows, first, last, partial);
    } else {
      multiply<4, kAligned>(args, unit.a, rows, unit.num_rows, first, last, partial);
    }
    cluster_barrier<kCluster>();
    clear_gaps<kCluster>(args, unit, shared.rows[buffer], rank);
    reduce<kCluster>(args, unit, shared, buffer, rank);
  }
  // No block leaves while another reads its shared memory.
  cluster_barrier<kCluster>();
}

template <int kCluster>
void launch(const LoraShrinkArguments& args, const StepArrays& step, int clusters,
            cudaStream_t stream) {
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(clusters * kCluster)),
                          .block = dim3(kThreads),
                          .cluster = kCluster};
  if (args.k % 8 == 0) {
    launch_overlapping("lora_shrink", lora_shrink_kernel<kCluster, true>, shape, stream, args,
                       step);
  } else {
    launch_overlapping("lora_shrink", lora_shrink_kernel<kCluster, false>, shape, stream, args,
                       step);
  }
}

}  // namespace

void lora_shrink(const LoraShrinkArguments& args, const StepArrays& step, cudaStream_t stream) {
  // Two blocks a multiprocessor, beside those of the streaming GEMM.
  const DeviceShape device = device_shape();
  if (device.major >= 9) {
    launch<8>(args, step, device.multiprocessors * 2 / 8, stream);
  } else {
    launch<1>(args, step, device.multiprocessors * 2, stream);
  }
}

}  // namespace lorax::cuda
