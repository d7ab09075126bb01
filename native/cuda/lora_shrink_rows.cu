// A cluster of 4 blocks takes a tile of 128 rows of one segment: x is read once for up to 6 rank
// groups of all parts. Both x and A go through rings in shared memory, x from before A's place is
// known. Block r has every fourth 64 columns of k, so that together they read 512 neighbouring
// bytes of a row. Partial sums are added in the blocks' order. Before sm_90 a block is its own
// cluster.
#include <algorithm>

#include "cuda/cluster.cuh"
#include "cuda/device_shape.h"
#include "cuda/launch.h"
#include "cuda/lora_async.cuh"
#include "cuda/lora_lookup.cuh"
#include "cuda/lora_mma.cuh"
#include "cuda/lora_rows.h"
#include "cuda/lora_slices.cuh"

namespace lorax::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * 32;
constexpr int kMaxGroups = 6;  // at once: rank 32 on three parts
constexpr int kRows = LoraRowTile::kRows;
constexpr int kParts = LoraSiteItems::kMaxParts;
constexpr int kPad = 4;  // floats, between rows of partial sums

constexpr int kStageColumns = 64;                 // of x
constexpr int kStageBlocks = kStageColumns / 32;  // of A, a group
constexpr int kRowBytes = kStageColumns * 2;      // of x in a stage
constexpr int kXBytes = kRows * kRowBytes;        // a stage
constexpr int kRowsApart = kThreads / 8;          // 8 threads copy a row's part
constexpr int kCopies = kRows / kRowsApart;       // of a thread, a stage

// Two blocks share a multiprocessor from sm_90 on; before, some devices give a block 99 KB.
template <int kCluster>
constexpr int kSharedBytes = (kCluster > 1 ? 110 : 96) * 1024;
template <int kCluster>
constexpr int stages_of(int groups) {
  return kSharedBytes<kCluster> / (kXBytes + kStageBlocks * groups * 1024);
}
constexpr int kEarlyStages = 2;  // x of these is asked for before the number of groups is known

// Few groups: a warp has 32 rows and every other 32 columns, which reads A half as often. Many: 16
// rows and all columns, for want of registers.
constexpr int splits_of(int groups) { return groups <= 3 ? 2 : 1; }
constexpr int partial_stride(int groups) { return groups * 16 + kPad; }
constexpr size_t partial_bytes(int groups) {
  return sizeof(float) * splits_of(groups) * kRows * partial_stride(groups);
}
static_assert(partial_bytes(3) <= kSharedBytes<1> && partial_bytes(kMaxGroups) <= kSharedBytes<1>);
static_assert(stages_of<1>(kMaxGroups) > kEarlyStages);

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
  __device__ SliceAddress find(int32_t slot, int& part, int32_t& group, float& scale) const {
    SliceAddress a;
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

struct Chunk {        // of slots, in shared memory
  int32_t total = 0;  // slots of the segment
  SliceAddress a[kMaxGroups];
  __nv_bfloat16* v[kMaxGroups] = {};  // of the tile's first row
  float scale[kMaxGroups] = {};
};

// What a thread copies of x: 16 bytes of each of four rows a stage.
template <int kCluster, bool kAligned>
class XCopies {
 public:
  __device__ XCopies(const LoraRowTile& tile, const int32_t* segment_rows, const __nv_bfloat16* x,
                     int32_t k, int rank)
      : k_(k), column_(rank * kStageColumns + static_cast<int32_t>(threadIdx.x % 8) * 8) {
    const int row = threadIdx.x / 8;
    // Neighbouring rows in the two halves of the banks.
    to_ = row * kRowBytes + ((threadIdx.x % 8) ^ (row % 2 * 4)) * 16;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      const int32_t at = row + i * kRowsApart;
      rows_[i] = at < tile.num_rows ? x + int64_t{segment_rows[tile.first + at]} * k : nullptr;
    }
  }
  // Zeros past k. Rows that do not exist are left as they are: no other row's sums read them.
  __device__ __forceinline__ void fetch(int32_t stage, uint8_t* ring_slot) const {
    const int32_t column = stage * kCluster * kStageColumns + column_;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (rows_[i] == nullptr) continue;
      uint8_t* to = ring_slot + to_ + i * kRowsApart * kRowBytes;
      if constexpr (kAligned) {
        copy_async_or_zero(to, column < k_ ? rows_[i] + column : rows_[i], column < k_);
      } else {
        *reinterpret_cast<uint4*>(to) = load_row_part<false>(rows_[i], column, k_);
      }
    }
  }

 private:
  const int32_t k_;
  const int32_t column_;  // of stage 0
  int to_;
  const __nv_bfloat16* rows_[kCopies];
};

