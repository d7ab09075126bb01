// A cluster of 8 blocks takes a tile of 128 rows of one segment, each block an eighth of k: x is
// read once for up to 6 rank groups of all parts. Warp w has rows 16 w .. 16 w + 15 of the tile; x
// goes straight to registers, A through a ring in shared memory. Partial sums are added in the
// blocks' order. Before sm_90 a block is its own cluster.
#include <algorithm>

#include "cuda/cluster.cuh"
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_lookup.cuh"
#include "cuda/lora_mma.cuh"
#include "cuda/lora_rows.h"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxGroups = 6;  // at once: rank 32 on three parts
constexpr int kStages = 3;     // of the ring
constexpr int kRows = LoraRowTile::kRows;
constexpr int kParts = LoraSiteItems::kMaxParts;
constexpr int kPad = 4;  // floats, between rows of partial sums

static_assert(kRows == kWarps * 16);

constexpr int partial_stride(int groups) { return groups * 16 + kPad; }
// Of 32 columns, in a stage: more where there are registers for x.
constexpr int stage_blocks(int groups) { return groups <= 3 ? 4 : 2; }
constexpr size_t ring_bytes(int groups) {
  return static_cast<size_t>(kStages * stage_blocks(groups) * groups * 1024);
}
constexpr size_t kSharedBytes = std::max(
    {sizeof(float) * kRows * partial_stride(kMaxGroups), ring_bytes(kMaxGroups), ring_bytes(3)});

__device__ __forceinline__ void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}

// The slices of one segment at one site, numbered part by part.
struct Slots {
  AdapterEntry entries[kParts];
  int32_t total = 0;

  __device__ Slots(const AdapterTable* adapter, const LoraRowSite& site) {
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (p < site.num_parts) entries[p] = find_entry(adapter, site.layer, site.modules[p]);
      total += entries[p].num_groups;
    }
  }
  // Part and group of a slot; the scale of its entry.
  __device__ const uint8_t* find(int32_t slot, int& part, int32_t& group, float& scale) const {
    const uint8_t* a = nullptr;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (slot >= 0 && slot < entries[p].num_groups) {
        part = p;
        group = slot;
        scale = entries[p].scale;
        a = entries[p].groups[slot].a;
      }
      slot -= entries[p].num_groups;
    }
    return a;
  }
};

struct Chunk {    // of slots, in shared memory
  int32_t total;  // slots of the segment
  const uint8_t* a[kMaxGroups];
  __nv_bfloat16* v[kMaxGroups];  // of the tile's first row
  float scale[kMaxGroups];
};

// partial [128 rows][kGroups * 16] = x A^T over blocks [first, last) of 32 columns.
template <int kGroups, bool kAligned>
__device__ void multiply(const __nv_bfloat16* const (&x)[2], int32_t k, const Chunk& chunk,
                         int32_t first, int32_t last, bool has_rows, uint8_t* shared) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int g = lane / 4;
  const int t = lane % 4;
  constexpr int kStageBlocks = stage_blocks(kGroups);
  const int32_t stages = (last - first + kStageBlocks - 1) / kStageBlocks;
  float c[kGroups][2][4] = {};

  const auto fetch = [&](int32_t stage) {
    if (stage < stages) {
      uint8_t* to = shared + stage % kStages * (kStageBlocks * kGroups * 1024);
      for (int i = threadIdx.x; i < kStageBlocks * kGroups * 64; i += kThreads) {
        const int block = i / 64 % kStageBlocks;
        const int group = i / 64 / kStageBlocks;
        const int32_t at = first + stage * kStageBlocks + block;
        if (at < last) {
          copy_async(to + i * 16, chunk.a[group] + int64_t{at} * 1024 + i % 64 * 16);
        }
      }
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  uint4 xs[kStageBlocks][2];
  const auto load_x = [&](int32_t stage) {
#pragma unroll
    for (int b = 0; b < kStageBlocks; ++b) {
      const int32_t at = first + stage * kStageBlocks + b;
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        xs[b][j] = load_row_part<kAligned>(at < last ? x[j] : nullptr, at * 32 + 8 * t, k);
      }
    }
  };

  for (int s = 0; s < kStages - 1; ++s) fetch(s);
  load_x(0);
  for (int32_t s = 0; s < stages; ++s) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads();
    fetch(s + kStages - 1);
    uint4 now[kStageBlocks][2];
#pragma unroll
    for (int b = 0; b < kStageBlocks; ++b) {
#pragma unroll
      for (int j = 0; j < 2; ++j) now[b][j] = xs[b][j];
    }
    load_x(s + 1);
    if (!has_rows) continue;
    const uint8_t* from = shared + s % kStages * (kStageBlocks * kGroups * 1024) + lane * 16;
#pragma unroll
    for (int b = 0; b < kStageBlocks; ++b) {
      if (first + s * kStageBlocks + b >= last) break;
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        const uint8_t* block = from + (q * kStageBlocks + b) * 1024;
        const uint4 low = *reinterpret_cast<const uint4*>(block);
        const uint4 high = *reinterpret_cast<const uint4*>(block + 512);
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          lora_mma(c[q][j], low.x, high.x, low.y, high.y, now[b][j].x, now[b][j].y);
          lora_mma(c[q][j], low.z, high.z, low.w, high.w, now[b][j].z, now[b][j].w);
        }
      }
    }
  }
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncthreads();  // the ring is read, and becomes the partial sums
  if (!has_rows) return;
  auto* partial = reinterpret_cast<float*>(shared);
