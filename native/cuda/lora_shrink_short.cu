// A cluster of blocks takes up to 8 rows of one segment at one part of the site: the blocks and
// their warps share out k, and read A once, straight into the fragments of the tensor cores. Few
// registers and no ring, so that many blocks share a multiprocessor: the bytes under way are theirs
// together. Partial sums are added in the order of blocks and warps. Before sm_90 a block is its
// own cluster.
#include <algorithm>

#include "cuda/cluster.cuh"
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_lookup.cuh"
#include "cuda/lora_mma.cuh"
#include "cuda/lora_rows.h"
#include "cuda/lora_slices.cuh"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kRows = LoraRowTile::kShortRows;
constexpr int kRanks = 16;
constexpr int kBlockColumns = 2048;  // of k, about: what a block of a cluster takes
constexpr int kUnits = 4;            // of 32 columns, twice under way in a warp
constexpr int kBlocksPerMultiprocessor = 4;
static_assert(kRows == 8);  // of x: the columns of a product

// Some units of A, 16 bytes of ranks g and g + 8 each.
struct Units {
  uint4 low[kUnits], high[kUnits];

  __device__ __forceinline__ void load(SliceAddress a, int32_t unit, int32_t end) {
    const uint8_t* from = a.a_block(unit) + threadIdx.x % 32 * 16;
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (unit + i >= end) break;
      low[i] = load_streaming(from);
      high[i] = load_streaming_or_zero(from + 512, !a.is_half());
      from += a.a_block_bytes();
    }
  }
};

// c += A x^T over units [begin, end) of 32 columns of k, the first of which are here; `row` is this
// lane's of x, or null.
template <bool kAligned>
__device__ __forceinline__ void multiply(Units& here, SliceAddress a, const __nv_bfloat16* row,
                                         int32_t begin, int32_t end, int32_t k, float (&c)[4]) {
  for (int32_t unit = begin; unit < end; unit += kUnits) {
    uint4 x[kUnits];
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (unit + i >= end) break;
      x[i] = load_row_part<kAligned>(row, (unit + i) * 32 + threadIdx.x % 4 * 8, k);
    }
    Units next;
    next.load(a, unit + kUnits, end);
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (unit + i >= end) break;
      lora_mma(c, here.low[i].x, here.high[i].x, here.low[i].y, here.high[i].y, x[i].x, x[i].y);
      lora_mma(c, here.low[i].z, here.high[i].z, here.low[i].w, here.high[i].w, x[i].z, x[i].w);
    }
    here = next;
  }
}