// partial [splits][128 rows][kGroups * 16] = x A^T over this block's columns.
template <int kCluster, int kGroups, bool kAligned>
__device__ void multiply(const XCopies<kCluster, kAligned>& copies, int32_t k, const Chunk& chunk,
                         int rank, int32_t num_rows, uint8_t* shared) {
  constexpr int kStages = stages_of<kCluster>(kGroups);
  constexpr int kSplits = splits_of(kGroups);
  constexpr int kEights = 2 * kSplits;  // of rows, a warp
  constexpr int kABytes = kStageBlocks * kGroups * 1024;
  const int lane = threadIdx.x % 32;
  const int g = lane / 4;
  const int t = lane % 4;
  const int split = threadIdx.x / 32 / (kWarps / kSplits);
  const int first_row = threadIdx.x / 32 % (kWarps / kSplits) * (kEights * 8);
  const bool has_rows = first_row < num_rows;
  const int32_t blocks = (k + 31) / 32;
  const int32_t stages =
      (blocks + kCluster * kStageBlocks - 1) / (kCluster * kStageBlocks);  // as for any block
  uint8_t* const a_ring = shared + kStages * kXBytes;
  float c[kGroups][kEights][4] = {};

  const auto first_block = [&](int32_t stage) { return (stage * kCluster + rank) * kStageBlocks; };
  const auto fetch = [&](int32_t stage, bool has_x) {
    if (stage < stages) {
      if (!has_x) copies.fetch(stage, shared + stage % kStages * kXBytes);
      uint8_t* to = a_ring + stage % kStages * kABytes;
      for (int i = threadIdx.x; i < kABytes / 16; i += kThreads) {
        const int group = i / (kStageBlocks * 64);
        const int32_t at = first_block(stage) + i / 64 % kStageBlocks;
        if (at < blocks) copy_a_block(to + i * 16, chunk.a[group], at, i % 64);
      }
    }
    commit_copies();
  };

  for (int s = 0; s < kStages - 1; ++s) fetch(s, s < kEarlyStages);
  for (int32_t s = 0; s < stages; ++s) {
    wait_for_copies<kStages - 2>();
    __syncthreads();
    fetch(s + kStages - 1, false);
    if (!has_rows) continue;
    const uint8_t* xs = shared + s % kStages * kXBytes + (first_row + g) * kRowBytes;
    const uint8_t* as = a_ring + s % kStages * kABytes + lane * 16;
#pragma unroll
    for (int i = 0; i < kStageBlocks / kSplits; ++i) {
      const int b = i + split;
      if (first_block(s) + b >= blocks) break;
      uint4 x[kEights];
#pragma unroll
      for (int j = 0; j < kEights; ++j) {
        x[j] = *reinterpret_cast<const uint4*>(xs + j * 8 * kRowBytes +
                                               ((b * 4 + t) ^ (g % 2 * 4)) * 16);
      }
#pragma unroll
      for (int q = 0; q < kGroups; ++q) {
        const uint8_t* block = as + (q * kStageBlocks + b) * 1024;
        const uint4 low = *reinterpret_cast<const uint4*>(block);
        const uint4 high = *reinterpret_cast<const uint4*>(block + 512);
#pragma unroll
        for (int j = 0; j < kEights; ++j) {
          lora_mma(c[q][j], low.x, high.x, low.y, high.y, x[j].x, x[j].y);
          lora_mma(c[q][j], low.z, high.z, low.w, high.w, x[j].z, x[j].w);
        }
      }
    }
  }
  wait_for_copies<0>();
  __syncthreads();  // the rings are read, and become the partial sums
  if (!has_rows) return;
  auto* partial = reinterpret_cast<float*>(shared) + split * kRows * partial_stride(kGroups);
#pragma unroll
  for (int q = 0; q < kGroups; ++q) {
#pragma unroll
    for (int j = 0; j < kEights; ++j) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        partial[(first_row + 8 * j + 2 * t + i % 2) * partial_stride(kGroups) + q * 16 + g +
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
#pragma unroll
      for (int split = 0; split < splits_of(kGroups); ++split) {
        const float4 add = load_from_block<kCluster>(
            partial + (split * kRows + row) * partial_stride(kGroups) + group * 16 + quad * 4,
            block);
        sum.x += add.x, sum.y += add.y, sum.z += add.z, sum.w += add.w;
      }
    }
    const float factor = weights[row] * chunk.scale[group];
    *reinterpret_cast<uint2*>(chunk.v[group] + row * 16 + quad * 4) = make_uint2(
        bf16_pair(sum.x * factor, sum.y * factor), bf16_pair(sum.z * factor, sum.w * factor));
  }
}