#pragma unroll
  for (int q = 0; q < kGroups; ++q) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[(warp * 16 + 8 * j + 2 * t + i % 2) * partial_stride(kGroups) + q * 16 + g +
                i / 2 * 8] = c[q][j][i];
      }
    }
  }
}

// This block's share of the tile's rows: summed over the cluster, times weight and scale, into v.
template <int kCluster, int kGroups>
__device__ void reduce(const Chunk& chunk, int32_t groups, const float* weights, int32_t num_rows,
                       const uint8_t* shared) {
  const auto* partial = reinterpret_cast<const float*>(shared);
  constexpr int kShare = kRows / kCluster;
  constexpr int kQuads = kGroups * 4;  // of a row
  const int first_row = cluster_rank<kCluster>() * kShare;
  for (int i = threadIdx.x; i < kShare * kQuads; i += kThreads) {
    const int row = first_row + i / kQuads;
    const int group = i % kQuads / 4;
    const int quad = i % 4;
    if (row >= num_rows || group >= groups) continue;
    float4 sum = {};
#pragma unroll
    for (int block = 0; block < kCluster; ++block) {
      const float4 add = load_from_block<kCluster>(
          partial + row * partial_stride(kGroups) + group * 16 + quad * 4, block);
      sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
    }
    const float factor = weights[row] * chunk.scale[group];
    *reinterpret_cast<uint2*>(chunk.v[group] + row * 16 + quad * 4) = make_uint2(
        bf16_pair(sum.x * factor, sum.y * factor), bf16_pair(sum.z * factor, sum.w * factor));
  }
}