template <int kCluster, bool kAligned>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    lora_shrink_short_kernel(const __grid_constant__ LoraRowLists lists,
                             const __grid_constant__ LoraRowSite site,
                             const __grid_constant__ StepArrays step, const __nv_bfloat16* x,
                             int32_t k) {
  __shared__ __align__(16) float partial[kWarps][kRows][kRanks];
  let_next_start();
  const int rank = cluster_rank<kCluster>();
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int32_t units = (k + 31) / 32;
  const int32_t share = (units + kCluster * kWarps - 1) / (kCluster * kWarps);
  const int32_t begin = min((rank * kWarps + warp) * share, units);
  const int32_t end = min(begin + share, units);

  // Lists and adapters are older than what the kernel before may still write: x.
  bool waited = false;
  const int32_t num_items = *lists.num_tiles * site.num_parts;
  for (int32_t item = blockIdx.x / kCluster; item < num_items; item += gridDim.x / kCluster) {
    const LoraRowTile tile = lists.tiles[item / site.num_parts];
    const int part = item % site.num_parts;
    const AdapterEntry entry = find_entry(tile.adapter, site.layer, site.modules[part]);
    Units here;
    if (entry.num_groups > 0) here.load(entry.groups[0].a, begin, end);
    if (!waited) wait_for_previous();
    waited = true;
    if (tile.index == 0 && rank == 0 && threadIdx.x == 0) {
      LoraRowSlices& to = lists.slices[tile.segment * LoraSiteItems::kMaxParts + part];
      to.groups = entry.groups;
      if (entry.num_groups > 0) to.first_b = entry.groups[0].b;
      to.num_groups = entry.num_groups;
    }
    const __nv_bfloat16* row = nullptr;
    if (g < tile.num_rows) row = x + int64_t{step.segment_rows[tile.first + g]} * k;
    for (int32_t group = 0; group < entry.num_groups; ++group) {
      float c[4] = {};
      const SliceAddress a = entry.groups[group].a;
      if (group > 0) here.load(a, begin, end);
      multiply<kAligned>(here, a, row, begin, end, k, c);
      partial[warp][2 * t][g] = c[0];
      partial[warp][2 * t + 1][g] = c[1];
      partial[warp][2 * t][g + 8] = c[2];
      partial[warp][2 * t + 1][g + 8] = c[3];
      cluster_barrier<kCluster>();
      // Each block has some of the rows: a thread sums four ranks of one warp over the cluster, its
      // neighbours the other warps'.
      constexpr int kShare = kRows / kCluster;
      if (threadIdx.x < kShare * 16) {
        const int of_row = rank * kShare + threadIdx.x / 16;
        const int quad = threadIdx.x / 4 % 4;
        float4 sum = {};
#pragma unroll
        for (int block = 0; block < kCluster; ++block) {
          const float4 add =
              load_from_block<kCluster>(&partial[threadIdx.x % 4][of_row][quad * 4], block);
          sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
        }
#pragma unroll
        for (int other = 1; other < 4; other *= 2) {
          constexpr uint32_t kLanes = kShare * 16 >= 32 ? ~0u : (1u << kShare * 16 % 32) - 1;
          sum.x += __shfl_xor_sync(kLanes, sum.x, other);
          sum.y += __shfl_xor_sync(kLanes, sum.y, other);
          sum.z += __shfl_xor_sync(kLanes, sum.z, other);
          sum.w += __shfl_xor_sync(kLanes, sum.w, other);
        }
        if (threadIdx.x % 4 == 0 && of_row < tile.num_rows) {
          const float factor = step.segment_weights[tile.first + of_row] * entry.scale;
          const int64_t v_row = part * lists.capacity.row_groups + tile.v_row +
                                int64_t{group} * tile.segment_rows + of_row;
          *reinterpret_cast<uint2*>(lists.v + v_row * 16 + quad * 4) = make_uint2(
              bf16_pair(sum.x * factor, sum.y * factor), bf16_pair(sum.z * factor, sum.w * factor));
        }
      }
      cluster_barrier<kCluster>();  // `partial` is read, and written again
    }
  }
  if (!waited) wait_for_previous();
}

template <int kCluster, bool kAligned>
void launch(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
            const __nv_bfloat16* x, int32_t rows, int32_t k, int multiprocessors,
            cudaStream_t stream) {
  // Items are at most as many as rows in segments; a cluster goes on to further ones.
  const int32_t resident = multiprocessors * kBlocksPerMultiprocessor / kCluster;
  const int32_t items = std::min(rows, lists.capacity.segment_rows) * site.num_parts;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(std::max(std::min(items, resident), 1) * kCluster)),
      .block = dim3(kThreads),
      .cluster = kCluster};
  launch_overlapping("lora_shrink_short", lora_shrink_short_kernel<kCluster, kAligned>, shape,
                     stream, lists, site, step, x, k);
}

template <bool kAligned>
void launch_clusters(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                     const __nv_bfloat16* x, int32_t rows, int32_t k, cudaStream_t stream) {
  const DeviceShape device = device_shape();
  const auto go = [&]<int kCluster>() {
    launch<kCluster, kAligned>(lists, site, step, x, rows, k, device.multiprocessors, stream);
  };
  if (device.major < 9 || k <= kBlockColumns) {
    go.template operator()<1>();
  } else if (k <= 2 * kBlockColumns) {
    go.template operator()<2>();
  } else if (k <= 4 * kBlockColumns) {
    go.template operator()<4>();
  } else {
    go.template operator()<8>();
  }
}

}  // namespace

void lora_shrink_short(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                       const __nv_bfloat16* x, int32_t rows, int32_t k, cudaStream_t stream) {
  if (rows == 0) return;
  (k % 8 == 0 ? launch_clusters<true> : launch_clusters<false>)(lists, site, step, x, rows, k,
                                                                stream);
}

}  // namespace lorax::cuda