template <int kCluster, bool kAligned>
__global__ void __launch_bounds__(kThreads, 2)
    lora_shrink_rows_kernel(const __grid_constant__ LoraRowLists lists,
                            const __grid_constant__ LoraRowSite site,
                            const __grid_constant__ StepArrays step, const __nv_bfloat16* x,
                            int32_t k) {
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ Chunk chunk;
  let_next_start();
  wait_for_previous();
  const int rank = cluster_rank<kCluster>();
  const int32_t num_tiles = *lists.num_tiles;
  for (int32_t i = blockIdx.x / kCluster; i < num_tiles; i += gridDim.x / kCluster) {
    const LoraRowTile tile = lists.tiles[i];
    const XCopies<kCluster, kAligned> copies(tile, step.segment_rows, x, k, rank);
    for (int32_t slot = 0;; slot += kMaxGroups) {
      if (tile.adapter != nullptr) {
        for (int s = 0; s < kEarlyStages; ++s) copies.fetch(s, shared + s * kXBytes);
      }
      if (threadIdx.x < kMaxGroups) {
        const Slots slots(tile.adapter, site);
        const int32_t groups = min(slots.total - slot, kMaxGroups);
        // Past the last group: the first again, whose sums are not used.
        int part = 0;
        int32_t group = 0;
        float scale = 0.0f;
        const int32_t mine = static_cast<int32_t>(threadIdx.x) < groups ? threadIdx.x : 0;
        if (threadIdx.x == 0) chunk.total = slots.total;
        chunk.a[threadIdx.x] = slots.find(slot + mine, part, group, scale);
        chunk.scale[threadIdx.x] = scale;
        const int64_t v_row =
            part * lists.capacity.row_groups + tile.v_row + int64_t{group} * tile.segment_rows;
        chunk.v[threadIdx.x] = lists.v + v_row * 16;
        if (slot == 0 && tile.index == 0 && rank == 0 && threadIdx.x == 0) {
#pragma unroll
          for (int p = 0; p < kParts; ++p) {
            const AdapterEntry& entry = slots.entries[p];
            LoraRowSlices& to = lists.slices[tile.segment * kParts + p];
            to.groups = entry.groups;
            if (entry.num_groups > 0) to.first_b = entry.groups[0].b;
            to.num_groups = entry.num_groups;
          }
        }
      }
      __syncthreads();
      const int32_t total = chunk.total;
      if (total == 0) {  // the same for the whole cluster
        wait_for_copies<0>();
        __syncthreads();
        break;
      }
      const int32_t groups = min(total - slot, kMaxGroups);
      const float* weights = step.segment_weights + tile.first;
      const auto run = [&]<int kGroups>() {
        multiply<kCluster, kGroups, kAligned>(copies, k, chunk, rank, tile.num_rows, shared);
        cluster_barrier<kCluster>();
        reduce<kCluster, kGroups>(chunk, groups, weights, tile.num_rows, shared);
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
  if constexpr (kCluster == 1) return multiprocessors;
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
  LaunchShape shape{.grid = dim3(1),
                    .block = dim3(kThreads),
                    .shared_bytes = kSharedBytes<kCluster>,
                    .cluster = kCluster};
  // One kind of device a process: asked once.
  static const int clusters = [&] {
    LORAX_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    kSharedBytes<kCluster>));
    return resident_clusters<kCluster, kAligned>(shape, multiprocessors);
  }();
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
    (aligned ? launch<4, true> : launch<4, false>)(lists, site, step, x, k, device.multiprocessors,
                                                   stream);
  } else {
    (aligned ? launch<1, true> : launch<1, false>)(lists, site, step, x, k, device.multiprocessors,
                                                   stream);
  }
}

}  // namespace lorax::cuda