template <int kCluster, bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
    lora_shrink_rows_kernel(const LoraRowLists lists, const LoraRowSite site, const StepArrays step,
                            const __nv_bfloat16* x, int32_t k) {
  extern __shared__ __align__(16) uint8_t shared[];
  __shared__ Chunk chunk;
  let_next_start();
  wait_for_previous();
  const int rank = cluster_rank<kCluster>();
  const int warp = threadIdx.x / 32;
  const int g = threadIdx.x % 32 / 4;
  const int32_t blocks = (k + 31) / 32;
  const int32_t first = blocks * rank / kCluster;
  const int32_t last = blocks * (rank + 1) / kCluster;
  const int32_t num_tiles = *lists.num_tiles;
  for (int32_t i = blockIdx.x / kCluster; i < num_tiles; i += gridDim.x / kCluster) {
    const LoraRowTile tile = lists.tiles[i];
    if (tile.segment < 0) continue;
    const DeviceSegment segment = step.segments[tile.segment];
    const int32_t num_rows = min(segment.rows_end - tile.first, kRows);
    const int64_t segment_rows = segment.rows_end - segment.rows_begin;
    const __nv_bfloat16* rows[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int32_t row = warp * 16 + 8 * j + g;
      rows[j] = row < num_rows ? x + int64_t{step.segment_rows[tile.first + row]} * k : nullptr;
    }
    for (int32_t slot = 0;; slot += kMaxGroups) {
      if (threadIdx.x < kMaxGroups) {
        const Slots slots(segment.adapter, site);
        const int32_t groups = min(slots.total - slot, kMaxGroups);
        // Past the last group: the first again, whose sums are not used.
        int part = 0;
        int32_t group = 0;
        float scale = 0.0f;
        const int32_t mine = static_cast<int32_t>(threadIdx.x) < groups ? threadIdx.x : 0;
        if (threadIdx.x == 0) chunk.total = slots.total;
        chunk.a[threadIdx.x] = slots.find(slot + mine, part, group, scale);
        chunk.scale[threadIdx.x] = scale;
        const int64_t v_row = part * lists.capacity.row_groups + lists.v_begin[tile.segment] +
                              group * segment_rows + (tile.first - segment.rows_begin);
        chunk.v[threadIdx.x] = lists.v + v_row * 16;
      }
      __syncthreads();
      const int32_t total = chunk.total;
      if (total == 0) {  // the same for the whole cluster
        __syncthreads();
        break;
      }
      const int32_t groups = min(total - slot, kMaxGroups);
      const float* weights = step.segment_weights + tile.first;
      const bool has_rows = warp * 16 < num_rows;
      const auto run = [&]<int kGroups>() {
        multiply<kGroups, kAligned>(rows, k, chunk, first, last, has_rows, shared);
        cluster_barrier<kCluster>();
        reduce<kCluster, kGroups>(chunk, groups, weights, num_rows, shared);
      };
      if (groups == 1) {
        run.template operator()<1>();
      } else if (groups == 2) {
        run.template operator()<2>();
      } else if (groups == 3) {
        run.template operator()<3>();
      } else if (groups == 4) {
        run.template operator()<4>();
      } else {
        run.template operator()<kMaxGroups>();
      }
      // Others read our partial sums, we read `chunk`: both are written again.
      cluster_barrier<kCluster>();
      if (slot + kMaxGroups >= total) break;
    }
  }
}

// Clusters that run at the same time: each takes every so-manieth tile.
template <int kCluster, bool kAligned>
int resident_clusters(const LaunchShape& shape, int multiprocessors) {
  if constexpr (kCluster == 1) return multiprocessors * 2;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim.x = kCluster;
  attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(multiprocessors * 2 / kCluster * kCluster));
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.attrs = &attribute;
  config.numAttrs = 1;
  int clusters = 0;
  LORAX_CUDA(cudaOccupancyMaxActiveClusters(&clusters, lora_shrink_rows_kernel<kCluster, kAligned>,
                                            &config));
  return std::max(clusters, 1);
}

template <int kCluster, bool kAligned>
void launch(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
            const __nv_bfloat16* x, int32_t k, int multiprocessors, cudaStream_t stream) {
  const auto kernel = lora_shrink_rows_kernel<kCluster, kAligned>;
  LaunchShape shape{
      .grid = dim3(1), .block = dim3(kThreads), .shared_bytes = kSharedBytes, .cluster = kCluster};
  LORAX_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(kSharedBytes)));
  // One kind of device a process: asked once.
  static const int clusters = resident_clusters<kCluster, kAligned>(shape, multiprocessors);
  shape.grid = dim3(static_cast<unsigned>(clusters * kCluster));
  launch_overlapping("lora_shrink_rows", kernel, shape, stream, lists, site, step, x, k);
}

}  // namespace

void lora_shrink_rows(const LoraRowLists& lists, const LoraRowSite& site, const StepArrays& step,
                      const __nv_bfloat16* x, int32_t rows, int32_t k, cudaStream_t stream) {
  if (rows == 0) return;
  const DeviceShape device = device_shape();
  const bool aligned = k % 8 == 0;
  if (device.major >= 9) {
    (aligned ? launch<8, true> : launch<8, false>)(lists, site, step, x, k, device.multiprocessors,
                                                   stream);
  } else {
    (aligned ? launch<1, true> : launch<1, false>)(lists, site, step, x, k, device.multiprocessors,
                                                   stream);
  }
}

}  // namespace lorax::cuda
